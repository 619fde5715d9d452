//! One test of a filter.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};

use super::address::HostFilter;
use super::token::Operator;
use crate::view::{
    CloseKind, Confidence, Connection, ConnectionId, Family, Opener, ResetClass, Role, Roles, StateSet,
    UNSEEN, string_enum,
};

/// A condition on one fact of a connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    State(EndSelector, StateSet),
    Host(EndSelector, HostFilter),
    Port(EndSelector, Operator, u16),
    Ports(EndSelector, Vec<RangeInclusive<u16>>),
    OtherPorts(EndSelector, Vec<RangeInclusive<u16>>),
    Actor(Actor, Identity),
    Kind(KindSelector),
    Reset(ResetSelector),
    Age(Operator, SignedDuration),
    Idle(Operator, SignedDuration),
    Handshake(Operator, SignedDuration),
    /// Payload of both ends.
    Bytes(Operator, u64),
    Process(String),
    Pid(u32),
    Family(Family),
    Interface(String),
    Confidence(Confidence),
    Id(ConnectionId),
    /// One of the VLAN ids of either direction.
    Vlan(u16),
}

/// The ends that a test is about; it holds if it holds for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndSelector {
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

/// The close kinds that a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindSelector {
    /// Neither end has begun to close.
    Open,
    /// The close has begun and is not complete, whether or not its kind is decided.
    Closing,
    /// The close was not seen.
    Unseen,
    /// This kind.
    Is(CloseKind),
}

/// The resets that a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetSelector {
    /// A RST was not accepted.
    Ignored,
    /// A RST of this class.
    Is(ResetClass),
}

/// An end by what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    Closer,
    Aborter,
    Opener,
    Holder,
}

string_enum! {
    /// The end that an actor is, by role or by locality.
    pub(super) enum Identity ("end") {
        /// The client alone.
        Client = "client",
        /// The server alone.
        Server = "server",
        /// Both.
        Both = "both",
        /// One end, on this host.
        Local = "local",
        /// One end, on another host.
        Remote = "remote",
        /// Neither end.
        None = "none",
        /// One end, but it was not seen which.
        Unknown = "unknown",
    }
}

impl Test {
    pub(super) fn matches(&self, connection: &Connection, now: Timestamp) -> bool {
        match self {
            Test::State(ends, states) => {
                ends.any(connection, |side| states.contains(connection.end(side).state))
            }
            Test::Host(ends, host) => {
                let scope = connection.scope.as_deref();
                ends.any_address(connection, |address| host.matches(address, scope))
            }
            Test::Port(ends, operator, port) => {
                ends.any_address(connection, |address| operator.holds(address.port(), *port))
            }
            Test::Ports(ends, ranges) => {
                ends.any_address(connection, |address| includes(ranges, address.port()))
            }
            Test::OtherPorts(ends, ranges) => {
                ends.any_address(connection, |address| !includes(ranges, address.port()))
            }
            Test::Actor(actor, identity) => actor.is(*identity, connection),
            Test::Kind(kind) => kind.matches(connection),
            Test::Reset(reset) => reset.matches(connection),
            Test::Age(operator, limit) => {
                connection.opened_at.is_some_and(|at| operator.holds(now.duration_since(at), *limit))
            }
            Test::Idle(operator, limit) => {
                operator.holds(now.duration_since(connection.last_seen_at), *limit)
            }
            Test::Handshake(operator, limit) => connection
                .handshake_ms
                .is_some_and(|ms| operator.holds(SignedDuration::from_micros((ms * 1000.0) as i64), *limit)),
            Test::Bytes(operator, limit) => {
                operator.holds(connection.client.bytes + connection.server.bytes, *limit)
            }
            Test::Process(wanted) => connection
                .process
                .as_ref()
                .is_some_and(|process| fits(wanted, &process.comm) || wanted.parse() == Ok(process.pid)),
            Test::Pid(wanted) => connection.process.as_ref().is_some_and(|process| process.pid == *wanted),
            Test::Family(family) => connection.family == *family,
            Test::Interface(name) => connection.interface.as_ref() == Some(name),
            Test::Confidence(confidence) => connection.confidence == *confidence,
            Test::Id(id) => connection.id == *id,
            Test::Vlan(id) => {
                connection.ends().iter().any(|end| end.vlan.iter().flatten().any(|one| one == id))
            }
        }
    }
}

