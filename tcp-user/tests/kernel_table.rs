//! A full flow table of the loaded programs. It follows the configured number of connections, and counts
//! every packet for which it finds no slot.

use finwait::kernel::{Entry, Kernel, LoadOptions, ProgramName, class};
use tcp_common::record::{Counters, Event, event_kind};
use tcp_common::table::slots_for;
use tcp_common::{End, Flags, Flow, Ignored, Rules, Secret, Segment, State};
use testkit::frames::{self, segment};

/// A fixed secret, so that flows have the same slots in every run. With random secrets about two of a
/// thousand floods would evict one of the thousand concurrent handshakes (a calculated number): it would be
/// the oldest in the reach of a new flow.
const SECRET: Secret = Secret([
    [0x9e37_79b9, 0x7f4a_7c15],
    [0xbf58_476d, 0x1ce4_e5b9],
    [0x94d0_49bb, 0x1331_11eb],
    [0xd6e8_feb8, 0x6659_fd93],
    [0xa076_1d64, 0x78bd_642f],
]);

fn load(max_flows: u32) -> Kernel {
    let options = LoadOptions {
        rules: Rules::RFC,
        max_flows,
        max_flows_v6: max_flows,
        ring_bytes: 64 << 20,
        secret: SECRET,
        ..LoadOptions::default()
    };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    kernel.set_clock_ns(1_000_000_000).expect("setting the clock");
    kernel
}

fn syn() -> Segment {
    segment(Flags::SYN, 999, 0, 0)
}

fn run(kernel: &Kernel, number: u32, sender: End, segment: &Segment) {
    let frame = frames::frame_between(number, sender, segment);
    kernel.test_run(ProgramName::Xdp, &frame, 1).expect("running");
}

/// Sends the whole handshake of connection `number`.
fn open(kernel: &Kernel, number: u32) {
    run(kernel, number, End::A, &syn());
    answer(kernel, number);
}

/// Sends the segments of a handshake after the SYN.
fn answer(kernel: &Kernel, number: u32) {
    run(kernel, number, End::B, &segment(Flags::SYN | Flags::ACK, 4999, 1000, 0));
    run(kernel, number, End::A, &segment(Flags::ACK, 1000, 5000, 0));
}

/// Closes a connection by three segments. A closes first.
fn close(kernel: &Kernel, number: u32) {
    run(kernel, number, End::A, &segment(Flags::FIN | Flags::ACK, 1000, 5000, 0));
    run(kernel, number, End::B, &segment(Flags::FIN | Flags::ACK, 5000, 1001, 0));
    run(kernel, number, End::A, &segment(Flags::ACK, 1001, 5001, 0));
}

fn find(kernel: &Kernel, number: u32) -> Option<Entry> {
    let index = kernel.table().find(&frames::key_between(number))?;
    kernel.table().read(index)
}

fn refused(counters: &Counters) -> u64 {
    let refused = counters.ignored[Ignored::TableFull as usize];
    assert_eq!(counters.ignored.iter().sum::<u64>(), refused, "nothing else is ignored");
    assert_eq!(counters.packets_seen(), counters.packets_tracked() + refused);
    refused
}

/// Counts the flows of one family's table by [`class`].
fn classes(kernel: &Kernel, family: usize) -> [u32; 3] {
    let mut classes = [0; 3];
    for (phase, count) in (0..).zip(kernel.table().phases()[family]) {
        class(phase).into_iter().for_each(|class| classes[class] += count);
    }
    classes
}

#[test]
#[ignore = "needs root"]
fn the_rated_connections_are_followed_and_refused_packets_are_counted() {
    const RATED: u32 = 100_000;
    let kernel = load(RATED);
    (0..RATED).for_each(|number| open(&kernel, number));
    assert_eq!(refused(&kernel.counters().expect("counters")), 0);
    assert_eq!(classes(&kernel, 0), [0, RATED, 0]);

    let beyond = slots_for(RATED) + 1_000;
    (RATED..beyond).for_each(|number| open(&kernel, number));
    let counters = kernel.counters().expect("counters");
    let [half_open, live, finished] = classes(&kernel, 0);
    assert_eq!((half_open, finished), (0, 0));
    // Each of the three segments of a handshake searches for a slot again.
    assert_eq!(refused(&counters), 3 * u64::from(beyond - live));
    assert!(live > RATED && live <= slots_for(RATED), "{live}");
    assert_eq!(counters.evicted, [0; 3], "a live one never makes room");
    println!("{RATED} rated, {} places, {live} live at the end", slots_for(RATED));
}

