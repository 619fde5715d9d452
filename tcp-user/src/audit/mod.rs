//! `finwait audit`: what the agent says of this host's ends beside the kernel's own sockets.
//!
//! Files in the order of the work: `sample` takes both views at nearly one moment, `judge` compares them end by end and
//! keeps what two samples say alike, `conntrack` puts nf_conntrack's beside them, `table` prints for people.
//! The records are here.

mod conntrack;
mod judge;
mod sample;
mod table;

pub use conntrack::{Conntrack, ConntrackCounts};
pub use judge::{Options, audit};
pub use table::write as write_table;

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tcp_common::State;

pub use crate::sockets::Reason;

use crate::sockets::{KernelSocket, Timer};
use crate::view::{Connection, by_name, micros, words};

/// The name of the document's shape.
pub const SCHEMA: &str = "finwait.audit/1";

words! {
    /// What came of comparing one end.
    pub enum Verdict ("verdict") {
        /// Both say the same; CLOSED is the same as no socket.
        Agree = "agree",
        /// They do not, and nothing explains it.
        Differ = "differ",
        /// The kernel has no such socket, and need not.
        OnlyOurs = "only_ours",
        /// The agent does not know this socket.
        OnlyKernel = "only_kernel",
    }
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When the second sample was taken.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// Between the samples.
    pub interval_ms: u64,
    /// How many ends.
    pub counts: Counts,
    /// How often nf_conntrack's state fits; `None` where it was not asked for.
    pub conntrack: Option<ConntrackCounts>,
    /// Every end that does not agree, or that conntrack does not fit; with `--all` the others too.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is left unexplained.
    pub fn agrees(&self) -> bool {
        self.counts.differ == 0 && self.counts.missed == 0
    }
}

/// How many ends came to which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The same state on both sides.
    pub agree: u64,
    /// Different states.
    pub differ: u64,
    /// Known to the agent alone, explained.
    pub only_ours: u64,
    /// Known to the kernel alone, `missed` ones included.
    pub only_kernel: u64,
    /// Of these, the unexplained.
    pub missed: u64,
    /// Not alike in the two samples: in motion.
    pub unsettled: u64,
    /// Listening sockets, which are no connections.
    pub listening: u64,
}

/// One end of a connection, seen from this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What came of it.
    pub verdict: Verdict,
    /// Why, where something explains it.
    pub reason: Option<Reason>,
    /// The end on this host; the client of a forwarded connection.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// What the agent says; `None` where it knows nothing.
    pub ours: Option<Ours>,
    /// The kernel's socket; `None` where there is none, that is CLOSED.
    pub kernel: Option<Socket>,
    /// What nf_conntrack says; `None` where it does not know it or was not asked.
    pub conntrack: Option<Conntrack>,
}

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// IPv4 on an IPv6 socket is IPv4.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address { address: address.ip(), port: address.port() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> SocketAddr {
        SocketAddr::new(address.address, address.port)
    }
}

/// The agent's side of a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ours {
    /// State of the local end.
    #[serde(with = "by_name")]
    pub state: State,
    /// Whether the end's own segments prove it.
    pub confirmed: bool,
    /// State of the other end.
    #[serde(with = "by_name")]
    pub peer_state: State,
    /// Everything known of the connection.
    pub connection: Connection,
}

impl Ours {
    /// Whether an end of the connection is on this host.
    pub fn is_here(&self) -> bool {
        self.connection.ends().iter().any(|end| end.local)
    }
}

/// The kernel's side of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Its state.
    #[serde(with = "by_name")]
    pub state: State,
    /// Which timer runs.
    pub timer: Option<Timer>,
    /// What is left of it, ms.
    pub expires_ms: Option<u32>,
    /// Since its last segment, ms; unknown for minisockets.
    pub silent_ms: Option<u32>,
    /// Inode of the socket; 0 when no process has it.
    pub inode: u32,
    /// Its owner.
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
