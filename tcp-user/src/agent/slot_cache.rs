//! What the agent remembers of each slot between two visits: the deadline of its next timer, so that the slot
//! itself need not be read; its tag, so that a comparison of tags shows a change; and the states of the ends,
//! so that a scrape reads no slot.

use std::hint::black_box;

use tcp_common::table::Tag;
use tcp_common::table::phase_without_prediction;
use tcp_common::{End, Flow, State};

use super::change::Change;
use super::totals::Locality;
use crate::kernel::class;

/// Number of endpoints by state, and of slots in use.
#[derive(Clone, Debug, Default)]
pub struct StateGauges {
    /// Endpoints by [`Locality`] and state, without closed connections.
    pub endpoints: [[u64; State::COUNT]; 2],
    /// Flows in the table, by family and [`class`].
    pub used: [[u64; 3]; 2],
}

/// A shadow of the flow table: 24 bytes and a bit for each slot, in one array for each scan. Zeros stand for
/// a free slot.
pub struct SlotCache {
    ends: Vec<[StateEntry; 2]>,
    /// The tag at the last visit, shortened. An event since then replaces it by a tag that no slot has. 0 if
    /// there was neither.
    tags: Vec<u32>,
    /// Deadline of the next timer of each slot.
    dues: Vec<Due>,
    /// A lower bound of the deadlines of each [`BLOCK`] of slots.
    earliest: Vec<Due>,
    gauges: StateGauges,
}

/// A deadline on the monotonic clock in steps of 2^[`STEP_BITS`] ns, counted down: the greater value is the
/// earlier one.
type Due = i32;

/// Locality and state of an end in the lower five bits, and the time at which it entered the state, in ns, in
/// the others. Zero stands for no connection.
#[derive(Clone, Copy, Default, PartialEq)]
struct StateEntry(u64);

const _: () = assert!(State::COUNT <= 16);

impl SlotCache {
    /// A cache for a table of `slots` slots. Pages that are never written take no memory.
    pub fn new(slots: u32) -> SlotCache {
        let blocks = slots.div_ceil(BLOCK) as usize;
        let slots = slots as usize;
        SlotCache {
            ends: vec![[StateEntry::default(); 2]; slots],
            tags: vec![0; slots],
            dues: vec![NEVER; slots],
            earliest: vec![NEVER; blocks],
            gauges: StateGauges::default(),
        }
    }

    /// Number of blocks, over which timers are scanned.
    pub fn blocks(&self) -> u32 {
        self.earliest.len() as u32
    }

    /// The present gauges.
    pub fn gauges(&self) -> &StateGauges {
        &self.gauges
    }

    /// Adds the slots of a block whose deadline has passed to `found`. The block's lower bound leaves them
    /// out until [`SlotCache::reschedule`] is called for them.
    pub fn take_due(&mut self, block: u32, now_ns: u64, found: &mut Vec<u32>) {
        let (now, earliest) = (due_by(now_ns), &mut self.earliest[block as usize]);
        if *earliest < now {
            return;
        }
        let dues = self.dues.chunks(BLOCK as usize).nth(block as usize).unwrap_or_default();
        let later = |due: Due| if due < now { due } else { NEVER };
        // Without a branch, several at a time.
        *earliest = dues.iter().fold(NEVER, |earliest, &due| earliest.max(later(due)));
        found.extend((block * BLOCK..).zip(dues).filter(|&(_, &due)| due >= now).map(|(index, _)| index));
    }

    /// Makes the next scan find the deadline of a slot again, if it has one.
    pub fn reschedule(&mut self, index: u32) {
        let earliest = &mut self.earliest[(index / BLOCK) as usize];
        *earliest = (*earliest).max(self.dues[index as usize]);
    }

    /// Fetches the entries of a slot into the CPU's cache.
    pub fn prefetch(&self, index: u32) {
        let slot = index as usize;
        black_box((self.ends[slot][0].0, self.tags[slot], self.dues[slot]));
    }

