//! A million random segments through the loaded kernel programs and through the pure machine. The flow
//! records must be equal byte for byte, and so must the counters.
//!
//! The segments are those of two model endpoints over a bad network, some with changed fields, and streams of
//! hostile segments. Four flows of both families run at a time, so that flows share the table and the clock.

use std::collections::BTreeMap;

use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use tcp_common::record::{Counters, TimeWaitVisit, segment_kind};
use tcp_common::{Cause, End, Flags, Flow, Ignored, Rules, Segment, SegmentKind};
use testkit::frames;
use testkit::model::{Hostile, Script, Seen, World, random_bytes};

/// `FINWAIT_TEST_SEGMENTS` lowers the number of segments, for kernels that run without hardware
/// virtualization.
const SEGMENTS_EACH: u64 = 520_000;
const FLOWS: u16 = 4;

#[test]
#[ignore = "needs root"]
fn through_xdp() {
    differ(ProgramName::Xdp, 1);
}

#[test]
#[ignore = "needs root"]
fn through_tc() {
    differ(ProgramName::In, 1 << 32);
}

fn differ(program: ProgramName, first_seed: u64) {
    let options =
        LoadOptions { rules: Rules::AGENT, max_flows: 64, max_flows_v6: 64, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    let mut events = kernel.take_events().expect("the ring is ours");
    let mut expected = Expected::default();
    let segments =
        std::env::var("FINWAIT_TEST_SEGMENTS").map_or(SEGMENTS_EACH, |few| few.parse().expect("a number"));
    let (mut sent, mut round) = (0, 0);
    while sent < segments {
        kernel.table().clear();
        let seed = first_seed + round * u64::from(FLOWS);
        let mut flows: Vec<_> = (0..FLOWS).map(|place| Observed { place, ..Observed::default() }).collect();
        let mut clock_ns = 0;
        for (place, Seen { at_ns, sender, segment }) in conversations(seed) {
            if at_ns != clock_ns {
                clock_ns = at_ns;
                kernel.set_clock_ns(at_ns).expect("setting the clock");
            }
            kernel.test_run(program, &frame(place, sender, &segment), 1).expect("running");
            flows[usize::from(place)].see(at_ns, sender, &segment, &mut expected);
            sent += 1;
        }
        compare(&kernel, &flows, seed);
        events.drain(usize::MAX, |_| {});
        round += 1;
    }
    let counters = kernel.counters().expect("counters");
    expected.compare(&counters);
    println!("{}: {sent} segments in {round} rounds of {FLOWS} flows", program.name());
}

/// Returns the streams of one round in the order of time.
fn conversations(seed: u64) -> Vec<(u16, Seen)> {
    let mut all = Vec::new();
    for place in 0..FLOWS {
        let seed = seed + u64::from(place);
        let bytes = random_bytes(seed, 100 + (seed % 11) as usize * 70);
        let stream = if seed % 5 == 4 { hostile(&bytes) } else { modelled(&bytes, seed % 5 > 1) };
        all.extend(stream.into_iter().map(|seen| (place, seen)));
    }
    all.sort_by_key(|(_, seen)| seen.at_ns);
    all
}

fn hostile(bytes: &[u8]) -> Vec<Seen> {
    let mut script = Script::new(bytes);
    let mut hostile = Hostile::new(&mut script);
    let mut stream = Vec::new();
    while !script.is_over() {
        let (sender, segment) = hostile.next(&mut script);
        stream.push(Seen { at_ns: hostile.now_ns, sender, segment });
    }
    stream
}

/// Generates the segments of two model endpoints. With `bent`, some segments get other flags or numbers.
fn modelled(bytes: &[u8], bent: bool) -> Vec<Seen> {
    let mut script = Script::new(bytes);
    let mut world = World::new(&mut script);
    let mut stream = Vec::new();
    while !script.is_over() {
        for mut seen in world.step(&mut script) {
            if bent && script.one_in(12) {
                bend(&mut seen.segment, &mut script);
            }
            stream.push(seen);
        }
    }
    stream
}

fn bend(segment: &mut Segment, script: &mut Script) {
    let offset = [1, u32::MAX, 100, 70_000, 1 << 31][script.below(5)];
    match script.below(4) {
        0 => segment.seq = segment.seq.wrapping_add(offset),
        1 => segment.ack = segment.ack.wrapping_add(offset),
        2 => segment.flags.0 ^= [Flags::FIN, Flags::SYN, Flags::RST, Flags::ACK][script.below(4)],
        _ => segment.payload_len = [0, 1, 1_460][script.below(3)],
    }
}

/// A flow of the pure machine.
#[derive(Default)]
struct Observed {
    place: u16,
    flow: Flow,
    /// Whether the flow has a slot in the kernel's table.
    has_slot: bool,
}

impl Observed {
    fn see(&mut self, at_ns: u64, sender: End, segment: &Segment, expected: &mut Expected) {
        let kind = segment.kind();
        if kind == SegmentKind::Bad {
            return expected.ignore(Ignored::BadFlags);
        }
        if kind == SegmentKind::Rst && !self.has_slot {
            return expected.ignore(Ignored::NoFlow);
        }
        self.has_slot = true;
        let outcome = self.flow.on_segment(at_ns, sender, segment, &Rules::AGENT);
        // Events are read after every round, so that the ring has room for each.
        if outcome.is_transition() {
            self.flow.report();
        }
        let kind = match kind {
            SegmentKind::Syn => segment_kind::SYN,
            SegmentKind::SynAck => segment_kind::SYN_ACK,
            SegmentKind::Fin => segment_kind::FIN,
            SegmentKind::Rst => segment_kind::RST,
            SegmentKind::Ack if segment.payload_len != 0 => segment_kind::DATA,
            SegmentKind::Ack | SegmentKind::Bad => segment_kind::ACK,
        };
        expected.segments[kind] += 1;
        *expected.causes.entry(outcome.cause as usize).or_default() += 1;
        expected.restarted += u64::from(outcome.restarted);
        for (from, to) in outcome.from.into_iter().zip(outcome.to) {
            if from != to {
                *expected.transitions.entry((from as usize, to as usize)).or_default() += 1;
            }
        }
    }
}

/// Compares every flow of the table with the pure machine's. The seed in the message reproduces the round.
fn compare(kernel: &Kernel, flows: &[Observed], seed: u64) {
    let entries: Vec<_> = kernel.table().entries().collect();
    let with_slot = flows.iter().filter(|flow| flow.has_slot);
    assert_eq!(entries.len(), with_slot.clone().count(), "round of seed {seed}: flows in the table");
    for observed in with_slot {
        let entry = entries
            .iter()
            .find(|entry| entry.key.port_a == port_a(observed.place))
            .unwrap_or_else(|| panic!("round of seed {seed}: flow {} is not there", observed.place));
        // The hook decides which end is local, not the machine.
        let flow = entry.flow.without_locality();
        assert_eq!(
            flow, observed.flow,
            "round of seed {seed}, flow {}: kernel, pure machine",
            observed.place
        );
    }
}

/// The expected values of the counters.
#[derive(Default)]
struct Expected {
    ignored: BTreeMap<usize, u64>,
    segments: [u64; segment_kind::COUNT],
    causes: BTreeMap<usize, u64>,
    transitions: BTreeMap<(usize, usize), u64>,
    restarted: u64,
}

impl Expected {
    fn ignore(&mut self, reason: Ignored) {
        *self.ignored.entry(reason as usize).or_default() += 1;
    }

    fn compare(&self, counters: &Counters) {
        for (reason, count) in counters.ignored.iter().enumerate() {
            assert_eq!(*count, self.ignored.get(&reason).copied().unwrap_or(0), "ignored, reason {reason}");
        }
        for (kind, expected) in self.segments.iter().enumerate() {
            let count: u64 = counters.segments_by_kind().iter().map(|direction| direction[kind]).sum();
            assert_eq!(count, *expected, "segments of kind {}", segment_kind::NAMES[kind]);
        }
        for (number, &count) in counters.causes.iter().enumerate() {
            let cause = Cause::from_repr(number as u8);
            let count = cause.map_or(count, |cause| counters.packets_by_cause(cause));
            assert_eq!(count, self.causes.get(&number).copied().unwrap_or(0), "cause {cause:?}");
        }
        for (from, row) in counters.transitions[0].iter().enumerate() {
            for (to, remote) in row.iter().enumerate() {
                let count = remote + counters.transitions[1][from][to];
                let expected = self.transitions.get(&(from, to)).copied().unwrap_or(0);
                assert_eq!(count, expected, "transitions from state {from} to {to}");
            }
        }
        let restarted: u64 = counters.time_wait_visits[TimeWaitVisit::Restarted as usize].iter().sum();
        assert_eq!(restarted, self.restarted, "restarts of 2MSL");
        assert_eq!(counters.deferred, 0);
        assert_eq!(counters.events_lost, 0);
    }
}

fn port_a(place: u16) -> u16 {
    40_000 + place
}

/// Makes the frame of a segment of flow `place`: IPv4 if the number is even, otherwise IPv6.
fn frame(place: u16, sender: End, segment: &Segment) -> Vec<u8> {
    if place.is_multiple_of(2) {
        frames::frame_of(port_a(place), sender, segment)
    } else {
        frames::frame_v6_of(port_a(place), sender, segment)
    }
}
