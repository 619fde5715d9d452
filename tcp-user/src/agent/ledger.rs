//! What the mirror remembers of each slot between two looks: when the clock has something to do there, which asks for no
//! reading of the slot; its tag, so that a glance at it is mostly enough; and the census, so that a scrape needs no look.

use std::ops::Range;

use tcp_common::table::Tag;
use tcp_common::{End, Flow, State};

use super::tally::Place;
use crate::kernel::class;

/// How many ends are where, and how many slots are in use.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Ends by [`Place`] and state, connections that are over left out.
    pub endpoints: [[u64; State::COUNT]; 2],
    /// Flows in the table, by family and [`class`].
    pub used: [[u64; 3]; 2],
}

/// A note of every slot: 24 octets, in arrays of what is read together. Zeros are the note of a free one.
pub struct Ledger {
    ends: Vec<[Stay; 2]>,
    /// The tag at the last look, in short; 0: there was none.
    tags: Vec<u32>,
    /// When the clock makes the next look needed, with no segment; [`NEVER`] or as [`due`] writes it.
    dues: Vec<u32>,
    census: Census,
}

/// Where an end is and since when: ns in the upper bits, [`Place`] and state in the lower five. Zero: nowhere.
#[derive(Clone, Copy, Default, PartialEq)]
struct Stay(u64);

const _: () = assert!(State::COUNT <= 16);

impl Ledger {
    /// For a table of so many slots. A note that was never written costs no memory.
    pub fn new(slots: u32) -> Ledger {
        let slots = slots as usize;
        let ends = vec![[Stay::default(); 2]; slots];
        Ledger { ends, tags: vec![0; slots], dues: vec![NEVER; slots], census: Census::default() }
    }

    /// The census as of now.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// The first of these slots where the clock has something to do.
    pub fn first_due(&self, slots: Range<u32>, now_ns: u64) -> Option<u32> {
        let now_ms = ms(now_ns);
        let is_due = |due: u32| due != NEVER && !is_before(now_ms, due);
        let dues = &self.dues[slots.start as usize..slots.end as usize];
        // First all of them without a branch, several at a time: mostly there is none.
        if !dues.iter().fold(false, |any, &due| any | is_due(due)) {
            return None;
        }
        Some(slots.start + dues.iter().position(|&due| is_due(due))? as u32)
    }

    /// A glance at the tag of a place of `family`: whether there must be a look.
    pub fn glance(&mut self, index: u32, family: usize, tag: Tag) -> bool {
        if tag.phase() == Tag::FREE {
            self.free(index, family);
        }
        // Who holds it leaves another tag.
        tag.at_rest() && self.tags[index as usize] != short(tag)
    }

    /// Notes the flow that a place of `family` holds under this tag, and when the clock will change it.
    pub fn note(&mut self, index: u32, family: usize, tag: Tag, flow: &Flow, now_ns: u64, due_ns: u64) {
        self.count(index, family, short(tag));
        for (stay, end) in self.ends[index as usize].iter_mut().zip([End::A, End::B]) {
            let known = stay.is_of(flow);
            let (place, state) = (Place::of(flow.is_local(end)), flow.state(end));
            if flow.is_over() {
                self.census.replace(stay, Stay::default());
            } else if !known || (stay.place(), stay.state()) != (place as usize, state as usize) {
                let since_ns = if known { now_ns } else { flow.opened_ns };
                self.census.replace(stay, Stay::new(since_ns, place, state));
            }
        }
        self.dues[index as usize] = due(due_ns, now_ns);
    }

    /// Notes what an event or the clock did to the flow in a place, which the clock will change next at `due_ns`; the next
    /// glance makes a look of it. Returns how long each end that moved had been in the state before, ns, where that is known.
    pub fn moved(
        &mut self,
        index: u32,
        flow: &Flow,
        from: [State; 2],
        to: [State; 2],
        at_ns: u64,
        due_ns: u64,
    ) -> [Option<u64>; 2] {
        let place = index as usize;
        if self.tags[place] != 0 {
            self.tags[place] ^= OTHER_VERSION;
        }
        // A newer event may have been there: to look too early does no harm.
        let due = due(due_ns, at_ns);
        if self.dues[place] == NEVER || is_before(due, self.dues[place]) {
            self.dues[place] = due;
        }
        [End::A, End::B].map(|end| {
            let (stay, from, to) =
                (&mut self.ends[place][end as usize], from[end as usize], to[end as usize]);
            let since_ns = if stay.is_of(flow) {
                (stay.state() == from as usize).then(|| stay.since_ns())
            } else {
                (from == to || from == State::SynSent).then_some(flow.opened_ns)
            };
            let begun_ns = if from == to { since_ns.unwrap_or(at_ns) } else { at_ns };
            let new = Stay::new(begun_ns, Place::of(flow.is_local(end)), to);
            self.census.replace(stay, if flow.is_over() { Stay::default() } else { new });
            since_ns.filter(|_| from != to).map(|since_ns| at_ns.saturating_sub(since_ns))
        })
    }

