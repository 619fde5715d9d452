//! The agent as a user runs it: the binary on the server of a lab, with real connections, the CLI and a
//! scraper.
//!
//! Loading the kernel programs takes seconds, so the tests that only read share one agent.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::counts::{counts_of, counts_on};
use common::{Agent, FINWAIT, Signal, until};
use finwait::lab::{Family, Lab, Played, Scenario};
use finwait::view::{EventRecord, Role, TimeWaitEnding, schema};
use tcp_common::State;

/// An agent on XDP that has seen every scenario, and a `watch` that ran meanwhile.
struct Shared {
    lab: &'static Lab,
    agent: Agent<'static>,
    played: Vec<Played>,
    /// Ends when the agent stops.
    _watch: Child,
    /// The file with what `watch` has printed.
    watched: String,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let lab: &Lab = Box::leak(Box::new(new_lab()));
    let socket = path("shared.sock");
    let mut command = Command::new("sh");
    command.args(["-c", UNTIL_END_OF_INPUT, "sh", FINWAIT, "run", "--socket", &socket]);
    command.args(["--ingress", "xdp", "-i", lab.server.interface, "--max-flows", "4096"]);
    let agent = Agent::start_by(lab, &socket, command.stdin(Stdio::piped()));
    let watched = path("shared.watch");
    let watch = Command::new(FINWAIT)
        .args(["watch", "-o", "ndjson", "--socket", &socket, "kind", "rst_abort"])
        .stdout(File::create(&watched).expect("creating a file"))
        .spawn()
        .expect("starting watch");
    agent.wait_for_watchers(1);
    let played = perform_all(lab);
    Shared { lab, agent, played, _watch: watch, watched }
});

/// Runs its arguments in the background until the test program ends, which closes the pipe. Statics are never
/// dropped.
const UNTIL_END_OF_INPUT: &str = r#""$@" < /dev/null & cat; kill $!; wait"#;

#[test]
#[ignore = "needs root"]
fn states_of_every_scenario_equal_the_kernels_on_xdp() {
    let Shared { lab, agent, played, .. } = &*SHARED;
    assert_states_equal_the_kernels(lab, agent, played);
}

#[test]
#[ignore = "needs root"]
fn states_of_every_scenario_equal_the_kernels_on_tc() {
    let lab = new_lab();
    let agent = start(&lab, "tc", &["--ingress", "tc"]);
    assert_states_equal_the_kernels(&lab, &agent, &perform_all(&lab));
}

