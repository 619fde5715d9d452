//! Events of connections.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tcp_common::State;

use super::serial::{ByName, by_text, known_state, micros};
use super::{Connection, ConnectionId, ReopenReason, Role, TimeWaitEnding};

/// One record of `watch` and `replay --events`; its schema says of which kind.
// The names are those of `view::schema`; a test holds them together, because an attribute takes no constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schema")]
pub enum EventRecord {
    /// One end changed its state.
    #[serde(rename = "finwait.transition/1")]
    Transition(Transition),
    /// The close of a connection is complete.
    #[serde(rename = "finwait.close/1")]
    Close(Box<Close>),
    /// A close was taken back.
    #[serde(rename = "finwait.reopened/1")]
    Reopened(Reopened),
    /// A RST was not accepted.
    #[serde(rename = "finwait.rst_ignored/1")]
    RstIgnored(IgnoredRst),
    /// The TIME-WAIT of one end has ended.
    #[serde(rename = "finwait.time_wait_end/1")]
    TimeWaitEnd(TimeWaitEnd),
    /// Events are missing here.
    #[serde(rename = "finwait.lost/1")]
    Lost(Lost),
}

impl EventRecord {
    /// Id of the connection that the event is about; `None` if it is about none.
    pub fn id(&self) -> Option<ConnectionId> {
        match self {
            EventRecord::Transition(record) => Some(record.id),
            EventRecord::Close(record) => Some(record.connection.id),
            EventRecord::Reopened(record) => Some(record.id),
            EventRecord::RstIgnored(record) => Some(record.id),
            EventRecord::TimeWaitEnd(record) => Some(record.id),
            EventRecord::Lost(_) => None,
        }
    }
}

/// One end of a connection changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// Time of the segment, or time at which a timer expired.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// Interface whose link the addresses belong to, if they are link-local (fe80::/10).
    #[serde(default)]
    pub scope: Option<String>,
    /// The client end.
    pub client: EndAddress,
    /// The server end.
    pub server: EndAddress,
    /// Number of this use of the same addresses and ports, from 1.
    pub incarnation: u32,
    /// Id of the connection: the same in all of its records, and in those of no other connection.
    #[serde(with = "by_text")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{16}$"))]
    pub id: ConnectionId,
    /// The end that changed its state.
    pub side: Role,
    /// State before; `None` if nothing of the end had been seen.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub from: State,
    /// State after; `None` if what was seen of the end has turned out to be of another connection.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub to: State,
    /// Cause of the transition. A newer agent may know causes that this version does not list.
    pub cause: Cow<'static, str>,
}

/// The address of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndAddress {
    /// IP address of the end.
    pub address: IpAddr,
    /// TCP port of the end.
    pub port: u16,
    /// Whether the end is on this host.
    #[serde(default)]
    pub local: bool,
}

/// A connection whose close is complete: each end is in TIME-WAIT or CLOSED. It has the keys of
/// `finwait.connection/1`. Printed once for each connection, and again after a `finwait.reopened/1`. A segment that
/// the network has delayed until after the close may still change the close kind that `finwait ls` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Close {
    /// The connection when its close was complete.
    #[serde(flatten, with = "Connection")]
    pub connection: Connection,
    /// 1, or 2 if an earlier close of this connection was taken back.
    pub revision: u32,
    /// Time at which the close was complete.
    #[serde(with = "micros::option", default)]
    #[schemars(with = "Option<Timestamp>")]
    pub closed_at: Option<Timestamp>,
    /// Duration of each phase of the connection, in ms.
    pub durations_ms: Durations,
}

/// A close was taken back: the RST that ended the connection was ignored by its receiver, and the connection
/// goes on. It follows the `finwait.close/1` that it takes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reopened {
    /// Time of the segment or of the check that shows it.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// Interface whose link the addresses belong to, if they are link-local (fe80::/10).
    #[serde(default)]
    pub scope: Option<String>,
    /// The client end.
    pub client: EndAddress,
    /// The server end.
    pub server: EndAddress,
    /// Number of this use of the same addresses and ports, from 1.
    pub incarnation: u32,
    /// Id of the connection: the same in all of its records, and in those of no other connection.
    #[serde(with = "by_text")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{16}$"))]
    pub id: ConnectionId,
    /// What shows that the connection goes on.
    pub reason: ReopenReason,
}

