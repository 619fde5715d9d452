//! What the agent counts and reports of segments that went through the kernel programs: closes, closes that were
//! taken back, and ends of a TIME-WAIT, also if the ring had no room for the events.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use finwait::agent::server::{App, query_routes};
use finwait::agent::shared::{Shared, WatchEvent};
use finwait::agent::totals::{Locality, Totals, form_index};
use finwait::agent::tracker::{BATCH, Tracker};
use finwait::kernel::{Kernel, LoadOptions, Prefix, ProgramName};
use finwait::view::{EventRecord, Lost, ReopenReason, ResetClass, TimeWaitEnding};
use jiff::Timestamp;
use tcp_common::{CloseKind, End, Flags, Rules, Segment, State};
use testkit::frames::{self, segment};
use tokio::sync::broadcast;

const SYN: u8 = Flags::SYN;
const ACK: u8 = Flags::ACK;
const FIN_ACK: u8 = Flags::FIN | Flags::ACK;
const RST: u8 = Flags::RST;

/// An agent without interfaces. End A of every connection belongs to its host.
struct Agent {
    shared: Arc<Shared>,
    tracker: Tracker,
    watcher: broadcast::Receiver<WatchEvent>,
}

impl Agent {
    fn new() -> Agent {
        Agent::with_watch_buffer(1 << 16)
    }

    /// An agent that keeps this many events for a watcher that does not read them.
    fn with_watch_buffer(buffer: usize) -> Agent {
        const TWO_MSL_NS: u64 = 500_000_000;
        let rules = Rules { time_wait_local_ns: TWO_MSL_NS, time_wait_remote_ns: TWO_MSL_NS, ..Rules::AGENT };
        let options = LoadOptions {
            rules,
            max_flows: 1 << 14,
            max_flows_v6: 64,
            ring_bytes: 0,
            ..LoadOptions::default()
        };
        let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
        let prefix = Prefix { address: Ipv4Addr::new(10, 8, 0, 0).into(), len: 16 };
        kernel.set_local_prefixes([prefix].into()).expect("setting the addresses of the host");
        let events = kernel.take_events().expect("the ring is ours");
        let shared = Arc::new(Shared::new(kernel, ([127, 0, 0, 1], 9817).into(), buffer));
        let watcher = shared.watchers.subscribe();
        Agent { tracker: Tracker::new(Arc::clone(&shared), events), shared, watcher }
    }

    /// Runs the programs over the segments of a connection.
    fn send(&self, connection: u32, segments: &[(End, Segment)]) {
        for (sender, segment) in segments {
            let program = if *sender == End::A { ProgramName::Out } else { ProgramName::In };
            let frame = frames::frame_between(connection, *sender, segment);
            self.shared.kernel.lock().test_run(program, &frame, 1).expect("running");
        }
    }

    /// Reads all events, then scans until the condition holds.
    fn until(&mut self, what: &str, condition: impl Fn(&Totals) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            while self.tracker.drain() == BATCH {}
            if condition(&self.shared.totals.lock()) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {:?}",
                self.shared.totals.lock()
            );
            std::thread::sleep(Duration::from_millis(5));
            self.tracker.scan(Duration::from_millis(5));
        }
    }

    /// What was published so far, without transitions: a word for each record.
    fn published(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        while let Ok(WatchEvent { event, .. }) = self.watcher.try_recv() {
            match event {
                EventRecord::Transition(_) => {}
                EventRecord::Close(close) => {
                    words.push(format!("{} {}", close.connection.close_word(), close.revision));
                }
                EventRecord::Reopened(reopened) => words.push(format!("reopened {}", reopened.reason)),
                EventRecord::RstIgnored(ignored) => {
                    words.push(format!("{} {}", ignored.sender, ignored.cause))
                }
                EventRecord::TimeWaitEnd(end) => words.push(format!("{} {}", end.holder, end.ending)),
                EventRecord::Lost(lost) => panic!("{lost:?}"),
            }
        }
        words
    }

    fn totals(&self) -> Totals {
        self.shared.totals.lock().clone()
    }
}