#[test]
#[ignore = "needs root"]
fn watch_prints_only_closes_that_match_the_filter() {
    let closes = || {
        let text = fs::read_to_string(&SHARED.watched).expect("reading what watch printed");
        text.lines().filter(|line| line.contains("finwait.close/1")).map(str::to_owned).collect::<Vec<_>>()
    };
    until("watch prints the abort", || !closes().is_empty());
    for line in closes() {
        assert!(line.contains(r#""kind":"rst_abort""#), "{line}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_terminated_watch_completes_its_json_document() {
    let Shared { lab, agent, .. } = &*SHARED;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let printed = path(signal.as_str());
        let before = agent.status().watchers;
        let mut watch = Command::new(FINWAIT)
            .args(["watch", "-o", "json", "--socket", &agent.socket, "kind", "refused"])
            .stdout(File::create(&printed).expect("creating a file"))
            .spawn()
            .expect("starting watch");
        agent.wait_for_watchers(before + 1);
        let connect = || TcpStream::connect((lab.server.address(Family::Ipv4), 9)).map(drop);
        let refused = lab.client.namespace().run(connect).expect("entering the namespace");
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
        let read = || fs::read_to_string(&printed).expect("reading what watch printed");
        until("watch prints the refusal", || read().contains("finwait.close/1"));
        common::send(&watch, signal);
        assert!(watch.wait().expect("waiting for watch").success(), "{signal}");
        let document: serde_json::Value = serde_json::from_str(&read()).expect("a whole JSON document");
        assert!(document.to_string().contains(r#""kind":"refused""#), "{document}");
        agent.wait_for_watchers(before);
    }
}

#[test]
#[ignore = "needs root"]
fn metrics_count_endpoints_closes_and_times_in_states() {
    let page = settled_page();
    assert!(page.contains("finwait_endpoints{side=\"local\",state=\"time_wait\"}"), "{page}");
    for kind in ["rst_abort", "refused"] {
        assert!(closed(&page, kind) > 0, "{kind} is counted: {page}");
    }
    for (side, states) in [
        ("remote", ["syn_sent", "established", "fin_wait_1", "fin_wait_2", "close_wait", "last_ack"]),
        ("local", ["syn_received", "established", "fin_wait_1", "fin_wait_2", "close_wait", "last_ack"]),
    ] {
        for state in states {
            let count = format!("finwait_state_duration_seconds_count{{side=\"{side}\",state=\"{state}\"}}");
            let counts = page.lines().filter_map(|line| line.strip_prefix(&count)).collect::<Vec<_>>();
            assert!(counts.len() == 1 && counts[0] != " 0", "times in {state}, {side}, are counted: {page}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn promtool_accepts_the_metrics_page() {
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus");
    let page = settled_page();
    check.stdin.take().expect("its input").write_all(page.as_bytes()).expect("writing");
    let output = check.wait_with_output().expect("waiting");
    let complaints = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));
}

#[test]
#[ignore = "needs root"]
fn every_packet_is_tracked_or_ignored_and_no_event_is_lost() {
    let stats = SHARED.agent.stats();
    let ignored: u64 = stats.packets_ignored.values().sum();
    assert!(stats.packets_seen > 0);
    assert_eq!(stats.packets_seen, stats.packets_tracked + ignored);
    assert_eq!(stats.events_lost, 0);
}

#[test]
#[ignore = "needs root"]
fn a_typo_in_a_filter_is_a_usage_error() {
    let Output { status, .. } = SHARED.agent.cli(&["ls", "stat time-wait"]);
    assert_eq!(status.code(), Some(2));
}

#[test]
#[ignore = "needs root"]
fn a_second_agent_on_the_socket_is_refused() {
    let Shared { lab, agent, .. } = &*SHARED;
    let mut second = Command::new(FINWAIT);
    second.args(["run", "--listen", "127.0.0.1:0", "--socket", &agent.socket]);
    let second = lab.server.run(|| second.output()).expect("entering the namespace").expect("starting it");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another agent"), "{second:?}");
    assert!(agent.cli(&["status"]).status.success(), "the first agent still answers");
}

#[test]
#[ignore = "needs root"]
fn a_close_is_counted_and_reported_before_time_wait_ends_and_its_end_after() {
    let lab = new_lab();
    // TIME-WAIT of a remote end lasts twice as long.
    let agent = start(&lab, "msl", &["--msl", "1s"]);
    let watched = path("msl.watch");
    let mut watch = Command::new(FINWAIT)
        .args(["watch", "-o", "ndjson", "--socket", &agent.socket])
        .stdout(File::create(&watched).expect("creating a file"))
        .spawn()
        .expect("starting watch");
    agent.wait_for_watchers(1);
    let scenario = Scenario::named("fin_4seg_client").expect("the scenario");
    scenario.perform(&lab, Family::Ipv4).expect("performing it");
    let read = || fs::read_to_string(&watched).expect("reading what watch printed");
    until("the end of TIME-WAIT is reported", || read().contains(schema::TIME_WAIT_END));
    let events: Vec<EventRecord> =
        read().lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let [.., EventRecord::Close(close), EventRecord::Transition(expired), EventRecord::TimeWaitEnd(end)] =
        &events[..]
    else {
        panic!("{events:#?}")
    };
    assert_eq!(
        (close.connection.client.state, close.connection.server.state),
        (State::TimeWait, State::Closed)
    );
    assert_eq!((close.revision, close.durations_ms.time_wait), (1, None));
    assert_eq!((expired.from, expired.to), (State::TimeWait, State::Closed));
    assert_eq!((end.holder, end.ending, end.restarts), (Role::Client, TimeWaitEnding::Expired, 0));
    // A property of the rules, not of the machine: TIME-WAIT never ends before 2MSL.
    assert!(end.duration_ms >= 2_000.0, "{end:?}");
    let page = agent.scrape();
    assert_eq!(closed(&page, "fin_4seg"), 1);
    for event in ["entered", "expired"] {
        assert!(
            page.contains(&format!(
                "finwait_time_wait_events_total{{event=\"{event}\",holder=\"remote\"}} 1\n"
            )),
            "{page}"
        );
    }
    common::send(&watch, Signal::SIGTERM);
    assert!(watch.wait().expect("waiting for watch").success());
}

#[test]
#[ignore = "needs root"]
fn statistics_status_and_metrics_are_one_table() {
    let agent = &SHARED.agent;
    settled_page();
    // Each of the two questions counts itself, a scrape holds a port, and a check of the sockets may come in between.
    let both = || {
        let mut views = (counts_on(&agent.scrape()), counts_of(&agent.stats()));
        let is_of_others =
            |name: &str| !name.starts_with("finwait_own_connections") && !name.starts_with("finwait_ports_");
        views.0.retain(|(name, _), _| is_of_others(name));
        views.1.retain(|(name, _), _| is_of_others(name));
        views
    };
    let mut views = both();
    until("both views are of the same moment", || {
        views = both();
        views.0 == views.1
    });
    let count = |name: &str| {
        let samples = views.0.iter().filter(|((family, _), _)| family == name);
        samples.map(|(_, value)| *value as u64).sum::<u64>()
    };
    let (status, table) = (agent.status(), String::from_utf8(agent.cli(&["stats"]).stdout).expect("text"));
    assert_eq!(status.packets, count("finwait_packets_total"));
    assert_eq!(status.table_used, count("finwait_flow_table_entries"));
    assert_eq!(status.deferred, count("finwait_deferred_segments_total"));
    let shown = table.lines().filter(|line| line.starts_with("finwait_resets_total ")).count();
    let resets =
        views.0.iter().filter(|((family, _), value)| family == "finwait_resets_total" && **value > 0.0);
    assert_eq!(shown, resets.count(), "{table}");
    assert!(shown >= 3 && table.contains("origin=local,reason=refused"), "{table}");
}

#[test]
#[ignore = "needs root"]
fn sigterm_stops_the_agent_and_removes_its_socket() {
    let lab = new_lab();
    let mut agent = start(&lab, "sigterm", &[]);
    common::send(&agent.process, Signal::SIGTERM);
    assert!(agent.process.wait().expect("waiting").success(), "a clean stop");
    assert!(!fs::exists(&agent.socket).expect("looking up the socket"), "the socket is removed");
    assert_eq!(agent.cli(&["status"]).status.code(), Some(3), "no agent answers: exit code 3");
}

fn new_lab() -> Lab {
    Lab::new().expect("creating namespaces (root needed)")
}

fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))
}

fn start<'a>(lab: &'a Lab, name: &str, arguments: &[&str]) -> Agent<'a> {
    let common = ["-i", lab.server.interface, "--max-flows", "4096"];
    Agent::start(lab, name, &[&common, arguments].concat())
}

