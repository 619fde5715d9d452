//! The records that users see, from the CLI, the query socket and the replay.
//!
//! Nothing here decides anything about TCP, or knows where a record came from or how it is printed. Keys,
//! words and schema names are a promise to users: keys may be added, none is renamed.
//!
//! Times are RFC 3339 in UTC with microseconds, durations numbers of milliseconds, `null` is "not known" or
//! "not yet".

mod connection;
pub mod describe;
mod event;
mod glossary;
mod id;
mod ports;
mod reset;
mod serial;
mod states;
mod words;

pub use connection::{
    Address, CloseInfo, Connection, ConnectionEnd, IcmpMessage, Nat, NatTuple, Process, SocketPair, TimeWait,
    UNSEEN,
};
pub use event::{
    Close, Durations, EndAddress, EventRecord, IgnoredRst, Lost, Reopened, TimeWaitEnd, Transition,
};
pub use glossary::{GlossaryEntry, glossary};
pub use id::{ConnectionId, InvalidId};
pub use ports::{PortBudget, Ports};
pub(crate) use reset::is_ignored_rst;
pub use reset::{ResetClass, ResetInfo};
pub(crate) use serial::{ByName, by_name, known_state, micros};
pub use states::{StateSet, UnknownState};
pub use tcp_common::{CloseKind, State};
pub(crate) use words::string_enum;
pub use words::{
    Confidence, Family, Fins, Opener, ReopenReason, Role, Roles, TimeWaitEnding, Tunnel, UnknownName,
};

/// Names of the records' schemas.
pub mod schema {
    /// A [`Connection`](super::Connection).
    pub const CONNECTION: &str = "finwait.connection/1";
    /// A document with the selected connections, under `connections`.
    pub const CONNECTIONS: &str = "finwait.connections/1";
    /// A [`Transition`](super::Transition).
    pub const TRANSITION: &str = "finwait.transition/1";
    /// A [`Close`](super::Close).
    pub const CLOSE: &str = "finwait.close/1";
    /// A document with the rows that a statement of SQL selects, under `rows`.
    pub const ROWS: &str = "finwait.rows/1";
    /// A document with connections that closed, under `closes`.
    pub const CLOSES: &str = "finwait.closes/1";
    /// A [`Reopened`](super::Reopened).
    pub const REOPENED: &str = "finwait.reopened/1";
    /// An [`IgnoredRst`](super::IgnoredRst).
    pub const RST_IGNORED: &str = "finwait.rst_ignored/1";
    /// A [`TimeWaitEnd`](super::TimeWaitEnd).
    pub const TIME_WAIT_END: &str = "finwait.time_wait_end/1";
    /// A [`Lost`](super::Lost).
    pub const LOST: &str = "finwait.lost/1";
    /// A document with transitions, closes and what follows them, under `events`.
    pub const EVENTS: &str = "finwait.events/1";
    /// An [`Explanation`](crate::why::Explanation).
    pub const WHY: &str = "finwait.why/1";
    /// A [`PortBudget`](super::PortBudget).
    pub const PORT_BUDGET: &str = "finwait.port_budget/1";
    /// A [`Ports`](super::Ports), with port budgets under `destinations`.
    pub const PORTS: &str = "finwait.ports/1";
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
