//! The tracker: reads the kernel's events and scans the flow table, so that every open and every close is
//! counted once.
//!
//! The table is authoritative, and an event is a part of it: the kernel marks what an event reports of a flow
//! as reported only if the event found room in the ring. The scan (`scan`) finds, marks and counts the rest,
//! whose event was lost or which a timer caused. Events and scan both end in a visit to a slot (`visit`).
//! Before anything is counted, the locality of translated flows is corrected (`correct`).

mod correct;
mod scan;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use correct::is_counted;
use scan::Scanner;
use tcp_common::record::{Event, Sighting, event_kind};
use tcp_common::{Cause, End, Flags, Flow, Outcome, Previous, State};
use visit::Visitor;

use super::change::Change;
use super::locality::set_locality;
use super::shared::Shared;
use super::slot_cache::SlotCache;
use super::totals::Totals;
use crate::kernel::Events;
use crate::view::TimeWaitEnding;
use crate::why::SentSegment;

/// Reads the event rings and scans the flow table.
pub struct Tracker {
    visitor: Visitor,
    scanner: Scanner,
    /// Taken while they are read.
    events: Option<Events>,
    /// Sequence number of the next event of each CPU.
    sequences: Vec<u64>,
    /// Whether an event was lost since the last call of [`Tracker::drain`].
    lost: bool,
}

impl Tracker {
    /// A tracker that reads `events`.
    pub fn new(shared: Arc<Shared>, events: Events) -> Tracker {
        let slots = shared.table.slot_count();
        let cache = SlotCache::new(slots);
        let scanner = Scanner::new(slots, cache.blocks());
        let visitor = Visitor { shared, cache };
        Tracker { visitor, scanner, events: Some(events), sequences: Vec::new(), lost: false }
    }

    /// Capacity of the ring of a CPU, in events.
    pub fn ring_len(&self) -> u32 {
        self.events.as_ref().map_or(0, Events::ring_len)
    }

    /// Reads at most [`BATCH`] events. Returns their number.
    pub fn drain(&mut self) -> usize {
        let Some(mut events) = self.events.take() else { return 0 };
        let shared = Arc::clone(&self.visitor.shared);
        // Locked once for all events: each counts several times.
        let mut totals = shared.totals.lock();
        let count = events.drain(BATCH, |event| {
            self.check_sequence(event);
            self.apply(event, &mut totals);
        });
        self.events = Some(events);
        totals.delivered += count as u64;
        if std::mem::take(&mut self.lost) {
            self.scanner.rescan(shared.table.slot_count());
            totals.resyncs += 1;
        }
        count
    }

    /// Scans the table by what is due `elapsed` after the last call. Returns whether something due is left.
    pub fn scan(&mut self, elapsed: Duration) -> bool {
        self.scanner.run(&mut self.visitor, elapsed)
    }

    fn check_sequence(&mut self, event: &Event) {
        let cpu = event.cpu as usize;
        if self.sequences.len() <= cpu {
            self.sequences.resize(cpu + 1, 0);
        }
        self.lost |= event.sequence != self.sequences[cpu];
        self.sequences[cpu] = event.sequence.wrapping_add(1);
    }

    fn apply(&mut self, event: &Event, totals: &mut Totals) {
        let corrected = self.visitor.correct_locality(event);
        let event = corrected.as_ref().unwrap_or(event);
        match event.kind {
            event_kind::SEGMENT => {
                let change = Change {
                    key: &event.key,
                    flow: &event.flow,
                    hook: event.hook,
                    at_ns: event.at_ns,
                    from: states(event.from),
                    to: states(event.to),
                    cause: Cause::from_repr(event.cause).unwrap_or(Cause::Nothing),
                    segment: sent_segment(event),
                };
                if let Some(index) = self.visitor.shared.table.index_of(event) {
                    self.visitor.record_change(totals, index, &change);
                }
                self.visitor.shared.report(totals, &change, event.reports);
            }
            event_kind::PREVIOUS => self.apply_previous(totals, event),
            event_kind::DEFERRED => self.apply_deferred(totals, event),
            event_kind::EVICTED => self.apply_evicted(totals, event),
            _ => {}
        }
    }

    fn apply_previous(&self, totals: &mut Totals, event: &Event) {
        let previous = Previous::from_repr(event.previous).unwrap_or(Previous::Over);
        let cause = Cause::from_repr(event.cause).unwrap_or(Cause::Syn);
        self.end_previous(totals, event, event.flow, previous, cause);
    }

