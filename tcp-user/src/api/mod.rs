//! The query socket: HTTP over a Unix socket. Its address, its parameters and the documents it answers with.
//!
//! The agent serves these types, and the CLI and the tests read them, so neither has to know the other.
//! Records of connections and events are in [`crate::view`].

pub mod client;
mod history;
mod query;
mod stats;
mod status;
mod why;

pub use history::{HistoryFilesStatus, HistoryQuery, UnreadableFile};
pub use query::{ConnectionsQuery, EventsQuery, Observed};
pub use stats::{Counts, MetricSample, Stats};
pub(crate) use status::watched;
pub use status::{EgressPlace, HistoryStatus, InterfaceStatus, OtherNetwork, SeenAt, Status};

pub use why::{WhyAnswer, WhyQuery};

/// Default path of the query socket.
pub const DEFAULT_SOCKET: &str = "/run/finwait/finwait.sock";
