//! What the mirror remembers of each slot between two looks, and the census that comes of it: most slots need no more
//! than a glance at their tag, and a scrape needs none at all.

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

/// A note of every slot.
pub struct Ledger {
    notes: Vec<Note>,
    census: Census,
}

/// What is known of one slot; zero is the note of a free one.
#[derive(Clone, Copy, Default)]
struct Note {
    ends: [Stay; 2],
    /// Its tag at the last look, in short; 0: there was none.
    tag: u32,
    /// When the clock makes the next look needed, with no segment: ms of the monotonic clock, wrapping.
    due_ms: u32,
}

/// Where an end is and since when: ns in the upper bits, [`Place`] and state in the lower five. Zero: nowhere.
#[derive(Clone, Copy, Default)]
struct Stay(u64);

const _: () = assert!(State::COUNT <= 16 && size_of::<Note>() == 24);

impl Ledger {
    /// For a table of so many slots. A note that was never written costs no memory.
    pub fn new(slots: u32) -> Ledger {
        Ledger { notes: vec![Note::default(); slots as usize], census: Census::default() }
    }

    /// The census as of now.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// A glance at the tag of a place of `family`: whether there must be a look.
    pub fn glance(&mut self, index: u32, family: usize, tag: Tag, now_ns: u64) -> bool {
        if tag.phase() == Tag::FREE {
            self.free(index, family);
        }
        let note = &self.notes[index as usize];
        // Who holds it leaves another tag.
        tag.at_rest() && (note.tag != short(tag) || note.due_ms.wrapping_sub(ms(now_ns)).cast_signed() <= 0)
    }

    /// Notes the flow that a place of `family` holds under this tag, and when the clock will change it.
    pub fn note(&mut self, index: u32, family: usize, tag: Tag, flow: &Flow, now_ns: u64, due_ns: u64) {
        let note = &mut self.notes[index as usize];
        self.census.count(family, &mut note.tag, short(tag));
        for end in [End::A, End::B] {
            let stay = &mut note.ends[end as usize];
            let known = stay.is_of(flow);
            let (place, state) = (Place::of(flow.is_local(end)), flow.state(end));
            if flow.is_over() {
                self.census.replace(stay, Stay::default());
            } else if !known || (stay.place(), stay.state()) != (place as usize, state as usize) {
                let since_ns = if known { now_ns } else { flow.opened_ns };
                self.census.replace(stay, Stay::new(since_ns, place, state));
            }
        }
        // Rounded up, and no further ahead than a wrapping number can tell.
        note.due_ms = ms(due_ns.min(now_ns.saturating_add(HORIZON_NS)).saturating_add(999_999));
    }

    /// Notes what an event or the clock did to the flow in a place; the next glance makes a look of it. Returns how long each
    /// end that moved had been in the state before, ns, where that is known.
    pub fn moved(
        &mut self,
        index: u32,
        flow: &Flow,
        from: [State; 2],
        to: [State; 2],
        at_ns: u64,
    ) -> [Option<u64>; 2] {
        let note = &mut self.notes[index as usize];
        if note.tag != 0 {
            note.tag ^= OTHER_VERSION;
        }
        [End::A, End::B].map(|end| {
            let (stay, from, to) = (&mut note.ends[end as usize], from[end as usize], to[end as usize]);
            let since_ns = if stay.is_of(flow) {
                (stay.state() == from as usize).then(|| stay.since_ns())
            } else {
                (from == to || from == State::SynSent).then_some(flow.opened_ns)
            };
            let begun_ns = if from == to { since_ns.unwrap_or(at_ns) } else { at_ns };
            self.census.replace(stay, Stay::new(begun_ns, Place::of(flow.is_local(end)), to));
            since_ns.filter(|_| from != to).map(|since_ns| at_ns.saturating_sub(since_ns))
        })
    }

    /// Notes that a place of `family` is free.
    pub fn free(&mut self, index: u32, family: usize) {
        let note = &mut self.notes[index as usize];
        self.census.count(family, &mut note.tag, 0);
        note.ends.iter_mut().for_each(|stay| self.census.replace(stay, Stay::default()));
    }
}

impl Census {
    fn count(&mut self, family: usize, tag: &mut u32, new: u32) {
        let class = |tag: u32| class(u64::from(tag & 0xf));
        if let Some(class) = class(*tag) {
            self.used[family][class] -= 1;
        }
        if let Some(class) = class(new) {
            self.used[family][class] += 1;
        }
        *tag = new;
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

fn ms(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

/// Makes a short tag another one of the same phase.
const OTHER_VERSION: u32 = 1 << 31;
/// A day: then a look is due in any case.
const HORIZON_NS: u64 = 86_400_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_glance_is_enough_until_the_tag_or_the_clock_says_otherwise() {
        let mut ledger = Ledger::new(4);
        let second = 1_000_000_000;
        let open = flow(State::Established, State::Established);
        assert!(ledger.glance(2, 0, tag(7), second), "never looked at");
        ledger.note(2, 0, tag(7), &open, second, 5 * second);
        assert!(!ledger.glance(2, 0, tag(7), 5 * second - 1_000_000));
        assert!(ledger.glance(2, 0, tag(8), second), "changed");
        assert!(!ledger.glance(2, 0, Tag(8 << 16 | Tag::BUSY), second), "being changed");
        assert!(ledger.glance(2, 0, tag(7), 5 * second + 1_000_000), "due");
        ledger.note(2, 0, tag(7), &open, second, u64::MAX);
        assert!(!ledger.glance(2, 0, tag(7), HORIZON_NS));
        assert!(ledger.glance(2, 0, tag(7), second + HORIZON_NS + 1_000_000), "a day later in any case");
        ledger.moved(2, &open, [State::SynSent; 2], [State::Established; 2], second);
        assert!(ledger.glance(2, 0, tag(7), HORIZON_NS), "an event told of it");
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
        let moved =
            ledger.moved(3, &opening, states(State::SynReceived), states(State::Established), 1_000_960);
        assert_eq!(moved, [None, Some(999_968)], "since it was opened, in steps of 32 ns");
        let lost = [State::FinWait1, State::SynReceived];
        assert_eq!(
            ledger.moved(3, &opening, lost, states(State::Established), 3_000),
            [None; 2],
            "not known"
        );
        let endpoints = ledger.census().endpoints;
        assert_eq!(endpoints[Place::Local as usize][State::Established as usize], 1);
        assert_eq!(endpoints[Place::Remote as usize][State::Established as usize], 2);
        assert_eq!(endpoints[Place::Local as usize][State::SynSent as usize], 1);
        ledger.note(0, 0, Tag(2 << 16 | Tag::OVER), &flow(State::Closed, State::Closed), 4_000, u64::MAX);
        ledger.free(3, 1);
        assert!(!ledger.glance(3, 1, Tag(9 << 16), 4_000));
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
        let stays = ledger.moved(1, &next, from, [State::Established, State::SynReceived], 9_000_640);
        assert_eq!(stays, [Some(640), None]);
        next.opened_ns = 20_000_000;
        ledger.note(1, 0, half_open, &next, 30_000_000, u64::MAX);
        let to = [State::Established; 2];
        let stays = ledger.moved(1, &next, [State::Established, State::SynReceived], to, 30_000_000);
        assert_eq!(
            stays,
            [None, Some(10_000_000)],
            "since the last one was opened, though its states are the same"
        );
    }
}
