//! The document of `/status`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HistoryFilesStatus;

/// State of the agent, its table and its interfaces.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// `finwait.status/1`.
    pub schema: String,
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Inode of the agent's network namespace; `null` if /proc does not show it.
    #[serde(default)]
    pub namespace: Option<u64>,
    /// Time at which the agent started.
    pub started_at: Timestamp,
    /// Interfaces that the agent watches or tried to watch.
    pub interfaces: Vec<InterfaceStatus>,
    /// Connections in the flow table.
    pub table_used: u64,
    /// Connections in the flow table by eviction class (`half_open`, `live`, `finished`).
    #[serde(default)]
    pub table_classes: BTreeMap<String, u64>,
    /// Guaranteed capacity of the flow table, in connections of both families.
    pub table_capacity: u64,
    /// Connections in the flow table by address family (`ipv4`, `ipv6`).
    #[serde(default)]
    pub table_used_by_family: BTreeMap<String, u64>,
    /// Guaranteed capacity of the flow table by address family (`ipv4`, `ipv6`), in connections.
    #[serde(default)]
    pub table_capacity_by_family: BTreeMap<String, u64>,
    /// Memory of the flow table, in bytes.
    pub table_bytes: u64,
    /// Packets that the kernel programs processed.
    pub packets: u64,
    /// Events lost because the event ring was full.
    pub events_lost: u64,
    /// Segments handed to the agent because another CPU held their flow.
    pub deferred: u64,
    /// Flows evicted to make room.
    pub evicted: u64,
    /// Packets of flows for which the table had no free slot.
    #[serde(default)]
    pub refused: u64,
    /// The latest packet that was ignored as one of another network (`other_network`); `null` if there was none.
    #[serde(default)]
    pub other_network: Option<OtherNetwork>,
    /// What the agent remembers of connections; `null` from an agent of an earlier version.
    #[serde(default)]
    pub history: Option<HistoryStatus>,
    /// Why the kernel's own reasons for RSTs of this host are not known; `null` if they are.
    #[serde(default)]
    pub reset_reasons_missing: Option<String>,
    /// The files with the connections that closed; `null` if the agent writes none.
    #[serde(default)]
    pub history_files: Option<HistoryFilesStatus>,
    /// Instructions the verifier processed, by program.
    pub verified_instructions: Vec<(String, u32)>,
    /// 2MSL of local endpoints, in ms.
    pub two_msl_ms: u64,
    /// Number of clients that follow the events.
    #[serde(default)]
    pub watchers: u64,
}

/// What the agent remembers of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryStatus {
    /// Memory for all of it, in bytes; 0 if it is turned off.
    pub bytes: u64,
    /// Segments and other changes that are remembered.
    pub segments: u64,
    /// Number of segments and other changes that there is room for.
    pub segment_capacity: u64,
    /// Connections that have left the flow table and are remembered.
    pub connections: u64,
    /// Number of such connections that there is room for.
    pub connection_capacity: u64,
    /// Time of the oldest segment of a connection that is remembered; `null` if there is none.
    pub since: Option<Timestamp>,
    /// Segments that are not remembered, because too many came at once.
    pub withheld: u64,
}

/// A packet with the addresses and ports of a connection that it does not belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherNetwork {
    /// Addresses and ports of both ends.
    pub ends: [SocketAddr; 2],
    /// Where the connection was seen.
    pub connection: SeenAt,
    /// Where the packet was seen.
    pub packet: SeenAt,
}

/// An interface and VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeenAt {
    /// Name of the interface; `null` if it is gone.
    pub interface: Option<String>,
    /// VLAN ids of the frame, outermost first.
    pub vlan: Vec<u16>,
}

/// `eth0`, or `eth0 VLAN 10.20`.
impl fmt::Display for SeenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface.as_deref().unwrap_or("an interface that is gone"))?;
        let ids: Vec<_> = self.vlan.iter().map(u16::to_string).collect();
        if ids.is_empty() { Ok(()) } else { write!(f, " VLAN {}", ids.join(".")) }
    }
}

/// State of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub interface: String,
    /// Ingress hook (`xdp-native`, `tcx` or `clsact`); `null` if the interface is not watched.
    pub ingress: Option<String>,
    /// Egress hook (`tcx` or `clsact`); `null` if the interface is not watched.
    pub egress: Option<String>,
    /// Place of the egress program among programs of others on the same TCX hook: `last` sees packets as they
    /// leave, `first` sees them before other programs translate them, because one of these ends the chain;
    /// `null` if there are no others.
    pub egress_place: Option<EgressPlace>,
    /// Reason why the interface is not watched.
    pub error: Option<String>,
}

/// Place of the egress program among programs of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressPlace {
    /// Behind all others.
    Last,
    /// Before all others.
    First,
}

impl EgressPlace {
    /// What the place means for the addresses, for a person.
    pub fn description(self) -> &'static str {
        match self {
            EgressPlace::Last => "last on egress, behind other programs",
            EgressPlace::First => {
                "first on egress, because a program before finwait ended the chain; addresses there are those \
                 before translation"
            }
        }
    }
}

impl Status {
    /// Names of the interfaces that the agent watches.
    pub fn watched(&self) -> HashSet<String> {
        watched(&self.interfaces)
    }
}

/// Names of those interfaces that are watched.
pub(crate) fn watched(interfaces: &[InterfaceStatus]) -> HashSet<String> {
    let watched = interfaces.iter().filter(|status| status.error.is_none());
    watched.map(|status| status.interface.clone()).collect()
}
