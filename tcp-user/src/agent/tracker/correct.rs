//! Corrects which ends of a flow are local, where an address alone does not say it.

use tcp_common::record::{Event, event_kind, reported};
use tcp_common::{Flow, FlowKey};

use super::visit::Visitor;
use crate::agent::locality::set_locality;

impl Visitor {
    /// The event with the locality of its flow corrected, in the table too; `None` if the event has it right.
    pub(super) fn correct_locality(&self, event: &Event) -> Option<Event> {
        let Event { key, flow, .. } = event;
        let is_counted = match event.kind {
            event_kind::SEGMENT => is_counted(flow, event.reports),
            event_kind::PREVIOUS => flow.unreported() & reported::OPEN != 0 || !flow.was_established(),
            // A flood of SYNs evicts flows that were never open.
            event_kind::EVICTED => flow.unreported() & reported::OPEN != 0,
            _ => return None,
        };
        let local = self.shared.corrected_locality(key, flow, is_counted)?;
        let mut corrected = *event;
        set_locality(&mut corrected.flow, local);
        let is_present = event.kind == event_kind::SEGMENT;
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

    /// The locality of a flow in the table that is to be corrected.
    pub(super) fn corrected(&self, key: &FlowKey, flow: &Flow) -> Option<[bool; 2]> {
        self.shared.corrected_locality(key, flow, is_counted(flow, flow.unreported()))
    }
}

/// Whether an open is about to be counted, or the close of a flow that never opened: nothing was asked about it so
/// far.
pub(super) fn is_counted(flow: &Flow, reports: u32) -> bool {
    reports & reported::OPEN != 0 || (reports & reported::CLOSE != 0 && !flow.was_established())
}
