//! `finwait audit`: compares the agent's states of local endpoints with the kernel's sockets.
//!
//! Modules in the order of the data: `sample` reads agent and kernel at nearly the same moment, `judge`
//! compares them and confirms findings by a second sample, `conntrack` compares with nf_conntrack, `table`
//! prints the report. The records of the report are here.

mod conntrack;
mod error;
mod judge;
mod sample;
mod table;

pub use conntrack::{Conntrack, ConntrackCounts};
pub use error::AuditError;
pub use judge::{Options, audit};
pub use table::write as write_table;

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tcp_common::State;

pub use crate::sockets::Reason;
pub use crate::view::Address;

use crate::sockets::{KernelSocket, Timer};
use crate::view::{ByName, Connection, by_name, known_state, micros, string_enum};

/// The name of the document's shape.
pub const SCHEMA: &str = "finwait.audit/1";

string_enum! {
    /// What came of comparing one end.
    pub enum Verdict ("verdict") {
        /// Both say the same; CLOSED is the same as no socket.
        Agree = "agree",
        /// They do not, and nothing explains it.
        Differ = "differ",
        /// They do not, for a known reason.
        Explained = "explained",
        /// The kernel has no such socket, and need not.
        OnlyOurs = "only_ours",
        /// The agent does not know this socket.
        OnlyKernel = "only_kernel",
    }
}

/// Result of comparing the agent's states with the kernel's sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Time of the second sample.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// Time between the two samples, in ms.
    pub interval_ms: u64,
    /// Number of ends by verdict.
    pub counts: VerdictCounts,
    /// How often nf_conntrack's state is compatible; `None` without `--conntrack`.
    pub conntrack: Option<ConntrackCounts>,
    /// Ends with a difference or with an incompatible conntrack state; with `--all` every end.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is left unexplained.
    pub fn agrees(&self) -> bool {
        self.counts.differ == 0 && self.counts.missed == 0
    }
}

/// How many ends came to which verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictCounts {
    /// Ends with the same state on both sides.
    pub agree: u64,
    /// Ends with different states.
    pub differ: u64,
    /// Ends with different states for a known reason.
    pub explained: u64,
    /// Ends known only to the agent, each with a reason.
    pub only_ours: u64,
    /// Ends known only to the kernel, including `missed`.
    pub only_kernel: u64,
    /// Ends known only to the kernel without a reason.
    pub missed: u64,
    /// Ends whose result changed between the two samples.
    pub unsettled: u64,
    /// Listening sockets. They are not compared.
    pub listening: u64,
    /// Other sockets that were not compared, by reason.
    pub not_compared: BTreeMap<String, u64>,
}

/// One end of a connection, seen from this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Result of the comparison.
    pub verdict: Verdict,
    /// Reason why one side does not know the end or why the states differ, if there is one.
    pub reason: Option<Reason>,
    /// The end on this host; the client of a forwarded connection.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// Interface whose link the addresses belong to, if they are link-local.
    pub scope: Option<String>,
    /// The agent's state; `None` if the agent does not know the connection.
    pub ours: Option<Ours>,
    /// The kernel's socket; `None` if there is none, which means CLOSED.
    pub kernel: Option<Socket>,
    /// The entry of nf_conntrack; `None` if there is none or without `--conntrack`.
    pub conntrack: Option<Conntrack>,
}

/// The agent's side of a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ours {
    /// State of the local end; `None` if it is unknown.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub state: State,
    /// Whether the end's own segments confirm the state.
    pub confirmed: bool,
    /// State of the other end; `None` if it is unknown.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub peer_state: State,
    /// The connection as the agent knows it.
    pub connection: Connection,
}

impl Ours {
    /// Whether the state is known from segments sent to the end only.
    pub fn is_assumed(&self) -> bool {
        !self.confirmed && self.state != State::Unknown
    }

    /// Whether an end of the connection is on this host.
    pub fn is_here(&self) -> bool {
        self.connection.ends().iter().any(|end| end.local)
    }
}

/// The kernel's side of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Socket {
    /// State of the socket.
    #[serde(with = "by_name")]
    #[schemars(with = "ByName<State>")]
    pub state: State,
    /// Running timer.
    pub timer: Option<Timer>,
    /// Time until the timer expires, in ms.
    pub expires_ms: Option<u32>,
    /// Time since the last segment, in ms; `None` for request and TIME-WAIT sockets.
    pub silent_ms: Option<u32>,
    /// Inode of the socket; 0 if no process owns it.
    pub inode: u32,
    /// User id of the owner.
    pub uid: u32,
}

impl From<&KernelSocket> for Socket {
    fn from(socket: &KernelSocket) -> Socket {
        let KernelSocket { state, timer, expires_ms, silent_ms, inode, uid, .. } = *socket;
        Socket { state, timer, expires_ms, silent_ms, inode, uid }
    }
}

#[cfg(test)]
mod tests;