#[test]
#[ignore = "needs root"]
fn the_rated_ipv6_connections_are_followed() {
    const RATED: u16 = 30_000;
    let kernel = load(u32::from(RATED));
    for port in 0..RATED {
        for (sender, segment) in [
            (End::A, syn()),
            (End::B, segment(Flags::SYN | Flags::ACK, 4999, 1000, 0)),
            (End::A, segment(Flags::ACK, 1000, 5000, 0)),
        ] {
            let frame = frames::frame_v6_of(port, sender, &segment);
            kernel.test_run(ProgramName::Xdp, &frame, 1).expect("running");
        }
    }
    assert_eq!(refused(&kernel.counters().expect("counters")), 0);
    assert_eq!(classes(&kernel, 1), [0, u32::from(RATED), 0]);
}

/// Sends a million SYNs from as many addresses, a microsecond apart, to a table for a tenth of them. No live
/// or closed connection is evicted. Handshakes that begin during the flood and take 20 ms are followed to
/// their end.
#[test]
#[ignore = "needs root"]
fn a_syn_flood_evicts_only_its_own_flows() {
    const RATED: u32 = 100_000;
    const FLOOD: u32 = 1_000_000;
    // SYNs between two real handshakes, and the duration of a handshake in such steps.
    const STEP: u32 = 1_000;
    const ROUND_TRIP: u32 = 20;

    let mut kernel = load(RATED);
    let [live, finished, real, flood] = [0, 1_000, 2_000, 1 << 20];
    (live..finished).for_each(|number| open(&kernel, number));
    (finished..real).for_each(|number| {
        open(&kernel, number);
        close(&kernel, number);
    });
    for turn in 0..FLOOD / STEP {
        kernel.set_clock_ns(2_000_000_000 + u64::from(turn) * 1_000_000).expect("setting the clock");
        run(&kernel, real + turn, End::A, &syn());
        if let Some(begun) = turn.checked_sub(ROUND_TRIP) {
            answer(&kernel, real + begun);
        }
        (0..STEP).for_each(|next| run(&kernel, flood + turn * STEP + next, End::A, &syn()));
    }

    let counters = kernel.counters().expect("counters");
    assert_eq!(refused(&counters), 0);
    let states = |numbers: std::ops::Range<u32>, expected: [State; 2]| {
        let as_expected = |entry: &Entry| {
            let flow = &entry.flow;
            flow.states() == expected && !flow.is_midstream()
        };
        numbers.filter(|&number| find(&kernel, number).is_some_and(|entry| as_expected(&entry))).count()
    };
    let begun = real + FLOOD / STEP - ROUND_TRIP;
    assert_eq!(states(live..finished, [State::Established; 2]), 1_000, "established before");
    assert_eq!(states(finished..real, [State::TimeWait, State::Closed]), 1_000, "in TIME-WAIT before");
    assert_eq!(states(real..begun, [State::Established; 2]), 980, "opened during the flood");
    let [half_open, live, finished] = classes(&kernel, 0);
    assert_eq!((live, finished), (1_980, 1_000));
    // Every flow is either in the table or counted as evicted.
    let [over, evicted, time_wait] = counters.evicted;
    assert_eq!((over, time_wait), (0, 0));
    assert_eq!(evicted + u64::from(half_open + live + finished), u64::from(FLOOD + 3_000));
    println!("{half_open} half-open in {} places, {evicted} evicted", slots_for(RATED));
}

/// In a table of live flows and TIME-WAITs, the oldest TIME-WAIT in reach is evicted, and an event reports
/// it.
#[test]
#[ignore = "needs root"]
fn the_oldest_time_wait_is_evicted_if_no_flow_is_half_open() {
    const RATED: u32 = 2_000;
    let mut kernel = load(RATED);
    let mut events = kernel.take_events().expect("the ring is ours");
    (0..RATED / 2).for_each(|number| open(&kernel, number));
    for number in RATED / 2..RATED * 4 {
        kernel.set_clock_ns(2_000_000_000 + u64::from(number)).expect("setting the clock");
        open(&kernel, number);
        close(&kernel, number);
    }
    let counters = kernel.counters().expect("counters");
    assert_eq!(refused(&counters), 0);
    let [half_open, live, finished] = classes(&kernel, 0);
    assert_eq!((half_open, live), (0, RATED / 2));
    let [over, evicted_half_open, time_wait] = counters.evicted;
    assert_eq!((over, evicted_half_open), (0, 0));
    assert_eq!(time_wait + u64::from(live + finished), u64::from(RATED * 4));
    // A new flow at another hook. The eviction event has the hook of the evicted flow.
    let newcomer = frames::frame_between(1 << 20, End::A, &syn());
    kernel.test_run(ProgramName::Out, &newcomer, 1).expect("running");
    let [_, _, time_wait] = kernel.counters().expect("counters").evicted;
    let mut evictions = 0;
    events.drain(usize::MAX, |event| {
        if event.kind == event_kind::EVICTED {
            evictions += 1;
            assert_eq!(event.hook & 1, 0, "all that were there came in by ingress");
            assert_eq!(event.flow.close_kind().name(), "fin_3seg");
            assert_eq!(event.sender, 0);
            assert_eq!((event.segment.flags, event.segment.seq), (Flags(0), 0));
            assert_no_change(event);
        }
    });
    assert_eq!(evictions, time_wait, "each ends a TIME-WAIT");
}