    /// Whether the tag of a slot has changed since the last visit, so that another visit is needed.
    pub fn tag_changed(&self, index: u32, tag: Tag) -> bool {
        // A locked slot gets another tag when it is unlocked.
        tag.is_unlocked() && self.tags[index as usize] != short(tag)
    }

    /// Records the flow that a slot of `family` holds under this tag, and the deadline of its next timer.
    pub fn record(&mut self, index: u32, family: usize, tag: Tag, flow: &Flow, now_ns: u64, due_ns: u64) {
        self.count(index, family, short(tag));
        for (entry, end) in self.ends[index as usize].iter_mut().zip([End::A, End::B]) {
            let known = entry.is_of(flow);
            let (locality, state) = (Locality::of(flow.is_local(end)), flow.state(end));
            if flow.is_over() {
                self.gauges.replace(entry, StateEntry::default());
            } else if !known || (entry.locality(), entry.state()) != (locality as usize, state as usize) {
                let since_ns = if known { now_ns } else { flow.opened_ns() };
                self.gauges.replace(entry, StateEntry::new(since_ns, locality, state));
            }
        }
        self.dues[index as usize] = due_at(due_ns);
        self.reschedule(index);
    }

    /// Updates a slot by a change of its flow, whose next timer is due at `due_ns`; the next tag scan visits
    /// the slot. Returns the time in the previous state, in ns, of each end that changed its state, if known.
    pub(super) fn update(&mut self, index: u32, change: &Change<'_>, due_ns: u64) -> [Option<u64>; 2] {
        let &Change { key, flow, at_ns, from, to, .. } = change;
        let slot = index as usize;
        let version = self.tags[slot] & !PHASE ^ OTHER_VERSION;
        self.count(index, usize::from(key.family != 4), version | phase_without_prediction(flow) as u32);
        // An earlier deadline may be that of a newer event: a visit too early does no harm.
        self.dues[slot] = self.dues[slot].max(due_at(due_ns));
        self.reschedule(index);
        [End::A, End::B].map(|end| {
            let (entry, from, to) =
                (&mut self.ends[slot][end as usize], from[end as usize], to[end as usize]);
            let since_ns = if entry.is_of(flow) {
                (entry.state() == from as usize).then(|| entry.since_ns())
            } else {
                (from == to || from == State::SynSent).then_some(flow.opened_ns())
            };
            let begun_ns = if from == to { since_ns.unwrap_or(at_ns) } else { at_ns };
            let new = StateEntry::new(begun_ns, Locality::of(flow.is_local(end)), to);
            self.gauges.replace(entry, if flow.is_over() { StateEntry::default() } else { new });
            since_ns.filter(|_| from != to).map(|since_ns| at_ns.saturating_sub(since_ns))
        })
    }

    /// Records that a slot of `family` is free.
    pub fn free(&mut self, index: u32, family: usize) {
        // A slot that was free durations unwritten.
        if self.dues[index as usize] == NEVER {
            return;
        }
        self.count(index, family, 0);
        for entry in &mut self.ends[index as usize] {
            self.gauges.replace(entry, StateEntry::default());
        }
        self.dues[index as usize] = NEVER;
    }

    fn count(&mut self, index: u32, family: usize, tag: u32) {
        let known = std::mem::replace(&mut self.tags[index as usize], tag);
        self.gauges.count(family, known, tag);
    }
}

impl StateGauges {
    fn count(&mut self, family: usize, known: u32, new: u32) {
        let class = |tag: u32| class(u64::from(tag & PHASE));
        if let Some(class) = class(known) {
            self.used[family][class] -= 1;
        }
        if let Some(class) = class(new) {
            self.used[family][class] += 1;
        }
    }