    /// Notes that a place of `family` is free.
    pub fn free(&mut self, index: u32, family: usize) {
        // Not written where nothing was.
        if self.dues[index as usize] == NEVER {
            return;
        }
        self.count(index, family, 0);
        for stay in &mut self.ends[index as usize] {
            self.census.replace(stay, Stay::default());
        }
        self.dues[index as usize] = NEVER;
    }

    fn count(&mut self, index: u32, family: usize, tag: u32) {
        let known = std::mem::replace(&mut self.tags[index as usize], tag);
        self.census.count(family, known, tag);
    }
}

impl Census {
    fn count(&mut self, family: usize, known: u32, new: u32) {
        let class = |tag: u32| class(u64::from(tag & 0xf));
        if let Some(class) = class(known) {
            self.used[family][class] -= 1;
        }
        if let Some(class) = class(new) {
            self.used[family][class] += 1;
        }
    }

    fn replace(&mut self, stay: &mut Stay, new: Stay) {
        if stay.0 != 0 {
            self.endpoints[stay.place()][stay.state()] -= 1;
        }
        if new.0 != 0 {
            self.endpoints[new.place()][new.state()] += 1;
        }
        *stay = new;
    }
}

impl Stay {
    fn new(since_ns: u64, place: Place, state: State) -> Stay {
        Stay(since_ns & !0x1f | (place as u64) << 4 | state as u64)
    }

    /// Whether it belongs to this life of the flow, and not to who was in its place before.
    fn is_of(self, flow: &Flow) -> bool {
        self.0 != 0 && self.0 | 0x1f >= flow.opened_ns
    }

    fn since_ns(self) -> u64 {
        self.0 & !0x1f
    }

    fn place(self) -> usize {
        (self.0 >> 4) as usize & 1
    }

    fn state(self) -> usize {
        self.0 as usize & 0xf
    }
}

/// The phase of a tag in the lower four bits, of its version as many as there is room for. Never 0 for a tag at rest.
fn short(tag: Tag) -> u32 {
    const { assert!(Tag::PHASES <= 16) };
    (tag.0 >> 16 << 4) as u32 | tag.phase() as u32
}

/// A deadline in ms of the monotonic clock, wrapping: rounded up, not in the past, no further ahead than a wrapping number can
/// tell, and never [`NEVER`].
fn due(due_ns: u64, now_ns: u64) -> u32 {
    ms(due_ns.clamp(now_ns, now_ns.saturating_add(HORIZON_NS)).saturating_add(999_999)).max(1)
}

/// Of two wrapping times that are less than half of their range apart.
fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

