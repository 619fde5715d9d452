//! Two CPUs handle the same flows at once, one direction each. No segment is lost or counted twice, and the
//! counted transitions are exactly those of the ends.
//!
//! Every interleaving of a phase's segments is valid, so all counts are known in advance. The events of both
//! CPUs are read in the order in which they happened.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use finwait::kernel::{Events, Kernel, LoadOptions, ProgramName, Table};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tcp_common::record::event_kind;
use tcp_common::{Cause, End, Flags, Rules, Segment, State};
use testkit::frames::{self, segment};

const FLOWS: u16 = 2_000;
const FIRST_PORT: u16 = 1_000;
/// Number of runs of a frame by one call in the contended phase.
const REPEAT: u32 = 2_000;
/// Number of flows in the contended phase.
const CONTENDED: u16 = 40;
/// Limit of the contended phase, in case the two CPUs never meet.
const LIMIT: Duration = Duration::from_secs(120);

/// The segments that both CPUs send at once: one from each end, each repeated `repeat` times.
struct Phase {
    name: &'static str,
    from: [Segment; 2],
    flows: u16,
    repeat: u32,
}

/// Number of ends by transition, as counted by the kernel programs or made by a deferred segment.
type Matrix = BTreeMap<(State, State), u64>;

/// States of both ends before and after each event of a connection.
type Way = Vec<([u8; 2], [u8; 2])>;

fn phases() -> [Phase; 6] {
    const ACK: u8 = Flags::ACK;
    let phase = |name, from_a, from_b| Phase { name, from: [from_a, from_b], flows: FLOWS, repeat: 1 };
    [
        // R22: either segment may come first, and both CPUs may claim the flow at once.
        phase("SYN beside SYN-ACK", segment(Flags::SYN, 999, 0, 0), segment(Flags::SYN | ACK, 4999, 1000, 0)),
        phase("data both ways", segment(ACK, 1000, 5000, 10), segment(ACK, 5000, 1000, 10)),
        phase("its ACKs", segment(ACK, 1010, 5010, 0), segment(ACK, 5010, 1010, 0)),
        Phase {
            name: "a long run of ACKs on few flows",
            from: [segment(ACK, 1010, 5010, 0), segment(ACK, 5010, 1010, 0)],
            flows: CONTENDED,
            repeat: REPEAT,
        },
        phase(
            "FIN both ways",
            segment(Flags::FIN | ACK, 1010, 5010, 0),
            segment(Flags::FIN | ACK, 5010, 1010, 0),
        ),
        phase("the last ACKs", segment(ACK, 1011, 5011, 0), segment(ACK, 5011, 1011, 0)),
    ]
}

#[test]
#[ignore = "needs root"]
fn no_transition_is_lost_or_doubled() {
    let options =
        LoadOptions { rules: Rules::RFC, max_flows: 1 << 15, max_flows_v6: 64, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    let mut events = kernel.take_events().expect("the ring is ours");
    let mut deferred_transitions = Matrix::new();
    let (mut sent, mut deferred, mut repeated) = (0u64, 0u64, 0);
    for phase in phases() {
        let deadline = Instant::now() + LIMIT;
        loop {
            let before = predicted(&kernel);
            run_both(&kernel, &phase);
            let count = 2 * u64::from(phase.flows) * u64::from(phase.repeat);
            sent += count;
            deferred += apply_deferred(&mut events, kernel.table(), &mut deferred_transitions);
            println!("{}: {deferred} segments deferred so far", phase.name);
            if phase.repeat == 1 {
                break;
            }
            // Every segment of this phase is predicted, unless the other CPU has locked the slot at that
            // moment.
            repeated += phase.repeat;
            let short = predicted(&kernel) - before;
            println!("{short} of {count} took the short path");
            if short > 0 && short < count - u64::from(phase.flows) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for the CPUs to meet on a flow: {short} of {count} were predicted"
            );
        }
    }
    let counters = kernel.counters().expect("counters");
    assert_eq!(counters.events_lost, 0);
    assert_eq!(counters.ignored.iter().sum::<u64>(), 0, "nothing was ignored: {:?}", counters.ignored);
    assert_eq!(counters.packets_tracked(), sent);
    assert_eq!(counters.deferred, deferred);

    let entries: Vec<_> = kernel.table().entries().collect();
    assert_eq!(entries.len(), usize::from(FLOWS), "a slot a flow");
    let mut ends_in = BTreeMap::new();
    for entry in &entries {
        let flow = &entry.flow;
        let long = if entry.key.port_a < FIRST_PORT + CONTENDED { repeated } else { 0 };
        for end in [End::A, End::B] {
            *ends_in.entry(flow.state(end)).or_insert(0) += 1;
            assert_eq!(flow.end(end).segments(), 5 + long, "segments of {end:?} of {:?}", entry.key);
            assert_eq!(flow.end(end).bytes(), 10);
        }
        assert_eq!(flow.close_kind().name(), "simultaneous");
        assert!(flow.complete());
    }
    assert_eq!(ends_in, BTreeMap::from([(State::TimeWait, 2 * u64::from(FLOWS))]));

    // Every end began in CLOSED. The entries into a state minus the exits give the number of ends that are
    // there now.
    let mut transitions = deferred_transitions;
    for side in counters.transitions {
        for (from, row) in side.iter().enumerate() {
            for (to, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                let state = |number: usize| State::from_repr(number as u8).expect("a state");
                *transitions.entry((state(from), state(to))).or_insert(0) += count;
            }
        }
    }
    let mut balance: BTreeMap<State, i64> = BTreeMap::from([(State::Closed, 2 * i64::from(FLOWS))]);
    for (&(from, to), &count) in &transitions {
        *balance.entry(from).or_insert(0) -= count as i64;
        *balance.entry(to).or_insert(0) += count as i64;
    }
    balance.retain(|_, ends| *ends != 0);
    assert_eq!(balance, BTreeMap::from([(State::TimeWait, 2 * i64::from(FLOWS))]), "{transitions:?}");
}