    fn replace(&mut self, entry: &mut StateEntry, new: StateEntry) {
        if entry.0 != 0 {
            self.endpoints[entry.locality()][entry.state()] -= 1;
        }
        if new.0 != 0 {
            self.endpoints[new.locality()][new.state()] += 1;
        }
        *entry = new;
    }
}

impl StateEntry {
    fn new(since_ns: u64, locality: Locality, state: State) -> StateEntry {
        StateEntry(since_ns & !0x1f | (locality as u64) << 4 | state as u64)
    }

    /// Whether the entry belongs to this incarnation of the flow, and not to an earlier flow in the slot.
    fn is_of(self, flow: &Flow) -> bool {
        self.0 != 0 && self.0 | 0x1f >= flow.opened_ns()
    }

    fn since_ns(self) -> u64 {
        self.0 & !0x1f
    }

    fn locality(self) -> usize {
        (self.0 >> 4) as usize & 1
    }

    fn state(self) -> usize {
        self.0 as usize & 0xf
    }
}

/// A deadline not before this time, in ns, and at most a step after it.
fn due_at(ns: u64) -> Due {
    after((ns >> STEP_BITS).saturating_add(1))
}

/// The latest deadline that has passed at this time, in ns.
fn due_by(now_ns: u64) -> Due {
    after(now_ns >> STEP_BITS)
}

/// The deadline after this many steps. Those beyond the last number share it, which makes visits too early
/// but none late.
fn after(steps: u64) -> Due {
    i32::MAX - steps.min(i32::MAX as u64 - 1) as i32
}

/// A tag in 32 bits: the phase in the lower four, the lower bits of the version above. Never 0 for an
/// unlocked slot.
fn short(tag: Tag) -> u32 {
    const { assert!(Tag::PHASES <= 16) };
    (tag.0 >> 16 << 4) as u32 | tag.phase() as u32
}