fn ms(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

/// The deadline of a slot without a flow.
const NEVER: u32 = 0;
/// Makes a short tag another one of the same phase.
const OTHER_VERSION: u32 = 1 << 31;
/// A day: then a look is due in any case.
const HORIZON_NS: u64 = 86_400_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn tag(version: u64) -> Tag {
        Tag(version << 16 | Tag::LIVE)
    }

    fn flow(a: State, b: State) -> Flow {
        let mut flow = Flow::EMPTY;
        flow.opened_ns = 1_000;
        flow.incarnation = 1;
        flow.halves[0].state = a as u8;
        flow.halves[1].state = b as u8;
        flow.set_local(End::A, true);
        flow
    }

    #[test]
    fn a_glance_is_enough_until_the_tag_is_another() {
        let mut ledger = Ledger::new(4);
        let open = flow(State::Established, State::Established);
        assert!(ledger.glance(2, 0, tag(7)), "never looked at");
        ledger.note(2, 0, tag(7), &open, SECOND, 5 * SECOND);
        assert!(!ledger.glance(2, 0, tag(7)));
        assert!(ledger.glance(2, 0, tag(8)), "changed");
        assert!(!ledger.glance(2, 0, Tag(8 << 16 | Tag::BUSY)), "being changed");
        ledger.moved(2, &open, [State::SynSent; 2], [State::Established; 2], SECOND, u64::MAX);
        assert!(ledger.glance(2, 0, tag(7)), "an event told of it");
    }

    #[test]
    fn the_clock_comes_to_a_slot_when_its_flow_is_due_and_not_before() {
        let mut ledger = Ledger::new(4);
        let open = flow(State::Established, State::Established);
        let opening = ([State::SynSent; 2], [State::Established; 2]);
        assert_eq!(ledger.first_due(0..4, u64::MAX), None, "nothing there");
        ledger.note(2, 0, tag(7), &open, SECOND, 5 * SECOND);
        assert_eq!(ledger.first_due(0..4, 5 * SECOND - 1_000_000), None);
        assert_eq!(ledger.first_due(0..4, 5 * SECOND), Some(2));
        assert_eq!(ledger.first_due(3..4, 5 * SECOND), None, "another slot");
        ledger.moved(2, &open, opening.0, opening.1, SECOND, 3 * SECOND);
        assert_eq!(ledger.first_due(0..4, 3 * SECOND), Some(2), "an event told of an earlier deadline");
        ledger.moved(2, &open, opening.0, opening.1, SECOND, 4 * SECOND);
        assert_eq!(ledger.first_due(0..4, 3 * SECOND), Some(2), "an older one may come after it");
        ledger.moved(1, &open, opening.0, opening.1, SECOND, 0);
        assert_eq!(ledger.first_due(0..4, SECOND + 1_000_000), Some(1), "what was due long ago is due now");
        ledger.free(1, 0);
        ledger.note(2, 0, tag(7), &open, SECOND, u64::MAX);
        assert_eq!(ledger.first_due(0..4, HORIZON_NS), None);
        let later = SECOND + HORIZON_NS + 1_000_000;
        assert_eq!(ledger.first_due(0..4, later), Some(2), "a day later in any case");
        let wraps = (1 << 32) * 1_000_000;
        ledger.note(2, 0, tag(7), &open, wraps - SECOND, wraps);
        assert_eq!(ledger.first_due(0..4, wraps - 1_000_000), None);
        assert_eq!(ledger.first_due(0..4, wraps + 1_000_000), Some(2), "the number is 0 for never only");
    }

    #[test]
    fn the_census_is_what_looks_and_events_came_to() {
        let mut ledger = Ledger::new(4);
        let opening = flow(State::SynSent, State::SynReceived);
        let open = flow(State::Established, State::Established);
        ledger.note(0, 0, tag(1), &open, 2_000, u64::MAX);
        ledger.note(3, 1, Tag(1 << 16 | Tag::HALF_OPEN), &opening, 2_000, u64::MAX);
        assert_eq!(ledger.census().used, [[0, 1, 0], [1, 0, 0]]);
        let states = |b| [State::SynSent, b];
        let moved = ledger.moved(
            3,
            &opening,
            states(State::SynReceived),
            states(State::Established),
            1_000_960,
            u64::MAX,
        );
        assert_eq!(moved, [None, Some(999_968)], "since it was opened, in steps of 32 ns");
        let lost = [State::FinWait1, State::SynReceived];
        assert_eq!(
            ledger.moved(3, &opening, lost, states(State::Established), 3_000, u64::MAX),
            [None; 2],
            "not known"
        );
        let endpoints = ledger.census().endpoints;
        assert_eq!(endpoints[Place::Local as usize][State::Established as usize], 1);
        assert_eq!(endpoints[Place::Remote as usize][State::Established as usize], 2);
        assert_eq!(endpoints[Place::Local as usize][State::SynSent as usize], 1);
        ledger.note(0, 0, Tag(2 << 16 | Tag::OVER), &flow(State::Closed, State::Closed), 4_000, u64::MAX);
        ledger.free(3, 1);
        assert!(!ledger.glance(3, 1, Tag(9 << 16)));
        assert_eq!(ledger.census().used, [[0, 0, 1], [0; 3]]);
        assert_eq!(ledger.census().endpoints, [[0; State::COUNT]; 2]);
    }

    #[test]
    fn who_was_in_a_place_before_lends_nobody_its_time() {
        let mut ledger = Ledger::new(4);
        let half_open = Tag(1 << 16 | Tag::HALF_OPEN);
        ledger.note(1, 0, half_open, &flow(State::SynSent, State::Listen), 2_000, u64::MAX);
        let mut next = flow(State::Established, State::SynReceived);
        next.opened_ns = 9_000_000;
        let from = [State::SynSent, State::Listen];
        let stays =
            ledger.moved(1, &next, from, [State::Established, State::SynReceived], 9_000_640, u64::MAX);
        assert_eq!(stays, [Some(640), None]);
        next.opened_ns = 20_000_000;
        ledger.note(1, 0, half_open, &next, 30_000_000, u64::MAX);
        let to = [State::Established; 2];
        let stays =
            ledger.moved(1, &next, [State::Established, State::SynReceived], to, 30_000_000, u64::MAX);
        assert_eq!(
            stays,
            [None, Some(10_000_000)],
            "since the last one was opened, though its states are the same"
        );
    }
}
