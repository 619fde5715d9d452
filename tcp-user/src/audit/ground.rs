//! What explains that one view lacks what the other has: the namespace, its addresses, what is watched and since when.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use jiff::Timestamp;

use super::Ends;
use super::Reason;
use crate::agent::interfaces::Watched;
use crate::sockets::KernelSocket;

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

/// Known before the samples.
pub(crate) struct Ground {
    addresses: HashMap<IpAddr, String>,
    watched: HashSet<String>,
    started_at: Timestamp,
    two_msl_ms: u64,
}

impl Ground {
    /// `two_msl_ms`: how long this host's ends are in TIME-WAIT.
    pub(crate) fn of(interfaces: &[Watched], started_at: Timestamp, two_msl_ms: u64) -> Ground {
        let watched = interfaces.iter().filter(|interface| interface.error.is_none());
        let watched = watched.map(|interface| interface.interface.clone()).collect();
        Ground::new(addresses(), watched, started_at, two_msl_ms)
    }

    pub(super) fn new(
        addresses: HashMap<IpAddr, String>,
        watched: HashSet<String>,
        started_at: Timestamp,
        two_msl_ms: u64,
    ) -> Ground {
        Ground { addresses, watched, started_at, two_msl_ms }
    }

    /// Why the kernel may have no socket for this end of ours.
    pub(super) fn why_no_socket(&self, (local, _): Ends) -> Reason {
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

/// Ends that nothing on the other side explains. Under NAT the kernel's socket and what is on the wire share one end, and
/// differ in the other: both are left over.
#[derive(Default)]
pub(crate) struct Leftovers {
    locals: HashSet<SocketAddr>,
    remotes: HashSet<SocketAddr>,
}

impl Leftovers {
    /// `listens`: whether the local port is a listener's, whose end all its connections share.
    pub(crate) fn add(&mut self, (local, remote): Ends, listens: bool) {
        self.remotes.insert(remote);
        if !listens {
            self.locals.insert(local);
        }
    }

    /// Whether one of them shares an end with these.
    pub(crate) fn share_an_end(&self, (local, remote): Ends) -> bool {
        self.locals.contains(&local) || self.remotes.contains(&remote)
    }
}
