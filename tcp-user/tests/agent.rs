//! The agent as a user runs it: the binary in one host of the lab, real connections, the CLI and a scraper asking.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Agent, FINWAIT, Signal, until};
use finwait::lab::{Lab, Scenario};
use tcp_common::State;

fn every_close(ingress: &str) {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let interface = lab.server.interface;
    let mut agent =
        Agent::start(&lab, ingress, &["--ingress", ingress, "-i", interface, "--max-flows", "4096"]);
    let seen = format!("{}/{ingress}.watch", env!("CARGO_TARGET_TMPDIR"));
    let mut watch = Command::new(FINWAIT)
        .args(["watch", "-o", "ndjson", "--socket", &agent.socket, "kind", "rst_abort"])
        .stdout(std::fs::File::create(&seen).expect("a file"))
        .spawn()
        .expect("starting watch");
    agent.wait_for_watchers(1);
    for family in lab.families() {
        let played: Vec<_> = Scenario::perform_all(&lab, family)
            .into_iter()
            .map(|result| result.expect("a scenario"))
            .collect();
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
                    let ours = found.map(|found| (socket(found.client.state), socket(found.server.state)));
                    let kernel = lab.states(play.client, play.server).expect("asking the kernel");
                    (ours != Some(kernel))
                        .then(|| format!("{}: {ours:?}, kernel {kernel:?}", play.scenario.name))
                })
                .collect();
            if differences.is_empty() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{family:?} of {} connections: {differences:#?}",
                connections.len()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let closes = || {
        let text = std::fs::read_to_string(&seen).expect("what watch wrote");
        text.lines().filter(|line| line.contains("finwait.close/1")).map(str::to_owned).collect::<Vec<_>>()
    };
    until("watch tells the abort", || !closes().is_empty());
    for line in closes() {
        assert!(line.contains(r#""kind":"rst_abort""#), "the filter holds: {line}");
    }
    watch.kill().expect("stopping watch");
    watch.wait().expect("waiting for watch");
    let page = agent.scrape();
    assert!(page.contains("finwait_endpoints{side=\"local\",state=\"time_wait\"}"), "{page}");
    for kind in ["fin_4seg", "rst_abort", "refused"] {
        let closed = page.lines().any(|line| {
            line.starts_with("finwait_connections_closed_total")
                && line.contains(kind)
                && !line.ends_with(" 0")
        });
        assert!(closed || kind == "fin_4seg", "{kind} is counted: {page}");
    }
    for (side, states) in [
        ("remote", ["syn_sent", "established", "fin_wait_1", "fin_wait_2", "close_wait", "last_ack"]),
        ("local", ["syn_received", "established", "fin_wait_1", "fin_wait_2", "close_wait", "last_ack"]),
    ] {
        for state in states {
            let count = format!("finwait_state_duration_seconds_count{{side=\"{side}\",state=\"{state}\"}}");
            let stays = page.lines().filter_map(|line| line.strip_prefix(&count)).collect::<Vec<_>>();
            assert!(stays.len() == 1 && stays[0] != " 0", "times in {state}, {side}, are counted: {page}");
        }
    }
    promtool(&page);
    let stats = agent.stats();
    let ignored: u64 = stats.packets_ignored.values().sum();
    assert_eq!(stats.packets_seen, stats.packets_tracked + ignored);
    assert_eq!(stats.events_lost, 0);

    let typo = agent.cli(&["ls", "stat time-wait"]);
    assert_eq!(typo.status.code(), Some(2), "a typo in a filter is a usage error");

    // A second agent must leave the first alone.
    let second = lab
        .server
        .run(|| {
            Command::new(FINWAIT).args(["run", "--listen", "127.0.0.1:0", "--socket", &agent.socket]).output()
        })
        .expect("entering the namespace")
        .expect("starting a second agent");
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("another agent"));
    assert!(agent.cli(&["status"]).status.success());

    common::send(&agent.process, Signal::SIGTERM);
    assert!(agent.process.wait().expect("waiting").success(), "SIGTERM is a clean stop");
    assert!(!std::path::Path::new(&agent.socket).exists(), "the socket is gone");
    assert_eq!(agent.cli(&["status"]).status.code(), Some(3), "nobody answers: exit code 3");
}

fn socket(state: State) -> State {
    if state == State::Listen { State::Closed } else { state }
}

fn promtool(page: &str) {
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus");
    check.stdin.take().expect("its input").write_all(page.as_bytes()).expect("writing");
    let output = check.wait_with_output().expect("waiting");
    let complaints = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));
}

#[test]
#[ignore = "needs root"]
fn every_close_by_xdp() {
    every_close("xdp");
}

#[test]
#[ignore = "needs root"]
fn every_close_by_tc() {
    every_close("tc");
}
