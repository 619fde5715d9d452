//! The mirror: takes the kernel's events, sweeps the table, counts every open and every close once, and tells watchers.
//!
//! The table is the truth and the ring a fast hint: an event makes the mirror note when the clock will have something to do,
//! or look at a slot now instead of at the next sweep; except for an incarnation that a new one replaced, which nobody but
//! its event remembers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tcp_common::record::{Event, event_flag, event_kind, mark};
use tcp_common::table::Tag;
use tcp_common::{Cause, End, Flow, FlowKey, Previous, Rules, State};

use super::ledger::Ledger;
use super::shared::{Shared, Told, lock};
use super::walk::{STRIDE, Walk};
use crate::describe::monotonic_ns;
use crate::kernel::{Events, Owned};

/// What drains the ring and sweeps the table.
pub struct Mirror {
    shared: Arc<Shared>,
    /// Taken while they are drained.
    events: Option<Events>,
    ledger: Ledger,
    clock: Walk,
    glances: Walk,
    /// Places that are to be glanced at in haste, as at the start and after a loss.
    unknown: u32,
    /// Next expected event of each CPU.
    sequences: Vec<u64>,
    lost: bool,
}

impl Mirror {
    /// Takes the rings.
    pub fn new(shared: Arc<Shared>, events: Events) -> Mirror {
        let places = shared.table.places();
        Mirror {
            events: Some(events),
            ledger: Ledger::new(places),
            clock: Walk::round(places),
            glances: Walk::round(places),
            unknown: places,
            sequences: Vec::new(),
            lost: false,
            shared,
        }
    }

    /// Takes at most [`BATCH`] events. Returns how many there were.
    pub fn drain(&mut self) -> usize {
        let Some(mut events) = self.events.take() else { return 0 };
        let count = events.drain(BATCH, |event| {
            self.note_sequence(event);
            self.take(event);
        });
        self.events = Some(events);
        lock(&self.shared.tally).delivered += count as u64;
        if std::mem::take(&mut self.lost) {
            // What the lost ones did to the table is to be found there.
            self.unknown = self.shared.table.places();
            lock(&self.shared.tally).resyncs += 1;
        }
        count
    }

    /// Goes on round the table by what is due when `elapsed` has passed since the last call: to the flows that the clock
    /// changes, and to those that no event told of. What is not done when `TURN` is over is left to later turns: returns
    /// whether there is a rest.
    pub fn sweep(&mut self, elapsed: Duration) -> bool {
        if self.shared.unseen_changes.swap(false, Ordering::Relaxed) {
            self.unknown = self.shared.table.places();
        }
        self.clock.time_passed(elapsed, CLOCK_NS);
        let begun = Instant::now();
        while self.clock.is_behind() && begun.elapsed() < TURN {
            self.end_what_is_due();
        }
        self.glances.time_passed(elapsed, if self.unknown == 0 { GLANCE_NS } else { HASTE_NS });
        let begun = Instant::now();
        while self.glances.is_behind() && begun.elapsed() < TURN {
            self.glance();
        }
        self.ledger.census().clone_into(&mut lock(&self.shared.census));
        self.clock.is_behind() || self.glances.is_behind()
    }

    /// Looks at those of the next places whose time has come.
    fn end_what_is_due(&mut self) {
        let Range { mut start, end } = self.clock.next_places();
        let now_ns = monotonic_ns();
        while let Some(index) = self.ledger.first_due(start..end, now_ns) {
            self.look_at(index);
            start = index + 1;
        }
        self.clock.came_to(end);
    }

    /// Glances at the tags of the next places, and looks at those that are others than they were.
    fn glance(&mut self) {
        let table = Arc::clone(&self.shared.table);
        let Range { start, mut end } = self.glances.next_places();
        let family = table.family(start);
        if family == 0 {
            end = end.min(table.places_v4());
        }
        let mut tags = [Tag(0); STRIDE as usize];
        let tags = &mut tags[..(end - start) as usize];
        // All at once, so that they come from memory side by side.
        table.tags(start, tags);
        for (index, &tag) in (start..end).zip(&*tags) {
            if self.ledger.glance(index, family, tag) {
                self.look_at(index);
            }
        }
        self.unknown = self.unknown.saturating_sub(end - start);
        self.glances.came_to(end);
    }

    fn note_sequence(&mut self, event: &Event) {
        let cpu = event.cpu as usize;
        if self.sequences.len() <= cpu {
            self.sequences.resize(cpu + 1, 0);
        }
        self.lost |= event.sequence != self.sequences[cpu];
        self.sequences[cpu] = event.sequence.wrapping_add(1);
    }