/// The loss is in the place of the lost events.
#[test]
#[ignore = "needs root"]
fn a_slow_watcher_finds_its_loss_in_the_stream() {
    const BUFFER: usize = 8;
    let mut agent = Agent::with_watch_buffer(BUFFER);
    let socket = format!("{}/slow-watcher.sock", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&socket);
    let shared = Arc::clone(&agent.shared);
    let app = App { shared: Arc::clone(&shared), started_at: Timestamp::now(), interfaces: Arc::default() };
    let lines =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(
            async {
                let listener = tokio::net::UnixListener::bind(&socket).expect("binding");
                tokio::spawn(axum::serve(listener, query_routes(app)).into_future());
                let mut watch = Command::new(env!("CARGO_BIN_EXE_finwait"))
                    .args(["watch", "-o", "ndjson", "--socket", &socket])
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("starting watch");
                while shared.watchers.receiver_count() < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                // Nothing is awaited here, so the server reads no event before the last one is published.
                (0..20).for_each(|number| agent.send(number, &[&handshake()[..], &close()].concat()));
                while agent.tracker.drain() == BATCH {}
                let output = BufReader::new(watch.stdout.take().expect("its output"));
                let read = move || output.lines().take(1 + BUFFER).collect::<std::io::Result<Vec<_>>>();
                let lines = tokio::task::spawn_blocking(read).await.expect("reading").expect("lines");
                watch.kill().expect("stopping watch");
                watch.wait().expect("waiting for watch");
                lines
            },
        );
    let first: EventRecord = serde_json::from_str(&lines[0]).expect("an event");
    assert_eq!(first, Lost { events: agent.totals().watch_events_lost }.into());
    assert!(agent.totals().watch_events_lost > 20);
    let last: EventRecord = serde_json::from_str(&lines[BUFFER]).expect("an event");
    assert!(matches!(last, EventRecord::Close(_)), "{last:?}");
}

fn sum(counts: &[[u64; 5]]) -> u64 {
    counts.as_flattened().iter().sum()
}

fn handshake() -> [(End, Segment); 3] {
    [
        (End::A, segment(SYN, 100, 0, 0)),
        (End::B, segment(SYN | ACK, 500, 101, 0)),
        (End::A, segment(ACK, 101, 501, 0)),
    ]
}

/// End A closes first and is in TIME-WAIT at the end.
fn close() -> [(End, Segment); 3] {
    [
        (End::A, segment(FIN_ACK, 101, 501, 0)),
        (End::B, segment(FIN_ACK, 501, 102, 0)),
        (End::A, segment(ACK, 102, 502, 0)),
    ]
}

/// The FIN of end B again: it has not received the last ACK.
fn fin_again() -> [(End, Segment); 1] {
    [(End::B, segment(FIN_ACK, 501, 102, 0))]
}

/// TIME-WAITs that ended in this way.
fn ended(totals: &Totals, ending: TimeWaitEnding) -> u64 {
    totals.time_wait_ended[ending as usize].iter().sum()
}

/// One scan after the other would take the time for which each TIME-WAIT lasts, so one agent serves them all.
#[test]
#[ignore = "needs root"]
fn each_end_of_a_time_wait_is_reported_once_with_its_reason() {
    let mut agent = Agent::new();
    let plays: [(&[(End, Segment)], TimeWaitEnding); 4] = [
        (&[], TimeWaitEnding::Expired),
        (&[(End::B, segment(RST, 502, 0, 0))], TimeWaitEnding::Assassinated),
        (&[fin_again()[0], (End::A, segment(RST, 102, 0, 0))], TimeWaitEnding::StateLost),
        (
            &[(End::B, segment(SYN, 900_000, 0, 0)), (End::A, segment(SYN | ACK, 800_000, 900_001, 0))],
            TimeWaitEnding::Reused,
        ),
    ];
    for (connection, (segments, ending)) in (0..).zip(plays) {
        agent.send(connection, &[&handshake()[..], &close(), segments].concat());
        agent.until("TIME-WAIT has ended", |totals| ended(totals, ending) == 1);
        assert_eq!(agent.published(), ["fin_3seg 1".to_owned(), format!("client {ending}")]);
    }
    let totals = agent.totals();
    assert_eq!(sum(&totals.closed), 4);
    let holders =
        |side: Locality| totals.time_wait_ended.map(|by_side| by_side[side as usize]).iter().sum::<u64>();
    assert_eq!(Locality::ALL.map(holders), [0, 4]);
    // End A is local. Each RST counts for the host that sent it.
    let by = |reason: ResetClass| totals.resets[reason as usize];
    let mut expected = [[0; 2]; 2];
    expected[0][Locality::Local as usize] = 1;
    expected[1][Locality::Remote as usize] = 1;
    assert_eq!([by(ResetClass::StateLost), by(ResetClass::TimeWaitAssassination)], expected);
    assert_eq!(totals.resets.as_flattened().iter().sum::<u64>(), 2);
}

