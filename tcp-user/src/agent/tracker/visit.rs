//! Visits to single slots of the flow table, by event or by scan.

use std::sync::Arc;

use tcp_common::record::{Event, reported};
use tcp_common::table::Tag;
use tcp_common::{End, Flow, Outcome, Rules};

use crate::agent::change::Change;
use crate::agent::locality::set_locality;
use crate::agent::report::attempt_unreported;
use crate::agent::shared::Shared;
use crate::agent::slot_cache::SlotCache;
use crate::agent::totals::Totals;
use crate::clock::monotonic_ns;
use crate::kernel::{Entry, SlotGuard};

/// Brings slots of the flow table up to date, and the cache with them.
pub(super) struct Visitor {
    pub(super) shared: Arc<Shared>,
    pub(super) cache: SlotCache,
}

impl Visitor {
    /// Visits several slots, whose memory is fetched first.
    pub(super) fn visit_slots(&mut self, totals: &mut Totals, slots: &[u32]) {
        for &index in slots {
            self.shared.table.prefetch(index);
            self.cache.prefetch(index);
        }
        slots.iter().for_each(|&index| self.visit_slot(totals, index));
    }

    /// Expires timers of the flow in a slot, reports what is still to be reported of it, and removes it once it
    /// is closed and forgotten.
    pub(super) fn visit_slot(&mut self, totals: &mut Totals, index: u32) {
        let shared = Arc::clone(&self.shared);
        let (table, rules) = (&shared.table, &shared.rules);
        // The tag is read first: a later change makes the next tag scan visit the slot again.
        let tag = table.tag(index);
        let Some(entry) = table.read(index) else {
            if tag.phase() == Tag::FREE {
                self.cache.free(index, table.family(index));
            }
            return;
        };
        let (now_ns, due_ns) = (monotonic_ns(), due_ns(&entry.flow, rules));
        let local = self.corrected(&entry.key, &entry.flow);
        if now_ns < due_ns && local.is_none() && !attempt_unreported(&entry.flow) {
            if tag.is_unlocked() {
                self.cache.record(index, table.family(index), tag, &entry.flow, now_ns, due_ns);
            }
            return;
        }
        // If the slot is locked, its entry in the cache leads to another visit.
        let Some(mut slot) = table.try_lock(index) else { return };
        if slot.key() == entry.key && slot.incarnation() == entry.flow.incarnation() {
            if let Some(local) = local {
                set_locality(&mut slot, local);
            }
            self.expire(totals, index, slot, now_ns);
        }
    }

    /// Reports what was not noticed of the flow in a slot, then does what is due at `now_ns`.
    fn expire(&mut self, totals: &mut Totals, index: u32, mut slot: SlotGuard<'_>, now_ns: u64) {
        let shared = Arc::clone(&self.shared);
        let (family, rules) = (shared.table.family(index), &shared.rules);
        let unnoticed = slot.report();
        let (before, due_ns) = (*slot, due_ns(&slot, rules));
        let outcome = slot.tick(now_ns, rules);
        let reports = slot.report();
        let is_attempt = attempt_unreported(&slot);
        if is_attempt {
            let bits = slot.reported() | reported::ATTEMPT;
            slot.set_reported(bits);
        }
        if (unnoticed | reports) == 0 && slot.is_over() && now_ns >= due_ns {
            let entry = Entry { index, key: slot.key(), hook: slot.hook(), tags: slot.tags(), flow: *slot };
            slot.remove();
            self.cache.free(index, family);
            shared.histories.lock().end(entry);
            return;
        }
        let (key, flow, hook) = (slot.key(), *slot, slot.hook());
        let tag = slot.unlock();
        shared.report(totals, &Change::unnoticed(&key, &before, hook), unnoticed);
        if is_attempt {
            shared.report_attempt(totals, &key, &flow, hook);
        }
        let Outcome { from, to, cause, .. } = outcome;
        let change = Change { key: &key, flow: &flow, hook, at_ns: now_ns, from, to, cause, segment: None };
        if outcome.is_transition() {
            totals.lateness.observe(now_ns.saturating_sub(due_ns) as f64 / 1e9);
            totals.count_outcome(&flow, &outcome);
            self.record_change(totals, index, &change);
        }
        // Under this tag, so that the next tag scan does not visit the slot unless it has changed since.
        self.cache.record(index, family, tag, &flow, now_ns, self::due_ns(&flow, rules));
        shared.report(totals, &change, reports);
    }

    /// Remembers a flow that has left the slot that an event names, and the change that ended it.
    pub(super) fn remember_end(&self, event: &Event, change: &Change<'_>) {
        let Some(index) = self.shared.table.index_of(event) else { return };
        let &Change { key, flow, hook, .. } = change;
        let mut histories = self.shared.histories.lock();
        histories.record(index, change);
        histories.end(Entry { index, key: *key, hook, tags: [0; 2], flow: *flow });
    }

    /// Records a change in the cache and in the flow's history, and counts how long the endpoints were in the states
    /// that they have left.
    pub(super) fn record_change(&mut self, totals: &mut Totals, index: u32, change: &Change<'_>) {
        self.shared.histories.lock().record(index, change);
        let due_ns = due_ns(change.flow, &self.shared.rules);
        let durations_ns = self.cache.update(index, change, due_ns);
        for end in [End::A, End::B] {
            if let Some(ns) = durations_ns[end as usize] {
                totals.observe_state_duration(change.flow.is_local(end), change.from[end as usize], ns);
            }
        }
    }
}

/// Time at which the agent has to act on a flow if no segment arrives, in ns: 0 if something of it is still to
/// be reported.
fn due_ns(flow: &Flow, rules: &Rules) -> u64 {
    if flow.unreported() != 0 { 0 } else { flow.due_ns(rules).unwrap_or(u64::MAX) }
}