    fn take(&mut self, event: &Event) {
        match event.kind {
            event_kind::TRANSITION => {
                let (from, to) = (states(event.from), states(event.to));
                let index = self.shared.table.index_of(event);
                if let Some(index) = index {
                    self.count_stays(index, &event.flow, from, to, event.at_ns);
                }
                if self.shared.watchers.receiver_count() > 0 {
                    let cause = Cause::from_u8(event.cause).unwrap_or(Cause::Nothing);
                    self.shared.tell_transitions(
                        &event.key,
                        &event.flow,
                        event.hook,
                        event.at_ns,
                        from,
                        to,
                        cause,
                    );
                }
                if event.flags & (event_flag::OVER | event_flag::ESTABLISHED) != 0 {
                    index.into_iter().for_each(|index| self.look_at(index));
                }
            }
            event_kind::PREVIOUS => self.take_previous(event),
            event_kind::DEFERRED => self.apply_deferred(event),
            event_kind::EVICTED => self.take_evicted(event),
            _ => {}
        }
    }

    /// Counts how long the ends that moved had been in the states before.
    fn count_stays(&mut self, index: u32, flow: &Flow, from: [State; 2], to: [State; 2], at_ns: u64) {
        let stays = self.ledger.moved(index, flow, from, to, at_ns, due_ns(flow, &self.shared.rules));
        let tally = lock(&self.shared.tally);
        for end in [End::A, End::B] {
            if let Some(ns) = stays[end as usize] {
                tally.count_stay(flow.is_local(end), from[end as usize], ns);
            }
        }
    }

    fn take_previous(&self, event: &Event) {
        self.end_previous(event, event.flow, Previous::from_u8(event.previous).unwrap_or(Previous::Over));
    }

    /// Counts and reports the end of a flow whose next life an event's segment began.
    fn end_previous(&self, event: &Event, mut flow: Flow, previous: Previous) {
        let was_over = flow.is_over();
        let from = [flow.state(End::A), flow.state(End::B)];
        flow.end_previous(event.at_ns, previous, &self.shared.rules);
        if open_uncounted(&flow) {
            lock(&self.shared.tally).count_open(&event.key, &flow);
        }
        if !was_over {
            // The next life begins from CLOSED.
            for end in [End::A, End::B] {
                let local = flow.is_local(end);
                lock(&self.shared.tally).count_transition(local, from[end as usize], State::Closed);
            }
        }
        if flow.marks & mark::CLOSE_REPORTED == 0 {
            if !was_over {
                self.shared.tell_transitions(
                    &event.key,
                    &flow,
                    event.hook,
                    event.at_ns,
                    from,
                    [State::Closed; 2],
                    Cause::Syn,
                );
            }
            self.report(&event.key, &flow, event.hook, event.at_ns);
        }
    }

    /// A flow that was over, or as good as, and had to make room before the sweep came to it.
    fn take_evicted(&self, event: &Event) {
        if open_uncounted(&event.flow) {
            lock(&self.shared.tally).count_open(&event.key, &event.flow);
        }
        self.report(&event.key, &event.flow, event.hook, event.at_ns);
    }

    /// Applies a segment that found its flow's slot busy, by the function that the kernel would have used.
    fn apply_deferred(&mut self, event: &Event) {
        let shared = Arc::clone(&self.shared);
        let index = shared.table.find(&event.key);
        let Some((index, mut owned)) =
            index.and_then(|index| Some((index, shared.table.seize(index, event)?)))
        else {
            lock(&shared.tally).deferred[DROPPED] += 1;
            return;
        };
        let before = *owned;
        // As where one CPU overtakes the other, which the rules are made for.
        let overtaken = before.last_ns > event.at_ns;
        let outcome = owned.on_segment(event.at_ns, end(event.sender), &event.segment, &shared.rules);
        let flow = *owned;
        drop(owned);
        lock(&shared.tally).deferred[usize::from(overtaken)] += 1;
        self.shared.count_outcome(&flow, &outcome);
        if outcome.previous != Previous::None {
            self.end_previous(event, before, outcome.previous);
        }
        self.shared.tell_transitions(
            &event.key,
            &flow,
            event.hook,
            event.at_ns,
            outcome.from,
            outcome.to,
            outcome.cause,
        );
        self.look_at(index);
    }

    /// Lets the clock act on a slot, counts what has not been counted, retires what is done.
    fn look_at(&mut self, index: u32) {
        let shared = Arc::clone(&self.shared);
        let (table, rules) = (&shared.table, &shared.rules);
        // The tag first: what changes after it makes the next glance a look.
        let tag = table.tag(index);
        let Some(entry) = table.read(index) else {
            if tag.phase() == Tag::FREE {
                self.ledger.free(index, table.family(index));
            }
            return;
        };
        let (now_ns, due_ns) = (monotonic_ns(), due_ns(&entry.flow, rules));
        if now_ns < due_ns && !open_uncounted(&entry.flow) {
            if tag.at_rest() {
                self.ledger.note(index, table.family(index), tag, &entry.flow, now_ns, due_ns);
            }
            return;
        }
        // If somebody else has it, the note that is there brings the next look.
        let Some(owned) = table.own(index) else { return };
        if owned.key() == entry.key && owned.incarnation == entry.flow.incarnation {
            self.act(index, owned, now_ns, due_ns);
        }
    }

