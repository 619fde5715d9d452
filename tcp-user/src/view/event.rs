//! What happens to connections.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tcp_common::State;

use super::serial::{ByName, by_name, micros};
use super::{Connection, Side};

/// One record of `watch` and `replay --events`, told apart by its schema.
// The names are those of `view::schema`; a test holds them together, because an attribute takes no constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schema")]
pub enum Event {
    /// One end changed its state.
    #[serde(rename = "finwait.transition/1")]
    Transition(Transition),
    /// An incarnation is over.
    #[serde(rename = "finwait.close/1")]
    Close(Box<Close>),
}

/// One end of a connection changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// Time of the segment, or time at which a timer expired.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// The client end.
    pub client: Peer,
    /// The server end.
    pub server: Peer,
    /// Number of this use of the same addresses and ports, from 1.
    pub incarnation: u32,
    /// The end that changed its state.
    pub side: Side,
    /// State before.
    #[serde(with = "by_name")]
    #[schemars(with = "ByName<State>")]
    pub from: State,
    /// State after.
    #[serde(with = "by_name")]
    #[schemars(with = "ByName<State>")]
    pub to: State,
    /// Cause of the transition. A newer agent may know causes that this version does not list.
    pub cause: Cow<'static, str>,
}

/// Which end, without how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// IP address of the end.
    pub address: IpAddr,
    /// TCP port of the end.
    pub port: u16,
    /// Whether the end is on this host.
    #[serde(default)]
    pub local: bool,
}

/// A connection that has ended, with the keys of `finwait.connection/1`. Printed once for each connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Close {
    /// The connection as it was at the end.
    #[serde(flatten, with = "Connection")]
    pub connection: Connection,
    /// Time at which the connection ended: closed, reset, superseded or timed out, and TIME-WAIT over.
    #[serde(with = "micros::option", default)]
    #[schemars(with = "Option<Timestamp>")]
    pub closed_at: Option<Timestamp>,
    /// Duration of each phase of the connection, in ms.
    pub durations_ms: Durations,
}

/// The parts of a connection's life, ms; `None` for a part it did not have or whose begin nobody saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Durations {
    /// Time from the first SYN to ESTABLISHED at both ends.
    pub handshake: Option<f64>,
    /// Time from ESTABLISHED at both ends to the first FIN or RST.
    pub established: Option<f64>,
    /// Time from the first FIN or RST until both ends were closed or in TIME-WAIT.
    pub closing: Option<f64>,
    /// Time in TIME-WAIT.
    pub time_wait: Option<f64>,
}

impl From<&super::Endpoint> for Peer {
    fn from(end: &super::Endpoint) -> Peer {
        Peer { address: end.address, port: end.port, local: end.local }
    }
}

impl Peer {
    /// Address and port together.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl From<Transition> for Event {
    fn from(transition: Transition) -> Event {
        Event::Transition(transition)
    }
}

impl From<Close> for Event {
    fn from(close: Close) -> Event {
        Event::Close(Box::new(close))
    }
}
