//! Connections that have left the flow table, in memory of a fixed size: the oldest are forgotten first.

use std::collections::VecDeque;

use super::moments::MomentPlace;
use crate::kernel::Entry;

/// A connection that has left the flow table.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct EndedFlow {
    /// The flow as it was at the end.
    pub(in crate::agent) entry: Entry,
    pub(super) latest: MomentPlace,
}

/// Connections that were established, and attempts. Attempts have a budget of their own, so that a flood of them does not
/// crowd out what is known of connections.
pub(super) struct EndedFlows {
    attempts: VecDeque<EndedFlow>,
    connections: VecDeque<EndedFlow>,
    capacity: usize,
}

impl EndedFlows {
    /// Memory of an ended flow, in bytes.
    pub(super) const BYTES: usize = size_of::<EndedFlow>();

    /// Memory for this many flows.
    pub(super) fn new(capacity: usize) -> EndedFlows {
        EndedFlows { attempts: VecDeque::new(), connections: VecDeque::new(), capacity }
    }

    pub(super) fn push(&mut self, ended: EndedFlow) {
        let for_attempts = self.capacity / ATTEMPTS_PART;
        let (flows, capacity) = if ended.entry.flow.was_established() {
            (&mut self.connections, self.capacity - for_attempts)
        } else {
            (&mut self.attempts, for_attempts)
        };
        if capacity == 0 {
            return;
        }
        if flows.is_empty() {
            // Of memory that is not written nothing is used.
            flows.reserve_exact(capacity);
        }
        if flows.len() == capacity {
            flows.pop_front();
        }
        flows.push_back(ended);
    }

    /// The latest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &EndedFlow> {
        self.connections.iter().rev().chain(self.attempts.iter().rev())
    }

    /// Numbers of flows that are kept, and that there is room for.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.attempts.len() + self.connections.len(), self.capacity)
    }
}

/// The part of the memory for attempts.
const ATTEMPTS_PART: usize = 8;