/// Sends the segments of a connection in turn: those of A on one CPU, those of B on the other. Each event
/// begins with the states in which the previous one ended. The events are read while the rings are being
/// written, and then from full rings in small portions.
#[test]
#[ignore = "needs root"]
fn the_events_of_a_flow_come_in_the_order_of_its_segments() {
    const LIVES: u16 = 3_000;
    const ACK: u8 = Flags::ACK;
    let life = [
        (End::A, segment(Flags::SYN, 999, 0, 0)),
        (End::B, segment(Flags::SYN | ACK, 4999, 1000, 0)),
        (End::A, segment(ACK, 1000, 5000, 0)),
        (End::B, segment(Flags::FIN | ACK, 5000, 1000, 0)),
        (End::A, segment(ACK, 1000, 5001, 0)),
        (End::A, segment(Flags::FIN | ACK, 1000, 5001, 0)),
        (End::B, segment(ACK, 5001, 1001, 0)),
    ];
    let mut kernel = Kernel::load(&LoadOptions { rules: Rules::RFC, ..LoadOptions::default() })
        .expect("loading the kernel programs (root needed)");
    let mut events = kernel.take_events().expect("the rings are ours");
    for portion in [usize::MAX, 5] {
        let (turn, total) = (AtomicU32::new(0), u32::from(LIVES) * life.len() as u32);
        let mut ways: BTreeMap<u16, Way> = BTreeMap::new();
        let mut cpus = BTreeMap::new();
        let mut read = |portion| {
            events.drain(portion, |event| {
                ways.entry(event.key.port_a).or_default().push((event.from, event.to));
                *cpus.entry(event.cpu).or_insert(0) += 1;
            })
        };
        let [first, second] = two_cpus();
        std::thread::scope(|scope| {
            for (cpu, of, program) in [(first, End::A, ProgramName::Out), (second, End::B, ProgramName::In)] {
                let (turn, kernel, life) = (&turn, &kernel, &life);
                scope.spawn(move || {
                    keep_to(cpu);
                    let mine = |&(_, step): &(u32, usize)| life[step].0 == of;
                    for (number, step) in (0..total).map(|n| (n, n as usize % life.len())).filter(mine) {
                        let port = FIRST_PORT + (number / life.len() as u32) as u16;
                        let frame = frames::frame_of(port, of, &life[step].1);
                        while turn.load(Ordering::Acquire) != number {
                            std::thread::yield_now();
                        }
                        kernel.test_run(program, &frame, 1).expect("running");
                        turn.store(number + 1, Ordering::Release);
                    }
                });
            }
            while portion == usize::MAX && turn.load(Ordering::Relaxed) < total {
                read(portion);
                std::thread::yield_now();
            }
        });
        while read(portion) > 0 {}
        assert_eq!(ways.len(), usize::from(LIVES));
        assert!(cpus.len() == 2 && cpus.values().all(|&count| count >= LIVES.into()), "{cpus:?}");
        for (port, way) in ways {
            let mut states = [State::SynSent as u8, State::Listen as u8];
            for (from, to) in &way {
                assert_eq!(*from, states, "port {port}: {way:?}");
                states = *to;
            }
            assert_eq!(states, [State::Closed as u8, State::TimeWait as u8], "port {port}: {way:?}");
        }
        kernel.table().clear();
    }
    assert_eq!(kernel.counters().expect("counters").events_lost, 0);
}

