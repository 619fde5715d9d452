//! The tracker: takes the kernel's events, sweeps the table, counts every open and every close once, and tells watchers.
//!
//! The table is the truth, and an event is part of it: the kernel marks a flow's open or close as told only where the event
//! found room. What is not marked, since its event was lost or the clock did it, the sweep finds, marks and counts. An event
//! also makes the mirror note when the clock will have something to do with the flow.

mod scan;

use std::sync::Arc;

use scan::open_uncounted;
use tcp_common::record::{Event, event_flag, event_kind, reported};
use tcp_common::{Cause, End, Flow, FlowKey, Outcome, Previous, State};

use super::change::Change;
use super::lock::lock;
use super::paced_scan::PacedScan;
use super::shared::{Shared, WatchEvent};
use super::slot_cache::SlotCache;
use super::totals::Totals;
use crate::kernel::Events;

/// What drains the ring and sweeps the table.
pub struct Tracker {
    shared: Arc<Shared>,
    /// Taken while they are drained.
    events: Option<Events>,
    cache: SlotCache,
    clock: PacedScan,
    tags: PacedScan,
    /// Homes whose flows are to be glanced at in haste, as at the start and after a loss.
    unknown: u32,
    /// Next expected event of each CPU.
    sequences: Vec<u64>,
    lost: bool,
}

impl Tracker {
    /// Takes the rings.
    pub fn new(shared: Arc<Shared>, events: Events) -> Tracker {
        let places = shared.table.slot_count();
        let cache = SlotCache::new(places);
        Tracker {
            events: Some(events),
            clock: PacedScan::round(cache.blocks()),
            cache,
            tags: PacedScan::round(places),
            unknown: places,
            sequences: Vec::new(),
            lost: false,
            shared,
        }
    }

    /// How many events the ring of a CPU holds.
    pub fn ring_len(&self) -> u32 {
        self.events.as_ref().map_or(0, Events::ring_len)
    }

    /// Takes at most [`BATCH`] events. Returns how many there were.
    pub fn drain(&mut self) -> usize {
        let Some(mut events) = self.events.take() else { return 0 };
        let shared = Arc::clone(&self.shared);
        // For all of them: each counts several times.
        let mut totals = lock(&shared.totals);
        let count = events.drain(BATCH, |event| {
            self.check_sequence(event);
            self.apply(event, &mut totals);
        });
        self.events = Some(events);
        totals.delivered += count as u64;
        if std::mem::take(&mut self.lost) {
            // What the lost ones did to the table is to be found there.
            self.unknown = shared.table.slot_count();
            totals.resyncs += 1;
        }
        count
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
        match event.kind {
            event_kind::TRANSITION => {
                let change = Change {
                    key: &event.key,
                    flow: &event.flow,
                    hook: event.hook,
                    at_ns: event.at_ns,
                    from: states(event.from),
                    to: states(event.to),
                    cause: Cause::from_repr(event.cause).unwrap_or(Cause::Nothing),
                };
                if let Some(index) = self.shared.table.index_of(event) {
                    self.update(totals, index, &change);
                }
                self.shared.publish_transitions(&change);
                if event.flags & event_flag::ESTABLISHED != 0 {
                    totals.count_open(&event.key, &event.flow);
                }
                if event.flags & event_flag::OVER != 0 {
                    self.report(totals, &event.key, &event.flow, event.hook, event.at_ns);
                }
            }
            event_kind::PREVIOUS => self.apply_previous(totals, event),
            event_kind::DEFERRED => self.apply_deferred(totals, event),
            event_kind::EVICTED => self.apply_evicted(totals, event),
            _ => {}
        }
    }

    /// Counts how long the ends that moved had been in the states before.
    fn update(&mut self, totals: &mut Totals, index: u32, change: &Change<'_>) {
        let due_ns = scan::due_ns(change.flow, &self.shared.rules);
        let stays = self.cache.update(index, change, due_ns);
        for end in [End::A, End::B] {
            if let Some(ns) = stays[end as usize] {
                totals.observe_state_duration(change.flow.is_local(end), change.from[end as usize], ns);
            }
        }
    }