impl EndSelector {
    fn any(self, connection: &Connection, test: impl Fn(Role) -> bool) -> bool {
        let selects = |side| match self {
            EndSelector::Either => true,
            EndSelector::Client => side == Role::Client,
            EndSelector::Server => side == Role::Server,
            EndSelector::Local => connection.end(side).local,
            EndSelector::Remote => !connection.end(side).local,
            EndSelector::Source => side == connection.source(),
            EndSelector::Destination => side == connection.source().peer(),
        };
        Role::ALL.iter().any(|&side| selects(side) && test(side))
    }

    /// Like [`any`](Self::any), for each address of an end: with NAT it has one in each tuple.
    fn any_address(self, connection: &Connection, test: impl Fn(SocketAddr) -> bool) -> bool {
        self.any(connection, |side| connection.addresses_of(side).any(&test))
    }
}

impl KindSelector {
    /// Every word for a kind.
    pub(super) fn words() -> impl Iterator<Item = (&'static str, KindSelector)> + Clone {
        let kinds = CloseKind::ALL.into_iter().map(|kind| match kind {
            CloseKind::Open => (kind.name(), KindSelector::Open),
            kind => (kind.name(), KindSelector::Is(kind)),
        });
        kinds.chain([("closing", KindSelector::Closing), (UNSEEN, KindSelector::Unseen)])
    }

    fn matches(self, connection: &Connection) -> bool {
        match self {
            KindSelector::Open => connection.close.is_none(),
            KindSelector::Closing => connection.is_closing(),
            KindSelector::Unseen => connection.close_kind().is_none(),
            KindSelector::Is(kind) => connection.close_kind() == Some(kind),
        }
    }
}

impl ResetSelector {
    /// Every word for a reset.
    pub(super) fn words() -> impl Iterator<Item = (&'static str, ResetSelector)> + Clone {
        let classes = ResetClass::ALL.iter().map(|&class| (class.name(), ResetSelector::Is(class)));
        classes.chain([("ignored", ResetSelector::Ignored)])
    }

    fn matches(self, connection: &Connection) -> bool {
        match self {
            ResetSelector::Ignored => connection.ignored_rst.is_some(),
            ResetSelector::Is(class) => connection.reset.as_ref().is_some_and(|reset| reset.class == class),
        }
    }
}

fn includes(ranges: &[RangeInclusive<u16>], port: u16) -> bool {
    ranges.iter().any(|range| range.contains(&port))
}

/// Whether a name is what a pattern says, in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let parts: Vec<_> = rest.split('*').collect();
    let Some((last, between)) = parts.split_last() else { return true };
    for part in between {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(last)
}

impl Actor {
    /// What it is called in messages.
    pub(super) fn description(self) -> &'static str {
        match self {
            Actor::Closer => "a closer",
            Actor::Aborter => "an aborter",
            Actor::Opener => "an opener",
            Actor::Holder => "a holder",
        }
    }

    /// The ends that it can be.
    pub(super) fn identities(self) -> &'static [Identity] {
        use Identity::*;
        match self {
            Actor::Closer | Actor::Holder => &[Client, Server, Both, Local, Remote, None],
            Actor::Aborter => &[Client, Server, Local, Remote, None],
            Actor::Opener => &[Client, Server, Both, Local, Remote, Unknown],
        }
    }

    fn is(self, identity: Identity, connection: &Connection) -> bool {
        let actual = self.identity(connection);
        let local = match actual {
            Identity::Client => Some(connection.client.local),
            Identity::Server => Some(connection.server.local),
            Identity::Both | Identity::Local | Identity::Remote | Identity::None | Identity::Unknown => {
                Option::None
            }
        };
        match identity {
            Identity::Local => local == Some(true),
            Identity::Remote => local == Some(false),
            Identity::Client | Identity::Server | Identity::Both | Identity::None | Identity::Unknown => {
                actual == identity
            }
        }
    }

    fn identity(self, connection: &Connection) -> Identity {
        let close = connection.close.as_ref();
        let who = match self {
            Actor::Closer => close.and_then(|close| close.closer),
            Actor::Aborter => close.and_then(|close| close.aborter).map(Roles::from),
            Actor::Holder => connection.time_wait.as_ref().map(|time_wait| time_wait.holder),
            Actor::Opener => match connection.opener {
                Opener::Client => Some(Roles::Client),
                Opener::Server => Some(Roles::Server),
                Opener::Both => Some(Roles::Both),
                Opener::Unknown => return Identity::Unknown,
            },
        };
        match who {
            Some(Roles::Client) => Identity::Client,
            Some(Roles::Server) => Identity::Server,
            Some(Roles::Both) => Identity::Both,
            Option::None => Identity::None,
        }
    }
}
