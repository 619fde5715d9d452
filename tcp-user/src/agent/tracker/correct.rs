//! Corrects which ends of a flow are local, where an address alone does not say it.

use tcp_common::record::{Event, event_flag, event_kind, reported};
use tcp_common::{Flow, FlowKey};

use super::visit::{Visitor, open_uncounted};
use crate::agent::locality::set_locality;

impl Visitor {
    /// The event with the locality of its flow corrected, in the table too; `None` if the event has it right.
    pub(super) fn correct_locality(&self, event: &Event) -> Option<Event> {
        let Event { key, flow, flags, .. } = event;
        let is_unopened = !flow.was_established();
        let is_counted = match event.kind {
            event_kind::TRANSITION => {
                flags & event_flag::ESTABLISHED != 0 || (flags & event_flag::OVER != 0 && is_unopened)
            }
            event_kind::PREVIOUS => open_uncounted(flow) || is_unopened,
            // A flood of SYNs evicts flows that were never open.
            event_kind::EVICTED => open_uncounted(flow),
            _ => return None,
        };
        let local = self.shared.corrected_locality(key, flow, is_counted)?;
        let mut corrected = *event;
        set_locality(&mut corrected.flow, local);
        let is_present = event.kind == event_kind::TRANSITION;
        let index = self.shared.table.index_of(event).filter(|_| is_present);
        // If the slot is locked, the next visit corrects it.
        if let Some(mut slot) = index.and_then(|index| self.shared.table.try_lock(index))
            && slot.key() == *key
            && slot.incarnation() == flow.incarnation()
        {
            set_locality(&mut slot, local);
        }
        Some(corrected)
    }

    /// The locality of a flow in the table that is to be corrected. `is_due`: what is due to it is about to be
    /// done.
    pub(super) fn corrected(&self, key: &FlowKey, flow: &Flow, is_due: bool) -> Option<[bool; 2]> {
        let is_counted = open_uncounted(flow) || (is_due && closes_unopened(flow));
        self.shared.corrected_locality(key, flow, is_counted)
    }
}

/// Whether the close of a flow that never opened is still to be counted. Nothing was asked about it so far.
fn closes_unopened(flow: &Flow) -> bool {
    !flow.was_established() && !flow.is_reported(reported::CLOSE)
}