/// A RST was not accepted by its receiver: it was late, blind or forged, or the receiver's rules ignore it. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IgnoredRst {
    /// Time of the RST.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// Interface whose link the addresses belong to, if they are link-local (fe80::/10).
    #[serde(default)]
    pub scope: Option<String>,
    /// The client end.
    pub client: EndAddress,
    /// The server end.
    pub server: EndAddress,
    /// Number of this use of the same addresses and ports, from 1.
    pub incarnation: u32,
    /// Id of the connection: the same in all of its records, and in those of no other connection.
    #[serde(with = "by_text")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{16}$"))]
    pub id: ConnectionId,
    /// The end whose address the RST came from.
    pub sender: Role,
    /// Why it was not accepted. A newer agent may know causes that this version does not list.
    pub cause: Cow<'static, str>,
}

/// The TIME-WAIT of one end has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWaitEnd {
    /// Time at which it ended.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// Interface whose link the addresses belong to, if they are link-local (fe80::/10).
    #[serde(default)]
    pub scope: Option<String>,
    /// The client end.
    pub client: EndAddress,
    /// The server end.
    pub server: EndAddress,
    /// Number of this use of the same addresses and ports, from 1.
    pub incarnation: u32,
    /// Id of the connection: the same in all of its records, and in those of no other connection.
    #[serde(with = "by_text")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{16}$"))]
    pub id: ConnectionId,
    /// The end that was in TIME-WAIT.
    pub holder: Role,
    /// How it ended.
    pub ending: TimeWaitEnding,
    /// Time in TIME-WAIT since it began or was last restarted, in ms.
    pub duration_ms: f64,
    /// Number of times that it was restarted because the last ACK was lost.
    pub restarts: u32,
}

/// Stands in the place of events that the client was too slow to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// Number of events that were not delivered.
    pub events: u64,
}

/// Durations of the parts of a connection's life, in ms; `None` for a part that did not happen or did not
/// begin in sight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Durations {
    /// Time from the first SYN to ESTABLISHED at both ends.
    pub handshake: Option<f64>,
    /// Time from ESTABLISHED at both ends to the first FIN or RST.
    pub established: Option<f64>,
    /// Time from the first FIN or RST until both ends were closed or in TIME-WAIT.
    pub closing: Option<f64>,
    /// Always `None`: a close is complete before TIME-WAIT is over, which has a record of its own.
    pub time_wait: Option<f64>,
}

impl From<&super::ConnectionEnd> for EndAddress {
    fn from(end: &super::ConnectionEnd) -> EndAddress {
        EndAddress { address: end.address, port: end.port, local: end.local }
    }
}

impl EndAddress {
    /// Address and port together.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl From<Transition> for EventRecord {
    fn from(transition: Transition) -> EventRecord {
        EventRecord::Transition(transition)
    }
}

impl From<Close> for EventRecord {
    fn from(close: Close) -> EventRecord {
        EventRecord::Close(Box::new(close))
    }
}

impl From<Reopened> for EventRecord {
    fn from(reopened: Reopened) -> EventRecord {
        EventRecord::Reopened(reopened)
    }
}

impl From<IgnoredRst> for EventRecord {
    fn from(ignored: IgnoredRst) -> EventRecord {
        EventRecord::RstIgnored(ignored)
    }
}

impl From<TimeWaitEnd> for EventRecord {
    fn from(end: TimeWaitEnd) -> EventRecord {
        EventRecord::TimeWaitEnd(end)
    }
}

impl From<Lost> for EventRecord {
    fn from(lost: Lost) -> EventRecord {
        EventRecord::Lost(lost)
    }
}
