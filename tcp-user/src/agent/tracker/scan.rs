//! The way round the table: what the clock changes, what no event told of, and what is to be counted and forgotten.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tcp_common::record::reported;
use tcp_common::table::Tag;
use tcp_common::{Flow, Outcome, Rules};

use super::Tracker;
use crate::agent::change::Change;
use crate::agent::lock::lock;
use crate::agent::paced_scan::STRIDE;
use crate::agent::totals::Totals;
use crate::clock::monotonic_ns;
use crate::kernel::SlotGuard;

impl Tracker {
    /// Goes on round the table by what is due when `elapsed` has passed since the last call: to the flows that the clock
    /// changes, and to those that no event told of. What is not done when `TURN` is over is left to later turns: returns
    /// whether there is a rest.
    pub fn sweep(&mut self, elapsed: Duration) -> bool {
        if self.shared.unseen_changes.swap(false, Ordering::Relaxed) {
            self.unknown = self.shared.table.slot_count();
        }
        self.clock.time_passed(elapsed, CLOCK_NS);
        let shared = Arc::clone(&self.shared);
        let mut totals = lock(&shared.totals);
        let (begun, now_ns) = (Instant::now(), monotonic_ns());
        while self.clock.is_behind() && begun.elapsed() < TURN {
            self.expire_due(&mut totals, now_ns);
        }
        self.tags.time_passed(elapsed, if self.unknown == 0 { GLANCE_NS } else { HASTE_NS });
        let tags_begun = Instant::now();
        while self.tags.is_behind() && tags_begun.elapsed() < TURN {
            self.tag_scan(&mut totals);
        }
        self.cache.gauges().clone_into(&mut lock(&shared.gauges));
        totals.sweep_pause.observe(begun.elapsed().as_secs_f64());
        self.clock.is_behind() || self.tags.is_behind()
    }

    /// Looks at those places of the next blocks whose time has come, of some [`FEW`] at most.
    fn expire_due(&mut self, totals: &mut Totals, now_ns: u64) {
        let Range { start, end } = self.clock.next_stride();
        let (mut due, mut next) = (Vec::new(), start);
        while next < end && due.len() < FEW {
            self.cache.take_due(next, now_ns, &mut due);
            next += 1;
        }
        self.visit_slots(totals, &due);
        due.iter().for_each(|&index| self.cache.reschedule(index));
        self.clock.advance(next);
    }

    /// Glances at the tags of the flows of the next homes, and looks at those that are others than they were.
    fn tag_scan(&mut self, totals: &mut Totals) {
        let homes = self.tags.next_stride();
        let mut flows = Vec::with_capacity(STRIDE as usize);
        self.shared.table.list(homes.clone(), &mut flows);
        flows.retain(|&(index, tag)| self.cache.tag_changed(index, tag));
        let changed: Vec<_> = flows.into_iter().map(|(index, _)| index).collect();
        self.visit_slots(totals, &changed);
        self.unknown = self.unknown.saturating_sub(homes.len() as u32);
        self.tags.advance(homes.end);
    }

    fn visit_slots(&mut self, totals: &mut Totals, places: &[u32]) {
        for &index in places {
            self.shared.table.prefetch(index);
            self.cache.prefetch(index);
        }
        places.iter().for_each(|&index| self.visit_slot(totals, index));
    }

    /// Lets the clock act on a slot, counts what has not been counted, retires what is done.
    pub(super) fn visit_slot(&mut self, totals: &mut Totals, index: u32) {
        let shared = Arc::clone(&self.shared);
        let (table, rules) = (&shared.table, &shared.rules);
        // The tag first: what changes after it makes the next glance a look.
        let tag = table.tag(index);
        let Some(entry) = table.read(index) else {
            if tag.phase() == Tag::FREE {
                self.cache.free(index, table.family(index));
            }
            return;
        };
        let (now_ns, due_ns) = (monotonic_ns(), due_ns(&entry.flow, rules));
        if now_ns < due_ns && !open_uncounted(&entry.flow) {
            if tag.is_unlocked() {
                self.cache.record(index, table.family(index), tag, &entry.flow, now_ns, due_ns);
            }
            return;
        }
        // If somebody else has it, the note that is there brings the next look.
        let Some(owned) = table.try_lock(index) else { return };
        if owned.key() == entry.key && owned.incarnation() == entry.flow.incarnation() {
            self.act(totals, index, owned, now_ns, due_ns);
        }
    }

    /// Does what was due at `due_ns` to a slot's flow.
    fn act(&mut self, totals: &mut Totals, index: u32, mut owned: SlotGuard<'_>, now_ns: u64, due_ns: u64) {
        let shared = Arc::clone(&self.shared);
        let (family, rules) = (shared.table.family(index), &shared.rules);
        let outcome = owned.tick(now_ns, rules);
        let (count_open, report) = (open_uncounted(&owned), close_unreported(&owned));
        if count_open {
            owned.set_reported(reported::OPEN);
        }
        if report {
            owned.set_reported(reported::CLOSE);
        } else if owned.is_over() && now_ns >= self::due_ns(&owned, rules) {
            owned.remove();
            self.cache.free(index, family);
            return;
        }
        let (key, flow, hook) = (owned.key(), *owned, owned.hook());
        let tag = owned.unlock();
        if count_open {
            totals.count_open(&key, &flow);
        }
        if outcome.is_transition() {
            totals.lateness.observe(now_ns.saturating_sub(due_ns) as f64 / 1e9);
            totals.count_outcome(&flow, &outcome);
            let Outcome { from, to, cause, .. } = outcome;
            let change = Change { key: &key, flow: &flow, hook, at_ns: now_ns, from, to, cause };
            self.update(totals, index, &change);
            shared.publish_transitions(&change);
        }
        // So that the next glance takes it for what it is, unless somebody has changed it since.
        self.cache.record(index, family, tag, &flow, now_ns, self::due_ns(&flow, rules));
        if report {
            self.report(totals, &key, &flow, hook, now_ns);
        }
    }
}

pub(super) fn open_uncounted(flow: &Flow) -> bool {
    flow.was_established() && !flow.is_reported(reported::OPEN)
}

fn close_unreported(flow: &Flow) -> bool {
    flow.is_over() && !flow.is_reported(reported::CLOSE)
}

/// When the agent has to act on a flow if no segment arrives, ns: now if it has a close to report.
pub(super) fn due_ns(flow: &Flow, rules: &Rules) -> u64 {
    if close_unreported(flow) { 0 } else { flow.due_ns(rules).unwrap_or(u64::MAX) }
}

/// The clock comes by every place once in that time: how late it may be.
const CLOCK_NS: u64 = 500_000_000;
/// Every place is glanced at once in that time: no event tells of a SYN alone, and events may be lost.
const GLANCE_NS: u64 = 4_000_000_000;
/// The same when it is known that some were.
const HASTE_NS: u64 = 1_000_000_000;
/// Looks between two readings of the time, but for those of one block: so many take well under a tenth of a millisecond.
const FEW: usize = 64;
/// How long either walk may go on before events have their turn: no event waits a millisecond for both.
const TURN: Duration = Duration::from_micros(250);