    /// Does what was due at `due_ns` to a slot's flow.
    fn act(&mut self, index: u32, mut owned: Owned<'_>, now_ns: u64, due_ns: u64) {
        let shared = Arc::clone(&self.shared);
        let (family, rules) = (shared.table.family(index), &shared.rules);
        let outcome = owned.tick(now_ns, rules);
        let (count_open, report) = (open_uncounted(&owned), close_unreported(&owned));
        if count_open {
            owned.marks |= mark::OPEN_COUNTED;
        }
        if report {
            owned.marks |= mark::CLOSE_REPORTED;
        } else if owned.is_over() && now_ns >= self::due_ns(&owned, rules) {
            owned.retire();
            self.ledger.free(index, family);
            return;
        }
        let (key, flow, hook) = (owned.key(), *owned, hook_of(owned.hooks()));
        let tag = owned.let_go();
        if count_open {
            lock(&shared.tally).count_open(&key, &flow);
        }
        if outcome.is_transition() {
            lock(&shared.tally).lateness.observe(now_ns.saturating_sub(due_ns) as f64 / 1e9);
            self.count_stays(index, &flow, outcome.from, outcome.to, now_ns);
            shared.count_outcome(&flow, &outcome);
            shared.tell_transitions(&key, &flow, hook, now_ns, outcome.from, outcome.to, outcome.cause);
        }
        // So that the next glance takes it for what it is, unless somebody has changed it since.
        self.ledger.note(index, family, tag, &flow, now_ns, self::due_ns(&flow, rules));
        if report {
            self.report(&key, &flow, hook, now_ns);
        }
    }

    fn report(&self, key: &FlowKey, flow: &Flow, hook: u32, at_ns: u64) {
        lock(&self.shared.tally).count_close(flow);
        if self.shared.watchers.receiver_count() > 0 {
            let close = self.shared.describer().close(key, flow, self.shared.names.of_hook(hook), at_ns);
            let connection = Arc::new(close.connection.clone());
            let _ = self.shared.watchers.send(Told { connection, event: close.into() });
        }
    }
}

/// The hook that names a connection's interface: either direction's, egress before ingress of one interface.
pub fn hook_of(hooks: [u32; 2]) -> u32 {
    hooks[0].max(hooks[1])
}

fn open_uncounted(flow: &Flow) -> bool {
    flow.was_established() && flow.marks & mark::OPEN_COUNTED == 0
}

fn close_unreported(flow: &Flow) -> bool {
    flow.is_over() && flow.marks & mark::CLOSE_REPORTED == 0
}

/// When the agent has something to do with a flow, no segment coming: the clock ends a state, its close is to be
/// reported (now), or it has been over and quiet long enough to be forgotten (R20).
fn due_ns(flow: &Flow, rules: &Rules) -> u64 {
    if !flow.is_over() {
        return flow.next_deadline_ns(rules).unwrap_or(u64::MAX);
    }
    if close_unreported(flow) {
        return 0;
    }
    let time_wait_ns = flow.halves.iter().map(|half| half.time_wait_at_ns).max().unwrap_or(0);
    let two_msl_ns = rules.time_wait_local_ns.max(rules.time_wait_remote_ns);
    let over_ns = if time_wait_ns == 0 { flow.last_ns } else { time_wait_ns.saturating_add(two_msl_ns) };
    over_ns.max(flow.last_ns).saturating_add(QUARANTINE_NS)
}

fn end(sender: u8) -> End {
    if sender & 1 == 0 { End::A } else { End::B }
}

fn states(bytes: [u8; 2]) -> [State; 2] {
    bytes.map(|byte| match State::from_u8(byte) {
        None | Some(State::Unknown) => State::Closed,
        Some(state) => state,
    })
}

/// Events taken before the sweep has its turn.
pub const BATCH: usize = 4096;
/// The clock comes by every place once in that time: how late it may be.
const CLOCK_NS: u64 = 250_000_000;
/// Every place is glanced at once in that time: no event tells of a SYN alone, and events may be lost.
const GLANCE_NS: u64 = 4_000_000_000;
/// The same when it is known that some were.
const HASTE_NS: u64 = 1_000_000_000;
/// Place in `DEFERRED_OUTCOMES`.
const DROPPED: usize = 2;
/// How long either walk may go on before events have their turn: no event waits a millisecond for both.
const TURN: Duration = Duration::from_micros(250);
/// How long a flow that is over stays, so that late segments make no ghost.
const QUARANTINE_NS: u64 = 10_000_000_000;
