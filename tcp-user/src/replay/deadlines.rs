//! The timer queue: one entry a flow, ordered by time.

use std::collections::BTreeMap;

use tcp_common::FlowKey;

/// A queue of flows by deadline. Flows with the same deadline come in the order of their tickets.
#[derive(Default)]
pub(super) struct Deadlines(BTreeMap<(u64, u64), FlowKey>);

/// A flow's entry in the queue, kept with the flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueueHandle {
    /// Unique to the flow.
    pub(super) ticket: u64,
    /// Time of the entry, ns: never later than the deadline, maybe earlier. `None` if the flow is not queued.
    queued_ns: Option<u64>,
}

impl QueueHandle {
    pub(super) fn new(ticket: u64) -> QueueHandle {
        QueueHandle { ticket, queued_ns: None }
    }
}

impl Deadlines {
    /// Queues the flow for `due_ns` at the latest. A deadline that moves away, as with every segment of an
    /// open connection, costs nothing: the flow is popped too early once and queued again.
    pub(super) fn at_most(&mut self, handle: &mut QueueHandle, key: &FlowKey, due_ns: Option<u64>) {
        let Some(due_ns) = due_ns else { return };
        match handle.queued_ns {
            Some(queued_ns) if queued_ns <= due_ns => return,
            Some(queued_ns) => self.0.remove(&(queued_ns, handle.ticket)),
            None => None,
        };
        self.0.insert((due_ns, handle.ticket), *key);
        handle.queued_ns = Some(due_ns);
    }

    /// Removes the first flow that is due at `now_ns` or before. Returns its time and key.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<(u64, FlowKey)> {
        let first = self.0.first_entry()?;
        let due_ns = first.key().0;
        (due_ns <= now_ns).then(|| (due_ns, first.remove()))
    }
}

impl QueueHandle {
    /// Records that the flow was popped.
    pub(super) fn popped(&mut self) {
        self.queued_ns = None;
    }
}
