//! Facts of this host that explain why only one of agent and kernel knows a connection: its network
//! namespace, its addresses, the watched interfaces, the start of the agent.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;

use jiff::Timestamp;

use super::KernelSocket;
use crate::view::{SocketPair, string_enum};

string_enum! {
    /// Why only one of agent and kernel knows an endpoint, or why they may differ.
    pub enum Reason ("reason") {
        /// Neither endpoint is local.
        Forwarded = "forwarded",
        /// The address does not belong to this network namespace.
        OtherNamespace = "other_namespace",
        /// NAT: the packets have other addresses or ports than the socket, or both sockets are elsewhere.
        Translated = "translated",
        /// The kernel closed the socket without a segment.
        Forgotten = "forgotten",
        /// No segment has passed since the agent started.
        Early = "early",
        /// The packets pass an interface that is not watched.
        Unwatched = "unwatched",
        /// Segments have passed, and the agent has not seen them.
        Missed = "missed",
        /// The socket is connected to itself, which the agent does not track.
        SelfConnect = "self_connect",
        /// The peer has completed the handshake, and the listener has not accepted it yet: `tcp_check_req()`
        /// drops the ACK of a `TCP_DEFER_ACCEPT` listener, `tcp_v4_syn_recv_sock()` if the queue is full.
        NotAccepted = "not_accepted",
        /// A FIN is on one side of the host's firewall only, or waits behind unsent data.
        FinHeldBack = "fin_held_back",
        /// Another socket, bound to another device, has the same addresses and ports.
        SameAddresses = "same_addresses",
        /// The socket is not connected.
        Unconnected = "unconnected",
    }
}

impl Reason {
    /// Explanation for the report.
    pub const fn explain(self) -> &'static str {
        match self {
            Reason::Forwarded => "forwarded: neither endpoint is local",
            Reason::OtherNamespace => "not an address of this namespace: forwarded, or in a container",
            Reason::Translated => {
                "NAT: translated between other hosts or namespaces, or the socket has other addresses"
            }
            Reason::Forgotten => "no socket: orphan timed out, TIME-WAIT table full, ss -K, or SYN cookie",
            Reason::Early => "silent since before the agent started",
            Reason::Unwatched => "interface not watched",
            Reason::Missed => {
                "segments passed unseen: table full, encrypted below TCP, or a hook that missed them"
            }
            Reason::SelfConnect => "connected to itself: not tracked",
            Reason::NotAccepted => {
                "the listener holds the handshake back: TCP_DEFER_ACCEPT, or its accept queue is full"
            }
            Reason::FinHeldBack => {
                "a FIN passed the network or the socket, not both: dropped by a firewall, or behind unsent data"
            }
            Reason::SameAddresses => {
                "another socket, bound to another device, has the same addresses and ports"
            }
            Reason::Unconnected => "not connected",
        }
    }
}

/// Inode of the network namespace of this process.
pub fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/net").ok().map(|file| file.ino())
}

/// Addresses of this network namespace, with the names of their interfaces.
pub(crate) fn addresses() -> HashMap<IpAddr, String> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return HashMap::new() };
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    all.filter_map(|entry| Some((entry.address.and_then(ip)?, entry.interface_name))).collect()
}

/// Whether an address belongs to this network namespace.
pub(crate) fn is_here(addresses: &HashMap<IpAddr, String>, address: IpAddr) -> bool {
    addresses.contains_key(&address) || address.is_loopback()
}

/// What is known of the host before its sockets are read.
pub(crate) struct HostContext {
    addresses: HashMap<IpAddr, String>,
    watched: HashSet<String>,
    started_at: Timestamp,
    two_msl_ms: u64,
}

impl HostContext {
    /// Reads the addresses of this network namespace. `watched` names the interfaces that the agent watches,
    /// `two_msl_ms` is how long local endpoints stay in TIME-WAIT.
    pub(crate) fn read(watched: HashSet<String>, started_at: Timestamp, two_msl_ms: u64) -> HostContext {
        HostContext::new(addresses(), watched, started_at, two_msl_ms)
    }

    /// A context with given addresses and the names of their interfaces.
    pub(crate) fn new(
        addresses: HashMap<IpAddr, String>,
        watched: HashSet<String>,
        started_at: Timestamp,
        two_msl_ms: u64,
    ) -> HostContext {
        HostContext { addresses, watched, started_at, two_msl_ms }
    }

    /// Why the kernel has no socket for a local endpoint that the agent knows.
    pub(crate) fn why_no_socket(&self, (local, _): SocketPair) -> Reason {
        if !is_here(&self.addresses, local.ip()) { Reason::OtherNamespace } else { Reason::Forgotten }
    }

    /// Whether an address belongs to this network namespace.
    pub(crate) fn is_here(&self, address: IpAddr) -> bool {
        is_here(&self.addresses, address)
    }

    /// Why the agent does not know a socket of the kernel.
    pub(crate) fn why_unknown(&self, socket: &KernelSocket, now: Timestamp) -> Reason {
        if socket.local == socket.remote {
            return Reason::SelfConnect;
        }
        if self.path(socket).is_some_and(|interface| !self.watched.contains(interface)) {
            return Reason::Unwatched;
        }
        let up_ms = u64::try_from(now.duration_since(self.started_at).as_millis()).unwrap_or(0);
        let silent_ms = match (socket.silent_ms, socket.expires_ms) {
            (Some(silent_ms), _) => Some(u64::from(silent_ms)),
            // TIME-WAIT was entered, or restarted, 2MSL before its end.
            (None, Some(left_ms)) => self.two_msl_ms.checked_sub(u64::from(left_ms)),
            (None, None) => None,
        };
        if silent_ms.is_none_or(|silent_ms| silent_ms >= up_ms) { Reason::Early } else { Reason::Missed }
    }

    /// Interface that the socket's packets pass, inferred from its addresses. Wrong if routing is asymmetric.
    fn path(&self, socket: &KernelSocket) -> Option<&str> {
        if is_here(&self.addresses, socket.remote.ip()) {
            return Some("lo");
        }
        self.addresses.get(&socket.local.ip()).map(String::as_str)
    }
}