/// A segment of an unknown connection creates a flow. The flow is evicted like a SYN's, until the other end
/// has sent a segment too or its sender has sent several.
#[test]
#[ignore = "needs root"]
fn an_ack_flood_evicts_only_its_own_flows() {
    const RATED: u32 = 20_000;
    let kernel = load(RATED);
    let [live, one_way, flood] = [0, 1_000, 1 << 20];
    (live..one_way).for_each(|number| open(&kernel, number));
    let ack = |number: u32| segment(Flags::ACK, 1000 + number, 5000, 0);
    (0..8).for_each(|again| run(&kernel, one_way, End::A, &ack(again)));
    (flood..flood + 100_000).for_each(|number| run(&kernel, number, End::A, &ack(number)));
    let counters = kernel.counters().expect("counters");
    assert_eq!(refused(&counters), 0);
    let [half_open, live, finished] = classes(&kernel, 0);
    assert_eq!((live, finished), (1_001, 0));
    assert_eq!(counters.evicted, [0, u64::from(101_001 - half_open - live), 0]);
    assert!(find(&kernel, one_way).is_some());
}

/// Kernel programs defer the segments of a flow that the agent has locked, and lose none of them.
#[test]
#[ignore = "needs root"]
fn segments_of_a_locked_flow_are_deferred() {
    let mut kernel = load(64);
    let mut events = kernel.take_events().expect("not taken yet");
    (0..2).for_each(|number| open(&kernel, number));
    let index = kernel.table().find(&frames::key_between(0)).expect("it is open");
    let guard = kernel.table().try_lock(index).expect("not locked");
    close(&kernel, 0);
    close(&kernel, 1);
    assert_eq!(kernel.counters().expect("counters").deferred, 3);
    let mut deferred = 0;
    events.drain(usize::MAX, |event| {
        if event.kind == event_kind::DEFERRED {
            deferred += 1;
            assert_eq!(event.key, frames::key_between(0));
            assert_eq!(event.flow, Flow::EMPTY);
            assert_no_change(event);
        }
    });
    assert_eq!(deferred, 3);
    drop(guard);
    close(&kernel, 0);
    for number in 0..2 {
        let entry = find(&kernel, number).expect("it is there");
        assert_eq!(entry.flow.states(), [State::TimeWait, State::Closed]);
    }
}

/// Asserts that an event without a transition contains none of an earlier event.
fn assert_no_change(event: &Event) {
    let change = (event.cause, event.previous, event.from, event.to, event.reports);
    assert_eq!(change, (0, 0, [0; 2], [0; 2], 0), "{event:?}");
}

/// A packet whose tail call finds no program is ignored for a reason of its own, in every chain.
#[test]
#[ignore = "needs root"]
fn packets_without_a_program_are_counted() {
    let mut kernel = load(64);
    kernel.clear_chains().expect("clearing the program arrays");
    let frame = frames::frame_between(0, End::A, &syn());
    kernel.test_run(ProgramName::Xdp, &frame, 1).expect("running");
    kernel.test_run(ProgramName::Out, &frame, 1).expect("running");
    // After the entry program, a packet with incomplete headers goes to the program that copies them.
    kernel.test_run(ProgramName::ReadTc, &frame[..40], 1).expect("running");
    assert_eq!(kernel.table().entries().count(), 0);
    // The program that locks the flow unlocks it where the next one is missing: the second packet finds it so.
    for _ in 0..2 {
        kernel.test_run(ProgramName::ReadXdp, &frame, 1).expect("running");
        let index = kernel.table().find(&frames::key_between(0)).expect("the flow has a slot");
        assert!(kernel.table().try_lock(index).is_some(), "it is not locked");
    }
    let counters = kernel.counters().expect("counters");
    assert_eq!(counters.ignored[Ignored::NoProgram as usize], 5);
    assert_eq!((counters.packets_seen(), counters.packets_tracked()), (5, 0));
}
