//! A segment that the tap sees late: two queues, two CPUs, a record that took the slower way. Whatever the order in which
//! it saw the segments of two ends, they made the same close.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};
use tcp_common::flow::Closer;
use tcp_common::{CloseKind, End, Flags, Flow, Rules, Segment, State};
use testkit::model::Script;

fn config(cases: u32) -> Config {
    let regressions = FileFailurePersistence::Direct("tests/late.regressions");
    Config {
        cases,
        rng_seed: RngSeed::Fixed(9_293),
        failure_persistence: Some(Box::new(regressions)),
        ..Config::default()
    }
}

fn script() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..80)
}

proptest! {
    #![proptest_config(config(10_000))]

    /// By how many, and by whose.
    #[test]
    fn a_segment_may_be_passed_by_any(bytes in script()) {
        let wire = conversation(&mut Script::new(&bytes));
        let truth = Close::of(&wire);
        for late in 1..wire.len() {
            let mut seen = wire.clone();
            for next in late + 1..wire.len() {
                seen.swap(next - 1, next);
                prop_assert_eq!(&Close::of(&seen), &truth, "{} came after {}\n{}", late, next, print(&wire));
            }
        }
    }

    /// Each by those that follow within a while.
    #[test]
    fn all_may_be_late(bytes in script(), delays in prop::collection::vec(0..4_usize, 20)) {
        let wire = conversation(&mut Script::new(&bytes));
        let mut seen: Vec<_> = wire.iter().enumerate().map(|(nth, step)| (nth + delays[nth % 20], step)).collect();
        // But for the handshake: before it there was no connection.
        seen[2..].sort_by_key(|(at, _)| *at);
        let seen: Vec<_> = seen.into_iter().map(|(_, step)| *step).collect();
        prop_assert_eq!(&Close::of(&seen), &Close::of(&wire), "{}\nseen as\n{}", print(&wire), print(&seen));
    }
}

/// What does not depend on the order.
#[derive(PartialEq, Eq, Debug)]
struct Close {
    kind: CloseKind,
    closer: Closer,
    complete: bool,
    bytes: [u64; 2],
    states: [State; 2],
}

impl Close {
    fn of(wire: &[(End, Segment)]) -> Close {
        let mut flow = Flow::EMPTY;
        for (nth, (sender, segment)) in wire.iter().enumerate() {
            flow.on_segment(1 + nth as u64, *sender, segment, &Rules::RFC);
        }
        let ends = [End::A, End::B];
        Close {
            kind: flow.close_kind(),
            closer: flow.closer(),
            complete: flow.complete(),
            bytes: ends.map(|end| flow.end(end).bytes()),
            states: ends.map(|end| flow.state(end)),
        }
    }
}

fn print(wire: &[(End, Segment)]) -> String {
    wire.iter()
        .map(|(sender, s)| {
            format!("{sender:?} {:?} {} ack {} len {}\n", s.flags, s.seq, s.ack, s.payload_len)
        })
        .collect()
}

/// One connection between two ends that lose nothing, from the SYN to the ACK of the last FIN.
fn conversation(script: &mut Script) -> Vec<(End, Segment)> {
    let mut talk = Talk { next: [1_000, 5_000], got: [0, 0], closed: [false; 2], wire: Vec::new() };
    talk.say(End::A, Flags::SYN, 0);
    _ = talk.hear(End::B);
    talk.say(End::B, Flags::SYN | Flags::ACK, 0);
    _ = talk.hear(End::A);
    talk.say(End::A, Flags::ACK, 0);
    _ = talk.hear(End::B);
    while !script.is_over() && talk.wire.len() < 20 {
        let end = if script.one_in(2) { End::A } else { End::B };
        match script.below(6) {
            0 | 1 => _ = talk.hear(end),
            2 => talk.say(end, Flags::ACK, 0),
            3 | 4 if !talk.closed[end as usize] => talk.say(end, Flags::ACK, [1, 2, 100][script.below(3)]),
            5 if !talk.closed[end as usize] => {
                talk.say(end, Flags::ACK | Flags::FIN, [0, 0, 1, 100][script.below(4)])
            }
            _ => {}
        }
    }
    for end in [End::A, End::B] {
        _ = talk.hear(end);
        if !talk.closed[end as usize] {
            talk.say(end, Flags::ACK | Flags::FIN, 0);
        }
    }
    for end in [End::A, End::B] {
        if talk.hear(end) {
            talk.say(end, Flags::ACK, 0);
        }
    }
    talk.wire
}

struct Talk {
    /// Of each end, the number of its next octet; and what it has of the other.
    next: [u32; 2],
    got: [u32; 2],
    closed: [bool; 2],
    wire: Vec<(End, Segment)>,
}

impl Talk {
    fn say(&mut self, end: End, flags: u8, payload_len: u32) {
        let segment = Segment {
            seq: self.next[end as usize],
            ack: if flags & Flags::ACK != 0 { self.got[end as usize] } else { 0 },
            payload_len,
            window: 65_535,
            flags: Flags(flags),
            wire_segments: 1,
            ..Segment::default()
        };
        self.next[end as usize] = segment.end();
        self.closed[end as usize] |= segment.flags.has(Flags::FIN);
        self.wire.push((end, segment));
    }

    /// Whether it got anything new.
    fn hear(&mut self, end: End) -> bool {
        let next = self.next[end.peer() as usize];
        std::mem::replace(&mut self.got[end as usize], next) != next
    }
}
