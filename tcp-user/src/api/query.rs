//! Parameters of `/connections` and `/events`.

use serde::{Deserialize, Serialize};

/// Parameters of `/connections`.
#[derive(Deserialize)]
pub struct ConnectionsQuery {
    /// Whether to include closed connections that are kept to absorb late segments.
    #[serde(default)]
    pub all: bool,
    /// Whether to include the agent's own connections: scrapes of its metrics.
    #[serde(default)]
    pub own: bool,
    /// Whether to list only connections that have ended, also those that are no longer in the flow table.
    #[serde(default)]
    pub closed: bool,
    /// A filter expression; empty matches every connection.
    #[serde(default)]
    pub filter: String,
}

/// Parameters of `/events`.
#[derive(Deserialize)]
pub struct EventsQuery {
    /// A filter expression, applied to the connection after the event; empty matches every event.
    #[serde(default)]
    pub filter: String,
    /// Whether each line carries the whole connection: an [`Observed`] instead of a bare event.
    #[serde(default)]
    pub connections: bool,
}

/// A line of `/events?connections=true`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Observed<C, E> {
    /// The connection after the event; `None` where events were lost.
    pub connection: Option<C>,
    /// The event.
    pub event: E,
}