    fn apply_previous(&self, totals: &mut Totals, event: &Event) {
        self.end_previous(
            totals,
            event,
            event.flow,
            Previous::from_repr(event.previous).unwrap_or(Previous::Over),
        );
    }

    /// Counts and reports the end of a flow whose next life an event's segment began.
    fn end_previous(&self, totals: &mut Totals, event: &Event, mut flow: Flow, previous: Previous) {
        let Outcome { from, to, .. } = flow.end_previous(event.at_ns, previous, &self.shared.rules);
        if open_uncounted(&flow) {
            totals.count_open(&event.key, &flow);
        }
        // The next incarnation begins from CLOSED.
        for end in [End::A, End::B] {
            totals.count_transition(flow.is_local(end), from[end as usize], to[end as usize]);
        }
        if !flow.is_reported(reported::CLOSE) {
            let (key, hook, at_ns, cause) = (&event.key, event.hook, event.at_ns, Cause::Syn);
            self.shared.publish_transitions(&Change { key, flow: &flow, hook, at_ns, from, to, cause });
            self.report(totals, &event.key, &flow, event.hook, event.at_ns);
        }
    }

    /// A flow that was over, or as good as, and had to make room before the sweep came to it.
    fn apply_evicted(&self, totals: &mut Totals, event: &Event) {
        if open_uncounted(&event.flow) {
            totals.count_open(&event.key, &event.flow);
        }
        self.report(totals, &event.key, &event.flow, event.hook, event.at_ns);
    }

    /// Applies a segment that found its flow's slot busy, by the function that the kernel would have used.
    fn apply_deferred(&mut self, totals: &mut Totals, event: &Event) {
        let shared = Arc::clone(&self.shared);
        let index = shared.table.find(&event.key);
        let Some((index, mut owned)) =
            index.and_then(|index| Some((index, shared.table.lock(index, event)?)))
        else {
            totals.deferred[DROPPED] += 1;
            return;
        };
        let before = *owned;
        // As where one CPU overtakes the other, which the rules are made for.
        let overtaken = before.last_ns() > event.at_ns;
        let outcome = owned.on_segment(event.at_ns, end(event.sender), &event.segment, &shared.rules);
        let flow = *owned;
        drop(owned);
        totals.deferred[usize::from(overtaken)] += 1;
        totals.count_outcome(&flow, &outcome);
        if outcome.previous != Previous::None {
            self.end_previous(totals, event, before, outcome.previous);
        }
        let Outcome { from, to, cause, .. } = outcome;
        let Event { ref key, hook, at_ns, .. } = *event;
        self.shared.publish_transitions(&Change { key, flow: &flow, hook, at_ns, from, to, cause });
        self.visit_slot(totals, index);
    }

    fn report(&self, totals: &mut Totals, key: &FlowKey, flow: &Flow, hook: u32, at_ns: u64) {
        totals.count_close(flow);
        if self.shared.watchers.receiver_count() > 0 {
            let close = self.shared.describer().close(key, flow, self.shared.names.of_hook(hook), at_ns);
            let connection = Arc::new(close.connection.clone());
            let _ = self.shared.watchers.send(WatchEvent { connection, event: close.into() });
        }
    }
}

fn end(sender: u8) -> End {
    if sender & 1 == 0 { End::A } else { End::B }
}

fn states(bytes: [u8; 2]) -> [State; 2] {
    bytes.map(|byte| match State::from_repr(byte) {
        None | Some(State::Unknown) => State::Closed,
        Some(state) => state,
    })
}

/// Events taken before the sweep has its turn.
pub const BATCH: usize = 4096;
/// Place in `DEFERRED_OUTCOMES`.
const DROPPED: usize = 2;
