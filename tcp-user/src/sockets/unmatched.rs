//! Endpoints that only one of agent and kernel knows.

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::view::SocketPair;

/// Endpoints that match nothing on the other side. Under NAT the kernel's socket and the connection on the
/// wire share one endpoint and differ in the other, so that both are unmatched.
#[derive(Default)]
pub(crate) struct Unmatched {
    locals: HashSet<SocketAddr>,
    remotes: HashSet<SocketAddr>,
}

impl Unmatched {
    /// Adds a pair. If `listens`, the local port belongs to a listener, whose connections share the local
    /// endpoint.
    pub(crate) fn add(&mut self, (local, remote): SocketPair, listens: bool) {
        self.remotes.insert(remote);
        if !listens {
            self.locals.insert(local);
        }
    }

    /// Whether a pair shares an endpoint with one of the unmatched pairs.
    pub(crate) fn share_an_end(&self, (local, remote): SocketPair) -> bool {
        self.locals.contains(&local) || self.remotes.contains(&remote)
    }
}
