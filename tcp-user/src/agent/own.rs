//! The agent's own connections: queries and scrapes. They are counted apart, and no list or total of the host's
//! connections has them unless it is asked for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tcp_common::{End, Flow, FlowKey};

use crate::view::describe::address;

/// Kinds of the agent's own connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// Through the query socket, which is no TCP.
    Query = 0,
    /// To the address of the metrics.
    Scrape = 1,
}

/// Label values, in the order of [`OwnKind`].
pub const OWN_KINDS: [&str; 2] = ["query", "scrape"];

/// Recognizes and counts the agent's own connections.
#[derive(Debug)]
pub struct OwnConnections {
    metrics: SocketAddr,
    accepted: [AtomicU64; OWN_KINDS.len()],
}

impl OwnConnections {
    /// For an agent that listens for scrapes on this address.
    pub fn new(metrics: SocketAddr) -> OwnConnections {
        OwnConnections { metrics, accepted: Default::default() }
    }

    /// Counts a connection that was accepted.
    pub fn accept(&self, kind: OwnKind) {
        self.accepted[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of connections accepted so far, by [`OwnKind`].
    pub fn accepted(&self) -> [u64; OWN_KINDS.len()] {
        self.accepted.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Whether a flow is a connection to the address of the metrics.
    pub fn includes(&self, key: &FlowKey, flow: &Flow) -> bool {
        let listens = |end: End| {
            let ip = self.metrics.ip();
            flow.is_local(end)
                && key.endpoint(end).port == self.metrics.port()
                && (ip.is_unspecified() || ip.to_canonical() == address(key, end))
        };
        listens(End::A) || listens(End::B)
    }
}

#[cfg(test)]
mod tests {
    use tcp_common::Endpoint;

    use super::*;

    #[test]
    fn a_flow_is_the_agents_if_a_local_end_is_the_address_of_the_metrics() {
        let key = |server: [u8; 4], port| {
            FlowKey::new(Endpoint::v4([10, 9, 0, 7], 40_000), Endpoint::v4(server, port), 0, 4)
        };
        let is_own = |metrics: &str, server, port, local| {
            let (key, client) = key(server, port);
            let mut flow = Flow::EMPTY;
            flow.set_local(client.peer(), local);
            OwnConnections::new(metrics.parse().expect("an address")).includes(&key, &flow)
        };
        assert!(is_own("10.9.0.1:9817", [10, 9, 0, 1], 9817, true));
        assert!(is_own("0.0.0.0:9817", [10, 9, 0, 1], 9817, true));
        assert!(is_own("[::]:9817", [10, 9, 0, 1], 9817, true));
        assert!(is_own("[::ffff:10.9.0.1]:9817", [10, 9, 0, 1], 9817, true));
        assert!(!is_own("10.9.0.1:9817", [10, 9, 0, 1], 9817, false), "another agent's");
        assert!(!is_own("10.9.0.1:9817", [10, 9, 0, 1], 9818, true));
        assert!(!is_own("10.9.0.1:9817", [10, 9, 0, 2], 9817, true));
    }
}
