//! What happens to connections.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tcp_common::State;

use super::serial::{by_name, micros};
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

/// One end changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When the segment was seen, or when the clock ran out.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// The client.
    pub client: Peer,
    /// The server.
    pub server: Peer,
    /// Which life of the 4-tuple.
    pub incarnation: u32,
    /// The end that changed.
    pub side: Side,
    /// Its state before.
    #[serde(with = "by_name")]
    pub from: State,
    /// Its state after.
    #[serde(with = "by_name")]
    pub to: State,
    /// Why, a name of [`tcp_common::Cause`]; text, so that an older CLI can print a newer agent's.
    pub cause: Cow<'static, str>,
}

/// Which end, without how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// IP address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Whether this end is on this host.
    #[serde(default)]
    pub local: bool,
}

/// An incarnation that is over. Emitted once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Close {
    /// The connection as it was at the end.
    #[serde(flatten, with = "Connection")]
    pub connection: Connection,
    /// When it was over: both ends closed, TIME-WAIT expired, reset, superseded or given up.
    #[serde(with = "micros::option", default)]
    pub closed_at: Option<Timestamp>,
    /// How long each part of its life took.
    pub durations_ms: Durations,
}

/// The parts of a connection's life, ms; `None` for a part it did not have or whose begin nobody saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// First SYN to ESTABLISHED at both ends.
    pub handshake: Option<f64>,
    /// From there to the first FIN or RST.
    pub established: Option<f64>,
    /// From there until both ends were closed or in TIME-WAIT.
    pub closing: Option<f64>,
    /// In TIME-WAIT.
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
