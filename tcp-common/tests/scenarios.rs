//! Every scenario of `conformance/scenarios` through the pure state machine: with every pair of ISNs,
//! with the ends swapped, and with every segment seen twice.

use testkit::golden::assert_golden;
use testkit::scenario::{PROVED, Variant, load, proved_states, run};

/// Where ends a and b are local: in the middle of the network, at either end, and with both ends on one
/// host.
const LOCATIONS: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

fn run_all(swapped: bool, doubled: bool) {
    let (mut failures, mut runs) = (Vec::new(), 0);
    for (scenario, local) in load().iter().flat_map(|scenario| LOCATIONS.map(|local| (scenario, local))) {
        if !scenario.holds(local) {
            continue;
        }
        for isn in scenario.isn_pairs() {
            runs += 1;
            let variant = Variant { isn, swapped, doubled, local };
            if let Err(message) = run(scenario, variant) {
                failures.push(format!("{} {:?} {variant:?}\n    {message}", scenario.id, scenario.title));
            }
        }
    }
    assert!(runs > 2_000, "only {runs} runs: are the files complete?");
    assert!(failures.is_empty(), "{} of {runs} runs failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn as_written() {
    run_all(false, false);
}

#[test]
fn with_ends_swapped() {
    run_all(true, false);
}

#[test]
fn with_every_segment_twice() {
    run_all(false, true);
}

#[test]
fn with_ends_swapped_and_every_segment_twice() {
    run_all(true, true);
}

#[test]
fn proved_states_are_as_the_golden_file_has_them() {
    assert_golden(PROVED, &proved_states(&load()));
}

#[test]
fn a_broken_expectation_is_noticed() {
    let mut scenario = load().into_iter().find(|scenario| scenario.id == "S001").expect("the first one");
    assert_eq!(run(&scenario, Variant::PLAIN), Ok(()));
    scenario.closes[0].kinds = vec!["simultaneous".into()];
    assert!(run(&scenario, Variant::PLAIN).is_err());
}

#[test]
fn the_ack_of_a_fin_may_be_seen_before_the_fin() {
    use tcp_common::{CloseKind, End, Flags, Flow, Rules, Segment, State};
    let mut flow = Flow::EMPTY;
    let mut at_ns = 1;
    let mut see = |sender, flags, seq, ack| {
        at_ns += 1;
        let segment =
            Segment { seq, ack, window: 65_535, flags: Flags(flags), wire_segments: 1, ..Segment::default() };
        flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
        (flow.state(End::A), flow.state(End::B), flow.close_kind())
    };
    see(End::A, Flags::SYN, 10, 0);
    see(End::B, Flags::SYN | Flags::ACK, 50, 11);
    see(End::A, Flags::ACK, 11, 51);
    see(End::A, Flags::ACK, 11, 52);
    let (a, b, _) = see(End::B, Flags::FIN | Flags::ACK, 51, 11);
    assert_eq!((a, b), (State::CloseWait, State::FinWait2));
    see(End::A, Flags::FIN | Flags::ACK, 11, 52);
    let over = see(End::B, Flags::ACK, 52, 12);
    assert_eq!(over, (State::Closed, State::TimeWait, CloseKind::Fin4Seg));
}
