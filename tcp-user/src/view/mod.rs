//! What users see of a connection: the records of the CLI, the query socket and the replay.
//!
//! Nothing here decides anything about TCP and nothing knows where a record came from or how it is printed. Keys, words
//! and schema names are a promise to users: keys may be added, none is renamed.
//!
//! Times are RFC 3339 in UTC with microseconds, durations numbers of milliseconds, `null` is "not known" or "not yet".

mod connection;
pub mod describe;
mod event;
mod glossary;
mod serial;
mod states;
mod words;

pub use connection::{CloseInfo, Connection, Endpoint, Process, SocketPair, TimeWait, UNSEEN};
pub use event::{Close, Durations, Event, Peer, Transition};
pub use glossary::{Entry, glossary};
pub(crate) use serial::{ByName, by_name, micros};
pub use states::{StateSet, UnknownState};
pub use tcp_common::{CloseKind, State};
pub(crate) use words::words;
pub use words::{Confidence, Family, Fins, Opener, Side, UnknownWord, Who};

/// Names of the records' shapes.
pub mod schema {
    /// A [`Connection`](super::Connection).
    pub const CONNECTION: &str = "finwait.connection/1";
    /// A document with all connections that were asked for, under `connections`.
    pub const CONNECTIONS: &str = "finwait.connections/1";
    /// A [`Transition`](super::Transition).
    pub const TRANSITION: &str = "finwait.transition/1";
    /// A [`Close`](super::Close).
    pub const CLOSE: &str = "finwait.close/1";
    /// A document with transitions and closes, under `events`.
    pub const EVENTS: &str = "finwait.events/1";
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
