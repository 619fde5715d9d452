//! One test of a filter and what it matches.

use jiff::{SignedDuration, Timestamp};

use super::address::Host;
use super::token::Operator;
use crate::view::{CloseKind, Confidence, Connection, Endpoint, Family, Opener, Side, StateSet, Who, words};

/// A fact about a connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    State(Ends, StateSet),
    Host(Ends, Host),
    Port(Ends, Operator, u16),
    Role(Role, Party),
    /// `None`: it was not seen.
    Kind(Option<CloseKind>),
    Age(Operator, SignedDuration),
    Idle(Operator, SignedDuration),
    Process(String),
    Family(Family),
    Interface(String),
    Confidence(Confidence),
}

/// Which ends a test looks at; it holds if it holds for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Either,
    Client,
    Server,
    Local,
    Remote,
    /// `src` of `ss`.
    Source,
    /// `dst` of `ss`.
    Destination,
}

/// What an end can have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Closer,
    Aborter,
    Opener,
    Holder,
}

words! {
    /// Who has a role, by role in the connection or by place.
    pub(super) enum Party ("end") {
        /// The client alone.
        Client = "client",
        /// The server alone.
        Server = "server",
        /// Both.
        Both = "both",
        /// One end, on this host.
        Local = "local",
        /// One end, elsewhere.
        Remote = "remote",
        /// Nobody.
        None = "none",
        /// Somebody, but it was not seen.
        Unknown = "unknown",
    }
}

impl Test {
    pub(super) fn matches(&self, connection: &Connection, now: Timestamp) -> bool {
        match self {
            Test::State(ends, states) => ends.any(connection, |end| states.contains(end.state)),
            Test::Host(ends, host) => ends.any(connection, |end| host.matches(end)),
            Test::Port(ends, operator, port) => ends.any(connection, |end| operator.holds(end.port, *port)),
            Test::Role(role, party) => role.is_of(*party, connection),
            Test::Kind(kind) => connection.close_kind() == *kind,
            Test::Age(operator, limit) => {
                connection.opened_at.is_some_and(|at| operator.holds(now.duration_since(at), *limit))
            }
            Test::Idle(operator, limit) => {
                operator.holds(now.duration_since(connection.last_seen_at), *limit)
            }
            Test::Process(wanted) => connection
                .process
                .as_ref()
                .is_some_and(|process| process.comm == *wanted || wanted.parse() == Ok(process.pid)),
            Test::Family(family) => connection.family == *family,
            Test::Interface(name) => connection.interface.as_ref() == Some(name),
            Test::Confidence(confidence) => connection.confidence == *confidence,
        }
    }
}

impl Ends {
    fn any(self, connection: &Connection, test: impl Fn(&Endpoint) -> bool) -> bool {
        let [client, server] = connection.ends();
        match self {
            Ends::Either => test(client) || test(server),
            Ends::Client => test(client),
            Ends::Server => test(server),
            Ends::Local => connection.ends().into_iter().any(|end| end.local && test(end)),
            Ends::Remote => connection.ends().into_iter().any(|end| !end.local && test(end)),
            Ends::Source => test(connection.end(source(connection))),
            Ends::Destination => test(connection.end(source(connection).peer())),
        }
    }
}

/// The local end; the client if both or neither are.
fn source(connection: &Connection) -> Side {
    if connection.server.local && !connection.client.local { Side::Server } else { Side::Client }
}

impl Role {
    /// Who can have it.
    pub(super) fn parties(self) -> &'static [Party] {
        use Party::*;
        match self {
            Role::Closer | Role::Holder => &[Client, Server, Both, Local, Remote, None],
            Role::Aborter => &[Client, Server, Local, Remote, None],
            Role::Opener => &[Client, Server, Both, Local, Remote, Unknown],
        }
    }

    fn is_of(self, party: Party, connection: &Connection) -> bool {
        let actual = self.party(connection);
        let local = match actual {
            Party::Client => Some(connection.client.local),
            Party::Server => Some(connection.server.local),
            Party::Both | Party::Local | Party::Remote | Party::None | Party::Unknown => Option::None,
        };
        match party {
            Party::Local => local == Some(true),
            Party::Remote => local == Some(false),
            Party::Client | Party::Server | Party::Both | Party::None | Party::Unknown => actual == party,
        }
    }

    fn party(self, connection: &Connection) -> Party {
        let close = connection.close.as_ref();
        let who = match self {
            Role::Closer => close.and_then(|close| close.closer),
            Role::Aborter => close.and_then(|close| close.aborter).map(Who::from),
            Role::Holder => connection.time_wait.as_ref().map(|time_wait| time_wait.holder),
            Role::Opener => match connection.opener {
                Opener::Client => Some(Who::Client),
                Opener::Server => Some(Who::Server),
                Opener::Both => Some(Who::Both),
                Opener::Unknown => return Party::Unknown,
            },
        };
        match who {
            Some(Who::Client) => Party::Client,
            Some(Who::Server) => Party::Server,
            Some(Who::Both) => Party::Both,
            Option::None => Party::None,
        }
    }
}