#[test]
#[ignore = "needs root"]
fn a_reset_that_was_ignored_is_taken_back_and_the_close_after_it_is_the_second_revision() {
    let mut agent = Agent::new();
    let refuted = [
        (End::B, segment(RST | ACK, 501, 101, 0)),
        (End::B, segment(ACK, 501, 101, 10)),
        (End::A, segment(ACK, 101, 511, 0)),
    ];
    agent.send(0, &[&handshake()[..], &refuted].concat());
    agent.until("the close is taken back", |totals| totals.reopened.iter().sum::<u64>() == 1);
    assert_eq!(agent.published(), ["rst_abort 1", "reopened data_acknowledged"]);
    let endpoints = |agent: &Agent| agent.shared.gauges.lock().endpoints;
    let established = |agent: &Agent| {
        Locality::ALL.map(|locality| endpoints(agent)[locality as usize][State::Established as usize])
    };
    agent.tracker.scan(Duration::from_millis(5));
    assert_eq!(established(&agent), [1, 1], "both ends are established again");
    agent.send(0, &[(End::B, segment(RST | ACK, 511, 101, 0))]);
    agent.until("the second close is counted", |totals| sum(&totals.closed) == 2);
    assert_eq!(agent.published(), ["rst_abort 2"]);
    agent.tracker.scan(Duration::from_millis(5));
    assert_eq!(established(&agent), [0, 0]);
    let totals = agent.totals();
    assert_eq!(totals.reopened[ReopenReason::DataAcknowledged as usize], 1);
    assert_eq!(totals.opened.as_flattened().iter().sum::<u64>(), 1, "it was opened once");
}

/// More events than the ring holds, and nothing reads them: the scan finds what was lost.
#[test]
#[ignore = "needs root"]
fn what_lost_events_would_have_reported_is_counted_once() {
    const EACH: u32 = 400;
    let mut agent = Agent::new();
    let refuted = [
        (End::B, segment(RST | ACK, 501, 101, 0)),
        (End::B, segment(ACK, 501, 101, 10)),
        (End::A, segment(ACK, 101, 511, 0)),
    ];
    for number in 0..EACH {
        agent.send(number, &[&handshake()[..], &close()].concat());
        agent.send(
            EACH + number,
            &[&handshake()[..], &close(), &[(End::B, segment(RST, 502, 0, 0))]].concat(),
        );
        agent.send(2 * EACH + number, &[&handshake()[..], &refuted].concat());
    }
    let counters = agent.shared.kernel.lock().counters().expect("counters");
    assert!(counters.events_lost > u64::from(EACH), "{} lost", counters.events_lost);
    let each = u64::from(EACH);
    agent.until("everything is counted", |totals| {
        ended(totals, TimeWaitEnding::Expired) == each
            && totals.opened.as_flattened().iter().sum::<u64>() == 3 * each
    });
    let totals = agent.totals();
    let [kind, closed] = [CloseKind::Fin3Seg, CloseKind::RstAbort]
        .map(|kind| totals.closed[form_index(Some(kind))].iter().sum::<u64>());
    assert_eq!(kind, 2 * each);
    // Those whose RST and refutation were both lost were never reported as closed.
    assert_eq!(closed, totals.reopened.iter().sum::<u64>());
    assert_eq!(ended(&totals, TimeWaitEnding::Assassinated), each);
    let assassinations = totals.resets[ResetClass::TimeWaitAssassination as usize];
    assert_eq!(assassinations[Locality::Remote as usize], each);
}