    /// Counts and publishes the end of an incarnation, which the first segment of the next one has ended.
    fn end_previous(
        &self,
        totals: &mut Totals,
        event: &Event,
        mut flow: Flow,
        previous: Previous,
        cause: Cause,
    ) {
        let shared = &self.visitor.shared;
        let &Event { ref key, hook, at_ns, .. } = event;
        let unnoticed = flow.report();
        shared.report(totals, &Change::unnoticed(key, &flow, hook), unnoticed);
        let expired = flow.tick(at_ns, &shared.rules);
        totals.count_outcome(&flow, &expired);
        let reports = flow.report();
        let Outcome { from, to, .. } = expired;
        let change = Change { key, flow: &flow, hook, at_ns, from, to, cause: expired.cause, segment: None };
        shared.report(totals, &change, reports);
        // The next incarnation begins from CLOSED.
        let replaced = flow.end_previous(at_ns, previous, &shared.rules);
        totals.count_outcome(&flow, &replaced);
        let reports = flow.report();
        let Outcome { from, to, .. } = replaced;
        let change = Change { key, flow: &flow, hook, at_ns, from, to, cause, segment: None };
        self.visitor.remember_end(event, &change);
        shared.report_replaced(totals, &change, reports);
    }

    /// Counts and publishes what was still to be reported of a flow that was evicted.
    fn apply_evicted(&self, totals: &mut Totals, event: &Event) {
        let shared = &self.visitor.shared;
        let &Event { ref key, mut flow, hook, at_ns, .. } = event;
        let unnoticed = flow.report();
        let change = Change::unnoticed(key, &flow, hook);
        shared.report(totals, &change, unnoticed);
        let eviction = Change { at_ns, ..change };
        self.visitor.remember_end(event, &eviction);
        for end in [End::A, End::B].into_iter().filter(|&end| flow.state(end) == State::TimeWait) {
            shared.report_time_wait_end(totals, &eviction, end, TimeWaitEnding::Evicted);
        }
    }

    /// Applies a segment whose flow was locked by another CPU, with the function that the kernel would have
    /// used.
    fn apply_deferred(&mut self, totals: &mut Totals, event: &Event) {
        let shared = Arc::clone(&self.visitor.shared);
        let index = shared.table.find(&event.key);
        let Some((index, mut slot)) = index.and_then(|index| Some((index, shared.table.lock(index, event)?)))
        else {
            totals.deferred[DROPPED] += 1;
            return;
        };
        let before = *slot;
        // A younger segment of the flow was applied first. The rules expect that, as between two CPUs.
        let overtaken = before.last_ns() > event.at_ns;
        let Event { hook, tags, at_ns, ref segment, .. } = *event;
        let seen = Sighting { hook, tags, at_ns, sender: end(event.sender), segment };
        let Some(outcome) = slot.observe(&seen, &shared.rules) else {
            totals.deferred[DROPPED] += 1;
            return;
        };
        let reports = slot.report();
        let mut flow = *slot;
        drop(slot);
        if let Some(local) = shared.corrected_locality(&event.key, &flow, is_counted(&flow, reports)) {
            set_locality(&mut flow, local);
        }
        totals.deferred[usize::from(overtaken)] += 1;
        totals.count_outcome(&flow, &outcome);
        if outcome.previous != Previous::None {
            self.end_previous(totals, event, before, outcome.previous, outcome.cause);
        }
        let Outcome { from, to, cause, .. } = outcome;
        let (key, segment) = (&event.key, sent_segment(event));
        let change = Change { key, flow: &flow, hook, at_ns, from, to, cause, segment };
        shared.histories.lock().record(index, &change);
        shared.report(totals, &change, reports);
        self.visitor.visit_slot(totals, index);
    }
}

/// What is remembered of the segment of an event. That of an ICMP error is only quoted there, and has no flags.
fn sent_segment(event: &Event) -> Option<SentSegment> {
    (event.segment.flags != Flags(0)).then(|| SentSegment::new(end(event.sender), &event.segment))
}

/// The end that sent a segment, as events encode it.
fn end(sender: u8) -> End {
    if sender & 1 == 0 { End::A } else { End::B }
}

/// The states of both ends, as events encode them.
fn states(bytes: [u8; 2]) -> [State; 2] {
    bytes.map(|byte| match State::from_repr(byte) {
        None | Some(State::Unknown) => State::Closed,
        Some(state) => state,
    })
}

/// Events read before the table is scanned.
pub const BATCH: usize = 4096;
/// Index in `DEFERRED_OUTCOMES`.
const DROPPED: usize = 2;
