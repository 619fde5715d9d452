//! Scans of the flow table at an even pace: one expires timers, the other finds changes without an event.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::visit::Visitor;
use crate::agent::paced_scan::{PacedScan, STRIDE};
use crate::agent::totals::Totals;
use crate::clock::monotonic_ns;

/// The two scans of the flow table.
pub(super) struct Scanner {
    /// Over the blocks of the cache, for slots whose timer is due.
    timers: PacedScan,
    /// Over the home slots of the table, for slots whose tag has changed.
    tags: PacedScan,
    /// Home slots still to be scanned at the faster pace, after the start or after a loss of events.
    unknown: u32,
}

impl Scanner {
    /// Scans for a table of `slots` slots whose cache has `blocks` blocks. The first scan of tags is a fast
    /// one.
    pub(super) fn new(slots: u32, blocks: u32) -> Scanner {
        Scanner { timers: PacedScan::round(blocks), tags: PacedScan::round(slots), unknown: slots }
    }

    /// Scans all tags at the faster pace: changes without an event are known to exist.
    pub(super) fn rescan(&mut self, slots: u32) {
        self.unknown = slots;
    }

    /// Goes on with both scans by what is due `elapsed` after the last call, each for [`TURN`] at most.
    /// Returns whether something due is left.
    pub(super) fn run(&mut self, visitor: &mut Visitor, elapsed: Duration) -> bool {
        let shared = Arc::clone(&visitor.shared);
        if shared.unseen_changes.swap(false, Ordering::Relaxed) {
            self.rescan(shared.table.slot_count());
        }
        let mut totals = shared.totals.lock();
        self.timers.time_passed(elapsed, TIMERS_NS);
        let (started_at, now_ns) = (Instant::now(), monotonic_ns());
        while self.timers.is_behind() && started_at.elapsed() < TURN {
            self.expire_due(visitor, &mut totals, now_ns);
        }
        self.tags.time_passed(elapsed, if self.unknown == 0 { TAGS_NS } else { FAST_TAGS_NS });
        let tags_started_at = Instant::now();
        while self.tags.is_behind() && tags_started_at.elapsed() < TURN {
            self.tag_scan(visitor, &mut totals);
        }
        visitor.cache.gauges().clone_into(&mut shared.gauges.lock());
        totals.sweep_pause.observe(started_at.elapsed().as_secs_f64());
        self.timers.is_behind() || self.tags.is_behind()
    }

    /// Visits the slots of the next blocks whose timer is due, about [`BATCH`] at most.
    fn expire_due(&mut self, visitor: &mut Visitor, totals: &mut Totals, now_ns: u64) {
        let Range { start, end } = self.timers.next_stride();
        let (mut due, mut next) = (Vec::new(), start);
        while next < end && due.len() < BATCH {
            visitor.cache.take_due(next, now_ns, &mut due);
            next += 1;
        }
        visitor.visit_slots(totals, &due);
        due.iter().for_each(|&index| visitor.cache.reschedule(index));
        self.timers.advance(next);
    }

    /// Visits the slots of the next home slots whose tag has changed.
    fn tag_scan(&mut self, visitor: &mut Visitor, totals: &mut Totals) {
        let homes = self.tags.next_stride();
        let mut flows = Vec::with_capacity(STRIDE as usize);
        visitor.shared.table.list(homes.clone(), &mut flows);
        flows.retain(|&(index, tag)| visitor.cache.tag_changed(index, tag));
        let changed: Vec<_> = flows.into_iter().map(|(index, _)| index).collect();
        visitor.visit_slots(totals, &changed);
        self.unknown = self.unknown.saturating_sub(homes.len() as u32);
        self.tags.advance(homes.end);
    }
}

/// Duration of a scan of all timers, in ns: the greatest delay of an expiry.
const TIMERS_NS: u64 = 500_000_000;
/// Duration of a scan of all tags, in ns. It finds half-open flows, which have no event, and changes whose
/// event was lost.
const TAGS_NS: u64 = 4_000_000_000;
/// Duration of a scan of all tags, in ns, if changes without an event are known to exist.
const FAST_TAGS_NS: u64 = 1_000_000_000;
/// Slots visited between two readings of the time, rounded up to a block: they take less than 0.1 ms.
const BATCH: usize = 64;
/// Time limit of each scan before events are read again: no event waits a millisecond for both.
const TURN: Duration = Duration::from_micros(250);
