//! Endpoints that only one of agent and kernel knows.

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::view::SocketPair;

/// Ends that nothing on the other side explains. Under NAT the kernel's socket and what is on the wire share one end, and
/// differ in the other: both are left over.
#[derive(Default)]
pub(crate) struct Unmatched {
    locals: HashSet<SocketAddr>,
    remotes: HashSet<SocketAddr>,
}

impl Unmatched {
    /// `listens`: whether the local port is a listener's, whose end all its connections share.
    pub(crate) fn add(&mut self, (local, remote): SocketPair, listens: bool) {
        self.remotes.insert(remote);
        if !listens {
            self.locals.insert(local);
        }
    }

    /// Whether one of them shares an end with these.
    pub(crate) fn share_an_end(&self, (local, remote): SocketPair) -> bool {
        self.locals.contains(&local) || self.remotes.contains(&remote)
    }
}