/// A ring has a fixed capacity. Further events are counted, and the sequence numbers of later events show the
/// gap.
#[test]
#[ignore = "needs root"]
fn events_that_find_the_ring_full_are_counted() {
    const HOLDS: u16 = 1024;
    let options = LoadOptions { rules: Rules::RFC, ring_bytes: 0, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    let mut events = kernel.take_events().expect("the rings are ours");
    keep_to(two_cpus()[1]);
    let open = |port: u16| {
        for (end, segment) in [
            (End::A, segment(Flags::SYN, 999, 0, 0)),
            (End::B, segment(Flags::SYN | Flags::ACK, 4999, 1000, 0)),
        ] {
            let frame = frames::frame_of(FIRST_PORT + port, end, &segment);
            kernel.test_run(ProgramName::Xdp, &frame, 1).expect("running");
        }
    };
    let mut numbers = Vec::new();
    (0..HOLDS + 100).for_each(open);
    assert_eq!(events.drain(usize::MAX, |event| numbers.push(event.sequence)), usize::from(HOLDS));
    (HOLDS + 100..HOLDS + 110).for_each(open);
    assert_eq!(events.drain(usize::MAX, |event| numbers.push(event.sequence)), 10);
    let (first, later) = (0..u64::from(HOLDS), u64::from(HOLDS + 100)..u64::from(HOLDS + 110));
    assert_eq!(numbers, first.chain(later).collect::<Vec<_>>());
    let counters = kernel.counters().expect("counters");
    assert_eq!((counters.events, counters.events_lost), (u64::from(HOLDS) + 10, 100));
}

fn predicted(kernel: &Kernel) -> u64 {
    kernel.counters().expect("counters").predicted.iter().flatten().sum()
}

/// Returns the first two CPUs that this process may use.
fn two_cpus() -> [usize; 2] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the allowed CPUs");
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).expect("a CPU number"));
    match (cpus.next(), cpus.next()) {
        (Some(first), Some(second)) => [first, second],
        _ => panic!("this test needs two CPUs"),
    }
}

fn keep_to(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).expect("a CPU number");
    sched_setaffinity(Pid::from_raw(0), &only).expect("keeping to one CPU");
}

fn run_both(kernel: &Kernel, phase: &Phase) {
    let start = Barrier::new(2);
    let [first, second] = two_cpus();
    std::thread::scope(|scope| {
        for (cpu, sender, program) in [(first, End::A, ProgramName::Out), (second, End::B, ProgramName::In)] {
            let start = &start;
            scope.spawn(move || {
                keep_to(cpu);
                let segment = &phase.from[sender as usize];
                let frames: Vec<_> = (0..phase.flows)
                    .map(|flow| frames::frame_of(FIRST_PORT + flow, sender, segment))
                    .collect();
                start.wait();
                for frame in &frames {
                    kernel.test_run(program, frame, phase.repeat).expect("running");
                }
            });
        }
    });
}

/// Applies the segments that found their slots locked, like the agent does.
fn apply_deferred(events: &mut Events, table: &Table, transitions: &mut Matrix) -> u64 {
    let mut deferred = 0;
    events.drain(usize::MAX, |event| {
        if event.kind != event_kind::DEFERRED {
            return;
        }
        deferred += 1;
        let index = table.index_of(event).expect("the flow is there");
        let mut owned = table.try_lock(index).expect("no other owner");
        assert_eq!(owned.key(), event.key);
        let sender = if event.sender == 0 { End::A } else { End::B };
        let outcome = owned.on_segment(event.at_ns, sender, &event.segment, &Rules::RFC);
        assert_ne!(outcome.cause, Cause::BadFlags);
        for end in [End::A, End::B] {
            let (from, to) = (outcome.from[end as usize], outcome.to[end as usize]);
            if from != to {
                *transitions.entry((from, to)).or_insert(0) += 1;
            }
        }
    });
    deferred
}
