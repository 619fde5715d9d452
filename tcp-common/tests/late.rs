//! Segments that the tap sees late, as with two queues or two CPUs: the close record does not depend on
//! the order in which the segments of two ends were seen.
//!
//! The seed is fixed. A case that fails is written to `late.regressions`, beside this file, and runs
//! first from then on.

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

    /// Each segment in turn, overtaken by any number of later ones.
    #[test]
    fn one_late_segment_does_not_change_the_close(bytes in script()) {
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

    /// Every segment after the handshake, each overtaken by up to three later ones.
    #[test]
    fn many_late_segments_do_not_change_the_close(bytes in script(), delays in prop::collection::vec(0..4_usize, 20)) {
        let wire = conversation(&mut Script::new(&bytes));
        let mut seen: Vec<_> = wire.iter().enumerate().map(|(nth, step)| (nth + delays[nth % 20], step)).collect();
        // The handshake stays first: before it there is no connection.
        seen[2..].sort_by_key(|(at, _)| *at);
        let seen: Vec<_> = seen.into_iter().map(|(_, step)| *step).collect();
        prop_assert_eq!(&Close::of(&seen), &Close::of(&wire), "{}\nseen as\n{}", print(&wire), print(&seen));
    }
}

/// The facts that do not depend on the order.
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

/// One connection between two ends without loss, from the SYN to the ACK of the last FIN.
fn conversation(script: &mut Script) -> Vec<(End, Segment)> {
    let mut talk =
        Conversation { next: [1_000, 5_000], received: [0, 0], closed: [false; 2], wire: Vec::new() };
    talk.send(End::A, Flags::SYN, 0);
    _ = talk.receive(End::B);
    talk.send(End::B, Flags::SYN | Flags::ACK, 0);
    _ = talk.receive(End::A);
    talk.send(End::A, Flags::ACK, 0);
    _ = talk.receive(End::B);
    while !script.is_over() && talk.wire.len() < 20 {
        let end = if script.one_in(2) { End::A } else { End::B };
        match script.below(6) {
            0 | 1 => _ = talk.receive(end),
            2 => talk.send(end, Flags::ACK, 0),
            3 | 4 if !talk.closed[end as usize] => talk.send(end, Flags::ACK, [1, 2, 100][script.below(3)]),
            5 if !talk.closed[end as usize] => {
                talk.send(end, Flags::ACK | Flags::FIN, [0, 0, 1, 100][script.below(4)])
            }
            _ => {}
        }
    }
    for end in [End::A, End::B] {
        _ = talk.receive(end);
        if !talk.closed[end as usize] {
            talk.send(end, Flags::ACK | Flags::FIN, 0);
        }
    }
    for end in [End::A, End::B] {
        if talk.receive(end) {
            talk.send(end, Flags::ACK, 0);
        }
    }
    talk.wire
}

struct Conversation {
    /// SND.NXT of each end.
    next: [u32; 2],
    /// RCV.NXT of each end.
    received: [u32; 2],
    closed: [bool; 2],
    wire: Vec<(End, Segment)>,
}

impl Conversation {
    fn send(&mut self, end: End, flags: u8, payload_len: u32) {
        let segment = Segment {
            seq: self.next[end as usize],
            ack: if flags & Flags::ACK != 0 { self.received[end as usize] } else { 0 },
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

    /// Delivers everything to an end. Returns whether anything was new.
    fn receive(&mut self, end: End) -> bool {
        let next = self.next[end.peer() as usize];
        std::mem::replace(&mut self.received[end as usize], next) != next
    }
}

/// The first copy of a FIN comes after the second one, which has raised TS.Recent. PAWS drops the first copy,
/// and its ACK still shows that both ends closed at once.
#[test]
fn the_first_copy_of_a_fin_counts_for_the_closer_though_paws_drops_it() {
    let segment = |sender, flags, seq, ack, tsval| {
        let options = Segment::HAS_TIMESTAMP;
        let flags = Flags(flags | if flags == Flags::SYN { 0 } else { Flags::ACK });
        (
            sender,
            Segment {
                seq,
                ack,
                tsval,
                options,
                flags,
                window: 60_000,
                wire_segments: 1,
                ..Segment::default()
            },
        )
    };
    let mut flow = Flow::EMPTY;
    for (step, (sender, segment)) in [
        segment(End::A, Flags::SYN, 0, 0, 100),
        segment(End::B, Flags::SYN | Flags::ACK, 0, 1, 100),
        segment(End::A, Flags::ACK, 1, 1, 110),
        segment(End::B, Flags::FIN, 1, 1, 120),
        segment(End::A, Flags::ACK, 2, 2, 131),
        segment(End::A, Flags::FIN, 1, 2, 600),
        segment(End::A, Flags::FIN, 1, 1, 130),
        segment(End::B, Flags::ACK, 2, 2, 610),
    ]
    .into_iter()
    .enumerate()
    {
        flow.on_segment((step as u64 + 1) * 1_000_000, sender, &segment, &Rules::AGENT);
    }
    assert_eq!(flow.states(), [State::TimeWait; 2]);
    assert_eq!((flow.close_kind(), flow.closer()), (CloseKind::Simultaneous, Closer::Both));
}
