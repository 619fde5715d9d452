//! The document of `/stats`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// One sample of a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetricSample {
    /// Values of the labels, by name.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: serde_json::Number,
}

/// Totals since the agent started. The keys before `metrics` select from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// `finwait.stats/1`.
    pub schema: String,
    /// Endpoints by locality and state, at present.
    pub endpoints: BTreeMap<String, Counts>,
    /// Connections that became ESTABLISHED, by role of the local endpoint and address family.
    pub opened: BTreeMap<String, Counts>,
    /// Closes, by close kind and closer.
    pub closed: BTreeMap<String, Counts>,
    /// RSTs by reason and origin. `blind` ones were not accepted; their origin is unknown and counts as
    /// remote.
    pub resets: BTreeMap<String, Counts>,
    /// TIME-WAIT events.
    pub time_wait: Counts,
    /// Segments by direction and kind.
    pub segments: BTreeMap<String, Counts>,
    /// Segments without effect on a state, by cause.
    pub unmoved: Counts,
    /// Packets seen, that is tracked, ignored or pending.
    pub packets_seen: u64,
    /// Packets assigned to a connection.
    pub packets_tracked: u64,
    /// Packets assigned to no connection, by reason.
    pub packets_ignored: Counts,
    /// Fragments that wait for the rest of their datagram.
    pub fragments_pending: u64,
    /// Events read from the event ring.
    pub events_delivered: u64,
    /// Events lost because the event ring was full.
    pub events_lost: u64,
    /// Times the agent rescanned the flow table because events were lost.
    pub resyncs: u64,
    /// Segments that the agent applied because another CPU held their flow.
    pub deferred: u64,
    /// Checks against the kernel's sockets.
    pub audit_looks: u64,
    /// Local endpoints closed because their socket was gone, by last known state. `adopted` counts
    /// connections older than the agent, imported from their sockets.
    pub audit_repairs: Counts,
    /// Every counter and gauge of the metrics page by its name there, with the same samples.
    pub metrics: BTreeMap<String, Vec<MetricSample>>,
}
