//! Two CPUs and the agent at full rate. Connections open, exchange data and close at both ends at once, and
//! their tuples are reused or expire. Meanwhile the agent reads the events, applies deferred segments, and
//! removes expired and closed flows. At the end every counter agrees with the segments sent.
//!
//! `FINWAIT_CHURN_SECONDS=600 cargo test -p tcp-user --test kernel_churn -- --nocapture` is a longer run.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use finwait::agent::shared::Shared;
use finwait::agent::totals::form_index;
use finwait::agent::tracker::{BATCH, Tracker};
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use finwait::view::TimeWaitEnding;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use parking_lot::MutexGuard;
use tcp_common::table::Tag;
use tcp_common::{CloseKind, End, Flags, Rules, Segment, State};
use testkit::frames::{self, segment};

/// Number of connections of each kind in a round: on the tuples of the last round, and on new ones.
const FLOWS: u32 = 400;
const TWO_MSL_NS: u64 = 300_000_000;

/// The number of a tuple, the sender, and the segment.
type Sent = (u32, End, Segment);

#[test]
#[ignore = "needs root"]
fn every_counter_agrees_after_a_churn() {
    let seconds = std::env::var("FINWAIT_CHURN_SECONDS").map_or(15, |text| text.parse().expect("seconds"));
    let rules = Rules { time_wait_local_ns: TWO_MSL_NS, time_wait_remote_ns: TWO_MSL_NS, ..Rules::AGENT };
    let options = LoadOptions {
        rules,
        max_flows: 1 << 18,
        max_flows_v6: 64,
        ring_bytes: 64 << 20,
        ..LoadOptions::default()
    };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    let events = kernel.take_events().expect("the ring is ours");
    let shared = Arc::new(Shared::new(kernel, ([127, 0, 0, 1], 9817).into(), 1));
    let mut tracker = Tracker::new(Arc::clone(&shared), events);
    let stop = AtomicBool::new(false);
    let (connections, sent) = std::thread::scope(|scope| {
        let agent = scope.spawn(|| {
            while !stop.load(Relaxed) {
                while tracker.drain() == BATCH {}
                tracker.scan(Duration::from_millis(5));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        // Otherwise a failure here would wait for the agent for ever.
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| churn(&shared, seconds)));
        stop.store(true, Relaxed);
        agent.join().expect("the agent goes on");
        verdict.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Checked only now, because the agent locks slots while it scans.
    check(&shared, connections, sent);
}

/// Returns the number of connections and the number of segments.
fn churn(shared: &Shared, seconds: u64) -> (u64, u64) {
    // The tracker does not need it.
    let kernel = shared.kernel.lock();
    let begun = Instant::now();
    let (mut rounds, mut sent) = (0u32, 0u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        sent += round(&kernel, shared, rounds);
        rounds += 1;
    }
    let connections = u64::from(rounds * 2 * FLOWS);
    // Both ends of each are in TIME-WAIT at the end.
    let ended = || shared.totals.lock().time_wait_ended.as_flattened().iter().sum::<u64>();
    until("every TIME-WAIT has ended", || ended() >= 2 * connections);
    println!("{connections} connections, {sent} segments in {:?}", begun.elapsed());
    (connections, sent)
}

/// Plays one round of connections. Both CPUs handle both directions of every connection, in stages whose
/// segments may come in any order.
fn round(kernel: &MutexGuard<'_, Kernel>, shared: &Shared, number: u32) -> u64 {
    const ACK: u8 = Flags::ACK;
    let old = 0..FLOWS;
    let new = FLOWS * (number + 1)..FLOWS * (number + 2);
    // The sequence numbers of an incarnation begin beyond those of the previous one.
    let (a, b) = (1_000 + number.wrapping_mul(1_000_000), 5_000 + number.wrapping_mul(1_000_000));
    let of = |flows: &[std::ops::Range<u32>], sender, segment: Segment| -> Vec<Sent> {
        flows.iter().cloned().flatten().map(|flow| (flow, sender, segment)).collect()
    };
    let all = [old.clone(), new.clone()];
    let (old, new) = ([old], [new]);
    let syn = segment(Flags::SYN, a - 1, 0, 0);
    let syn_ack = segment(Flags::SYN | ACK, b - 1, a, 0);
    let stages = [
        [of(&old, End::A, syn), of(&new, End::A, syn)],
        [of(&new, End::B, syn_ack), of(&old, End::B, syn_ack)],
        [of(&all, End::A, segment(ACK, a, b, 10)), of(&all, End::B, segment(ACK, b, a, 10))],
        [
            of(&all, End::A, segment(ACK, a + 10, b + 10, 0)),
            of(&all, End::B, segment(ACK, b + 10, a + 10, 0)),
        ],
        [
            of(&all, End::A, segment(ACK, a + 10, b + 10, 90)),
            of(&all, End::B, segment(ACK, b + 10, a + 10, 0)),
        ],
        [
            of(&all, End::A, segment(Flags::FIN | ACK, a + 100, b + 10, 0)),
            of(&all, End::B, segment(Flags::FIN | ACK, b + 10, a + 100, 0)),
        ],
        [
            of(&all, End::A, segment(ACK, a + 101, b + 11, 0)),
            of(&all, End::B, segment(ACK, b + 11, a + 101, 0)),
        ],
    ];
    let mut sent = 0;
    for stage in &stages {
        run(kernel, stage);
        sent += stage.iter().map(Vec::len).sum::<usize>() as u64;
        // The segments of the next stage must come after the deferred ones of this stage.
        let deferred = kernel.counters().expect("counters").deferred;
        until("what was deferred is applied", || {
            shared.totals.lock().deferred.iter().sum::<u64>() == deferred
        });
    }
    sent
}

/// Sends the two halves of a stage in parallel, each on one CPU.
fn run(kernel: &Kernel, stage: &[Vec<Sent>; 2]) {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for (cpu, sent) in stage.iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu).expect("a CPU number");
                sched_setaffinity(Pid::from_raw(0), &only).expect("keeping to one CPU");
                let frames: Vec<_> = sent
                    .iter()
                    .map(|(flow, sender, segment)| {
                        let program = if *sender == End::A { ProgramName::Out } else { ProgramName::In };
                        (program, frames::frame_between(*flow, *sender, segment))
                    })
                    .collect();
                start.wait();
                for (program, frame) in &frames {
                    kernel.test_run(*program, frame, 1).expect("running");
                }
            });
        }
    });
}