fn perform_all(lab: &Lab) -> Vec<Played> {
    let played = lab.families().flat_map(|family| Scenario::perform_all(lab, family));
    played.map(|result| result.expect("performing a scenario")).collect()
}

/// Returns the metrics page of the shared agent, once it has applied every event of the scenarios.
fn settled_page() -> String {
    let Shared { lab, agent, played, .. } = &*SHARED;
    assert_states_equal_the_kernels(lab, agent, played);
    agent.scrape()
}

#[track_caller]
fn assert_states_equal_the_kernels(lab: &Lab, agent: &Agent<'_>, played: &[Played]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let connections = agent.connections();
        let differences: Vec<_> = played
            .iter()
            .filter_map(|play| {
                let found = connections.iter().find(|connection| {
                    connection.client.socket_address() == play.client
                        && connection.server.socket_address() == play.server
                });
                let reported = found.map(|found| (socket(found.client.state), socket(found.server.state)));
                let kernel = lab.states(play.client, play.server).expect("reading the kernels' sockets");
                (reported != Some(kernel))
                    .then(|| format!("{}: {reported:?}, kernel {kernel:?}", play.scenario.name))
            })
            .collect();
        if differences.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "waited in vain for equal states of {} connections: {differences:#?}",
            connections.len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the state that the kernel's socket table shows for `state`. An unanswered open has no socket at
/// the listener's end.
fn socket(state: State) -> State {
    if matches!(state, State::Listen | State::Unknown) { State::Closed } else { state }
}

/// Returns the number of connections with this close kind in a metrics page.
fn closed(page: &str, kind: &str) -> u64 {
    let label = format!("kind=\"{kind}\"");
    page.lines()
        .filter(|line| line.starts_with("finwait_connections_closed_total{") && line.contains(&label))
        .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}