/// Slots that share a lower bound of their deadlines: four cache lines of deadlines.
const BLOCK: u32 = 64;
/// The deadline of a slot without a flow.
const NEVER: Due = 0;
/// Binary logarithm of a step, 134 ms: the numbers suffice for nine years after boot.
const STEP_BITS: u32 = 27;
/// Bits of the phase in a shortened tag.
const PHASE: u32 = 0xf;
/// A bit of the version that no event leaves unchanged.
const OTHER_VERSION: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use tcp_common::{Cause, Flags, FlowKey, Rules, Segment};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn tag(version: u64) -> Tag {
        Tag(version << 16 | Tag::LIVE)
    }

    /// The flow in these states that segments make of it from `opened_ns` on. End A is local.
    fn flow_from(opened_ns: u64, a: State, b: State) -> Flow {
        const SYN_ACK: u8 = Flags::SYN | Flags::ACK;
        const FIN_ACK: u8 = Flags::FIN | Flags::ACK;
        let mut flow = Flow::EMPTY;
        flow.set_local(End::A, true);
        for (sender, flags, seq, ack) in [
            (End::A, Flags::SYN, 100, 0),
            (End::B, SYN_ACK, 900, 101),
            (End::A, Flags::SYN, 100, 0),
            (End::A, Flags::ACK, 101, 901),
            (End::A, FIN_ACK, 101, 901),
            (End::B, FIN_ACK, 901, 102),
            (End::A, Flags::ACK, 102, 902),
        ] {
            let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
            flow.on_segment(opened_ns, sender, &segment, &Rules::RFC);
            if flow.states() == [a, b] {
                return flow;
            }
        }
        flow.tick(u64::MAX, &Rules::RFC);
        assert_eq!(flow.states(), [a, b]);
        flow
    }

    fn flow(a: State, b: State) -> Flow {
        flow_from(1_000, a, b)
    }

    fn moved(
        cache: &mut SlotCache,
        index: u32,
        flow: &Flow,
        states: ([State; 2], [State; 2]),
        at_ns: u64,
        due_ns: u64,
    ) -> [Option<u64>; 2] {
        let key = &FlowKey { family: 4, ..FlowKey::default() };
        let ((from, to), hook, cause) = (states, 1, Cause::Ack);
        cache.update(index, &Change { key, flow, hook, at_ns, from, to, cause, segment: None }, due_ns)
    }

    #[test]
    fn a_visit_is_needed_once_the_tag_has_changed() {
        let mut cache = SlotCache::new(4);
        let open = flow(State::Established, State::Established);
        assert!(cache.tag_changed(2, tag(7)), "never visited");
        cache.record(2, 0, tag(7), &open, SECOND, 5 * SECOND);
        assert!(!cache.tag_changed(2, tag(7)));
        assert!(cache.tag_changed(2, tag(8)), "changed");
        assert!(!cache.tag_changed(2, Tag(8 << 16 | Tag::KERNEL_LOCKED)), "being changed");
        let opening = ([State::SynSent; 2], [State::Established; 2]);
        moved(&mut cache, 2, &open, opening, SECOND, u64::MAX);
        assert!(cache.tag_changed(2, tag(7)), "an event changed it");
        moved(&mut cache, 3, &open, opening, SECOND, u64::MAX);
        assert!(cache.tag_changed(3, tag(7)), "only an event has changed it");
    }

    /// The slots that are due, each rescheduled.
    fn due(cache: &mut SlotCache, now_ns: u64) -> Vec<u32> {
        let mut found = Vec::new();
        (0..cache.blocks()).for_each(|block| cache.take_due(block, now_ns, &mut found));
        found.iter().for_each(|&index| cache.reschedule(index));
        found
    }

    /// A time in ns, and the start of the next step, at which a deadline at that time is found.
    fn after(seconds: u64) -> (u64, u64) {
        let ns = seconds * SECOND;
        (ns, ((ns >> STEP_BITS) + 1) << STEP_BITS)
    }

    #[test]
    fn a_slot_is_found_when_it_is_due_and_not_before() {
        let mut cache = SlotCache::new(3 * BLOCK + 1);
        let far = 3 * BLOCK;
        let open = flow(State::Established, State::Established);
        let opening = ([State::SynSent; 2], [State::Established; 2]);
        assert!(due(&mut cache, u64::MAX).is_empty(), "nothing there");
        let (five, after_five) = after(5);
        cache.record(2, 0, tag(7), &open, SECOND, five);
        assert!(due(&mut cache, five).is_empty());
        assert_eq!(due(&mut cache, after_five), [2]);
        assert_eq!(due(&mut cache, after_five), [2], "until it is seen to");
        let ((three, after_three), (four, after_four)) = (after(3), after(4));
        moved(&mut cache, 2, &open, opening, SECOND, three);
        assert_eq!(due(&mut cache, after_three), [2], "an event with an earlier deadline");
        moved(&mut cache, 2, &open, opening, SECOND, four);
        assert_eq!(due(&mut cache, after_three), [2], "an older one may come after it");
        moved(&mut cache, 1, &open, opening, SECOND, 0);
        assert_eq!(due(&mut cache, SECOND), [1], "what was due long ago is due now");
        cache.free(1, 0);
        cache.record(far, 0, tag(7), &open, SECOND, four);
        cache.record(2, 0, tag(7), &open, SECOND, u64::MAX);
        assert!(due(&mut cache, four).is_empty());
        assert_eq!(due(&mut cache, after_four), [far], "another block");
        assert_eq!(due(&mut cache, 200_000_000 * SECOND), [far], "the other one will never be due");
        cache.free(far, 0);
        assert!(due(&mut cache, 200_000_000 * SECOND).is_empty());
    }

    #[test]
    fn a_block_is_skipped_until_its_first_slot_is_due() {
        let mut cache = SlotCache::new(2 * BLOCK);
        let open = flow(State::Established, State::Established);
        let [two, three, nine] = [2, 3, 9].map(|seconds| due_at(seconds * SECOND));
        cache.record(5, 0, tag(7), &open, SECOND, 3 * SECOND);
        cache.record(6, 0, tag(7), &open, SECOND, 2 * SECOND);
        assert_eq!(cache.earliest, [two, NEVER]);
        cache.record(6, 0, tag(8), &open, SECOND, 9 * SECOND);
        assert_eq!(cache.earliest, [two, NEVER], "too early does no harm");
        assert!(due(&mut cache, after(2).1).is_empty());
        assert_eq!(cache.earliest, [three, NEVER]);
        cache.take_due(0, 4 * SECOND, &mut Vec::new());
        assert_eq!(cache.earliest, [nine, NEVER], "who takes one has it");
        cache.reschedule(5);
        assert_eq!(cache.earliest, [three, NEVER]);
    }

    #[test]
    fn gauges_follow_visits_and_events() {
        let mut cache = SlotCache::new(4);
        let opening = flow(State::SynSent, State::SynReceived);
        let open = flow(State::Established, State::Established);
        cache.record(0, 1, tag(1), &open, 2_000, u64::MAX);
        cache.record(3, 0, Tag(1 << 16 | Tag::HALF_OPEN), &opening, 2_000, u64::MAX);
        assert_eq!(cache.gauges().used, [[1, 0, 0], [0, 1, 0]]);
        let states = |b| [State::SynSent, b];
        let opened = (states(State::SynReceived), states(State::Established));
        let durations = moved(&mut cache, 3, &opening, opened, 1_000_960, u64::MAX);
        assert_eq!(durations, [None, Some(999_968)], "since it was opened, in steps of 32 ns");
        let lost = ([State::FinWait1, State::SynReceived], states(State::Established));
        assert_eq!(moved(&mut cache, 3, &opening, lost, 3_000, u64::MAX), [None; 2], "not known");
        let endpoints = cache.gauges().endpoints;
        assert_eq!(endpoints[Locality::Local as usize][State::Established as usize], 1);
        assert_eq!(endpoints[Locality::Remote as usize][State::Established as usize], 2);
        assert_eq!(endpoints[Locality::Local as usize][State::SynSent as usize], 1);
        let closed = flow(State::Closed, State::Closed);
        moved(&mut cache, 3, &closed, (states(State::Established), [State::Closed; 2]), 3_000, u64::MAX);
        assert_eq!(cache.gauges().used, [[0, 0, 1], [0, 1, 0]], "at once, and once");
        cache.record(0, 1, Tag(2 << 16 | Tag::CLOSED), &closed, 4_000, u64::MAX);
        cache.free(3, 0);
        assert_eq!(cache.gauges().used, [[0; 3], [0, 0, 1]]);
        assert_eq!(cache.gauges().endpoints, [[0; State::COUNT]; 2]);
    }

    #[test]
    fn an_earlier_flow_in_the_slot_does_not_count() {
        let mut cache = SlotCache::new(4);
        let half_open = Tag(1 << 16 | Tag::HALF_OPEN);
        cache.record(1, 0, half_open, &flow(State::SynSent, State::Listen), 2_000, u64::MAX);
        let next = flow_from(9_000_000, State::Established, State::SynReceived);
        let from = [State::SynSent, State::Listen];
        let to = [State::Established, State::SynReceived];
        let durations = moved(&mut cache, 1, &next, (from, to), 9_000_640, u64::MAX);
        assert_eq!(durations, [Some(640), None]);
        let next = flow_from(20_000_000, State::Established, State::SynReceived);
        cache.record(1, 0, half_open, &next, 30_000_000, u64::MAX);
        let states = (to, [State::Established; 2]);
        let durations = moved(&mut cache, 1, &next, states, 30_000_000, u64::MAX);
        assert_eq!(
            durations,
            [None, Some(10_000_000)],
            "since the last one was opened, though its states are the same"
        );
    }
}