fn check(shared: &Shared, connections: u64, sent: u64) {
    let counters = shared.kernel.lock().counters().expect("counters");
    let totals = shared.totals.lock().clone();
    println!(
        "{} deferred, {} claims yielded, {:?} evicted, {:?} predicted",
        counters.deferred, counters.insert_retries, counters.evicted, counters.predicted
    );
    assert_eq!(counters.events_lost, 0);
    assert_eq!((counters.packets_seen(), counters.packets_tracked()), (sent, sent));
    assert_eq!(counters.ignored.iter().sum::<u64>(), 0);
    assert_eq!(counters.segments_by_kind().iter().flatten().sum::<u64>() + counters.deferred, sent);
    let [in_order, overtaken, dropped] = totals.deferred;
    println!("{in_order} of the deferred in order, {overtaken} overtaken");
    assert_eq!((in_order + overtaken, dropped), (counters.deferred, 0));

    // Neither end has an address of this host.
    assert_eq!(totals.forwarded_opened.iter().sum::<u64>(), connections, "opened");
    assert_eq!(totals.forwarded_closed.iter().sum::<u64>(), connections, "closed");
    let simultaneous = totals.forwarded_closed[form_index(Some(CloseKind::Simultaneous))];
    assert_eq!(simultaneous, connections, "as it was played");
    let [expired, reused] = [TimeWaitEnding::Expired, TimeWaitEnding::Reused]
        .map(|ending| totals.time_wait_ended[ending as usize].iter().sum::<u64>());
    println!("TIME-WAITs: {expired} expired, {reused} reused");
    assert_eq!(
        (expired + reused, totals.time_wait_ended.as_flattened().iter().sum()),
        (2 * connections, 2 * connections)
    );

    // Every end is in the state in which it began, so it has left each state as often as it entered it.
    let [half_open, time_wait] = [counters.evicted[1], counters.evicted[2]];
    assert_eq!((half_open, time_wait), (0, 0));
    let matrices = [counters.transitions, totals.transitions];
    for state in State::ALL {
        let count = |edge: &dyn Fn(usize) -> (usize, usize)| -> u64 {
            let edges = (0..State::COUNT).map(edge);
            edges.map(|(from, to)| matrices.iter().flatten().map(|side| side[from][to]).sum::<u64>()).sum()
        };
        let (came, left) = (count(&|from| (from, state as usize)), count(&|to| (state as usize, to)));
        assert_eq!(came, left, "ends in {state:?}");
    }
    let phases = shared.table.phases()[0];
    let at_rest = phases[Tag::CLOSED as usize] + phases[Tag::FREE as usize];
    assert_eq!(at_rest, phases.iter().sum::<u32>(), "nothing lives, nobody holds anything: {phases:?}");
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}
