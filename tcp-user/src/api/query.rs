//! Parameters of `/connections` and `/events`.

use schemars::JsonSchema;
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
    /// The connection after the event.
    pub connection: C,
    /// The event.
    pub event: E,
}

/// Line of `/events` that stands for events which the client was too slow to read.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// [`Lost::SCHEMA`].
    pub schema: String,
    /// Number of events that were not delivered.
    pub events: u64,
}

impl Lost {
    /// Name of the record's format.
    pub const SCHEMA: &str = "finwait.lost/1";

    /// The record for this number of events.
    pub fn new(events: u64) -> Lost {
        Lost { schema: Lost::SCHEMA.to_owned(), events }
    }
}
