//! Facts of this host that explain why only one of agent and kernel knows a connection: its network namespace, its
//! addresses, the watched interfaces, the start of the agent.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;

use jiff::Timestamp;

use super::KernelSocket;
use crate::view::{SocketPair, words};

words! {
    /// Why one side may lack what the other has.
    pub enum Reason ("reason") {
        /// Neither end is on this host.
        Forwarded = "forwarded",
        /// The end is no address of this network namespace.
        OtherNamespace = "other_namespace",
        /// The kernel has a socket that shares one end: NAT.
        Translated = "translated",
        /// The kernel ended it without a segment.
        Forgotten = "forgotten",
        /// Nothing of it passed since the agent started.
        Early = "early",
        /// Its packets pass an interface that is not watched.
        Unwatched = "unwatched",
        /// Its segments passed, and the agent did not see them.
        Missed = "missed",
        /// A socket that is connected to itself is not followed.
        SelfConnect = "self_connect",
    }
}

impl Reason {
    /// For people.
    pub const fn explain(self) -> &'static str {
        match self {
            Reason::Forwarded => "forwarded: neither end is on this host",
            Reason::OtherNamespace => "no address of this namespace: forwarded, or a container's",
            Reason::Translated => "NAT: the kernel's socket has another address or port",
            Reason::Forgotten => "no socket: orphan timed out, TIME-WAIT table full, ss -K, or SYN cookie",
            Reason::Early => "silent since before the agent started",
            Reason::Unwatched => "its interface is not watched",
            Reason::Missed => {
                "segments passed unseen: table full, encrypted below TCP, or a hook that missed them"
            }
            Reason::SelfConnect => "connected to itself: not followed",
        }
    }
}

/// The inode of this process' network namespace.
pub fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/net").ok().map(|file| file.ino())
}

/// The addresses of this namespace, with their interfaces.
pub(crate) fn addresses() -> HashMap<IpAddr, String> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return HashMap::new() };
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    all.filter_map(|entry| Some((entry.address.and_then(ip)?, entry.interface_name))).collect()
}

/// Whether an address belongs to this namespace.
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

    /// Why the kernel may have no socket for this end of ours.
    pub(crate) fn why_no_socket(&self, (local, _): SocketPair) -> Reason {
        if !is_here(&self.addresses, local.ip()) { Reason::OtherNamespace } else { Reason::Forgotten }
    }

    /// Whether an address belongs to this namespace.
    pub(crate) fn is_here(&self, address: IpAddr) -> bool {
        is_here(&self.addresses, address)
    }

    /// Why the agent may not know this socket.
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
            // A TIME-WAIT was entered, or restarted, 2MSL before its end.
            (None, Some(left_ms)) => self.two_msl_ms.checked_sub(u64::from(left_ms)),
            (None, None) => None,
        };
        if silent_ms.is_none_or(|silent_ms| silent_ms >= up_ms) { Reason::Early } else { Reason::Missed }
    }

    /// The interface whose packets are this socket's, as its addresses tell: a guess where routes are odd.
    fn path(&self, socket: &KernelSocket) -> Option<&str> {
        if is_here(&self.addresses, socket.remote.ip()) {
            return Some("lo");
        }
        self.addresses.get(&socket.local.ip()).map(String::as_str)
    }
}
