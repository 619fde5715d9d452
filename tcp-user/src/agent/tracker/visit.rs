//! Visits to single slots of the flow table, by event or by scan.

use std::sync::Arc;

use tcp_common::flow::Initiator;
use tcp_common::record::reported;
use tcp_common::table::Tag;
use tcp_common::{Cause, End, Flow, FlowKey, Outcome, Rules, State};

use crate::agent::change::Change;
use crate::agent::shared::{Shared, WatchEvent};
use crate::agent::slot_cache::SlotCache;
use crate::agent::totals::Totals;
use crate::clock::monotonic_ns;
use crate::kernel::SlotGuard;

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

    /// Expires timers of the flow in a slot, counts its open, its close and its unanswered SYN if they are not
    /// counted yet, and removes it once it is closed and forgotten.
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
        if now_ns < due_ns && !open_uncounted(&entry.flow) && !attempt_unreported(&entry.flow) {
            if tag.is_unlocked() {
                self.cache.record(index, table.family(index), tag, &entry.flow, now_ns, due_ns);
            }
            return;
        }
        // If the slot is locked, its entry in the cache leads to another visit.
        let Some(slot) = table.try_lock(index) else { return };
        if slot.key() == entry.key && slot.incarnation() == entry.flow.incarnation() {
            self.expire(totals, index, slot, now_ns, due_ns);
        }
    }

    /// Does what was due at `due_ns` to the flow in a slot.
    fn expire(&mut self, totals: &mut Totals, index: u32, mut slot: SlotGuard<'_>, now_ns: u64, due_ns: u64) {
        let shared = Arc::clone(&self.shared);
        let (family, rules) = (shared.table.family(index), &shared.rules);
        let outcome = slot.tick(now_ns, rules);
        let (count_open, report_close) = (open_uncounted(&slot), close_unreported(&slot));
        let report_attempt = attempt_unreported(&slot);
        if report_attempt {
            slot.set_reported(reported::ATTEMPT);
        }
        if count_open {
            slot.set_reported(reported::OPEN);
        }
        if report_close {
            slot.set_reported(reported::CLOSE);
        } else if slot.is_over() && now_ns >= self::due_ns(&slot, rules) {
            slot.remove();
            self.cache.free(index, family);
            return;
        }
        let (key, flow, hook) = (slot.key(), *slot, slot.hook());
        let tag = slot.unlock();
        if count_open {
            self.count_open(totals, &key, &flow);
        }
        if report_attempt {
            self.report_attempt(totals, &key, &flow, hook);
        }
        if outcome.is_transition() {
            totals.lateness.observe(now_ns.saturating_sub(due_ns) as f64 / 1e9);
            totals.count_outcome(&flow, &outcome);
            let Outcome { from, to, cause, .. } = outcome;
            let change = Change { key: &key, flow: &flow, hook, at_ns: now_ns, from, to, cause };
            self.record_change(totals, index, &change);
            shared.publish_transitions(&change);
        }
        // Under this tag, so that the next tag scan does not visit the slot unless it has changed since.
        self.cache.record(index, family, tag, &flow, now_ns, self::due_ns(&flow, rules));
        if report_close {
            self.report_close(totals, &key, &flow, hook, now_ns);
        }
    }

    /// Records a change in the cache, and counts how long the endpoints were in the states that they have
    /// left.
    pub(super) fn record_change(&mut self, totals: &mut Totals, index: u32, change: &Change<'_>) {
        let due_ns = due_ns(change.flow, &self.shared.rules);
        let durations_ns = self.cache.update(index, change, due_ns);
        for end in [End::A, End::B] {
            if let Some(ns) = durations_ns[end as usize] {
                totals.observe_state_duration(change.flow.is_local(end), change.from[end as usize], ns);
            }
        }
    }

    /// Counts an open, unless it is the agent's own.
    pub(super) fn count_open(&self, totals: &mut Totals, key: &FlowKey, flow: &Flow) {
        if !self.shared.own.includes(key, flow) {
            totals.count_open(key, flow);
        }
    }

    /// Counts a SYN that was sent again without an answer, and publishes that a host of this side sent it. The
    /// first SYN has no event, so that a flood of them does not fill the rings or the streams of watchers.
    fn report_attempt(&self, totals: &mut Totals, key: &FlowKey, flow: &Flow, hook: u32) {
        totals.count_attempt(flow);
        if unanswered_sender(flow).is_some_and(|sender| flow.is_local(sender)) {
            let (from, to, at_ns, cause) = ([State::Closed; 2], flow.states(), flow.opened_ns(), Cause::Syn);
            self.shared.publish_transitions(&Change { key, flow, hook, at_ns, from, to, cause });
        }
    }

    /// Counts a close and publishes it, unless it is the agent's own.
    pub(super) fn report_close(
        &self,
        totals: &mut Totals,
        key: &FlowKey,
        flow: &Flow,
        hook: u32,
        at_ns: u64,
    ) {
        if self.shared.own.includes(key, flow) {
            return;
        }
        totals.count_close(flow);
        if self.shared.watchers.receiver_count() > 0 {
            let close = self.shared.describer().close(key, flow, self.shared.location(key, hook), at_ns);
            let connection = Arc::new(close.connection.clone());
            // Fails if the last subscriber has gone.
            let _ = self.shared.watchers.send(WatchEvent { connection, event: close.into() });
        }
    }
}

/// Whether the open of a flow is still to be counted.
pub(super) fn open_uncounted(flow: &Flow) -> bool {
    flow.was_established() && !flow.is_reported(reported::OPEN)
}

/// Whether it is still to be counted and reported that a SYN was sent again without an answer.
fn attempt_unreported(flow: &Flow) -> bool {
    !flow.is_reported(reported::ATTEMPT)
        && unanswered_sender(flow).is_some_and(|sender| flow.end(sender).segments() > 1)
}

/// The end in SYN-SENT whose peer has not answered.
fn unanswered_sender(flow: &Flow) -> Option<End> {
    match flow.initiator() {
        Initiator::One(sender) => (flow.state(sender) == State::SynSent
            && flow.state(sender.peer()) == State::Listen
            && flow.proved(sender.peer()) == State::Unknown)
            .then_some(sender),
        Initiator::Both | Initiator::Unknown => None,
    }
}

fn close_unreported(flow: &Flow) -> bool {
    flow.is_over() && !flow.is_reported(reported::CLOSE)
}

/// Time at which the agent has to act on a flow if no segment arrives, in ns: 0 if its close is to be
/// reported.
fn due_ns(flow: &Flow, rules: &Rules) -> u64 {
    if close_unreported(flow) { 0 } else { flow.due_ns(rules).unwrap_or(u64::MAX) }
}
