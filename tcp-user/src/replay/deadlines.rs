//! When the clock will next change a flow: one entry a flow, in the order of time.

use std::collections::BTreeMap;

use tcp_common::FlowKey;

/// A queue of flows by time. Flows of one moment come in the order of their tickets.
#[derive(Default)]
pub(super) struct Deadlines(BTreeMap<(u64, u64), FlowKey>);

/// A flow's place in the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Unique to the flow.
    pub(super) ticket: u64,
    /// Where it is queued; may be earlier than its deadline, never later.
    queued_ns: Option<u64>,
}

impl Place {
    pub(super) fn new(ticket: u64) -> Place {
        Place { ticket, queued_ns: None }
    }
}

impl Deadlines {
    /// Sees to it that the flow comes up at `due_ns` or before. A deadline that moves away, as every segment of an open
    /// connection makes it, costs nothing: the flow comes up too early once and is put back.
    pub(super) fn at_most(&mut self, place: &mut Place, key: &FlowKey, due_ns: Option<u64>) {
        let Some(due_ns) = due_ns else { return };
        match place.queued_ns {
            Some(queued_ns) if queued_ns <= due_ns => return,
            Some(queued_ns) => self.0.remove(&(queued_ns, place.ticket)),
            None => None,
        };
        self.0.insert((due_ns, place.ticket), *key);
        place.queued_ns = Some(due_ns);
    }

    /// Takes the first flow that comes up at `now_ns` or before, and its time.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<(u64, FlowKey)> {
        let first = self.0.first_entry()?;
        let due_ns = first.key().0;
        (due_ns <= now_ns).then(|| (due_ns, first.remove()))
    }
}

impl Place {
    /// The flow came up and is queued nowhere.
    pub(super) fn popped(&mut self) {
        self.queued_ns = None;
    }
}
