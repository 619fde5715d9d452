//! The agent as a user runs it: the binary in one host of the lab, real connections, the CLI and a scraper asking.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use finwait::lab::{Family, Lab, Scenario};
use finwait::view::Connection;
use tcp_common::State;

const FINWAIT: &str = env!("CARGO_BIN_EXE_finwait");

struct Agent<'a> {
    lab: &'a Lab,
    process: Child,
    socket: String,
}

impl<'a> Agent<'a> {
    fn start(lab: &'a Lab, name: &str, arguments: &[&str]) -> Agent<'a> {
        let socket = format!("{}/{name}.sock", env!("CARGO_TARGET_TMPDIR"));
        let mut command = Command::new(FINWAIT);
        command.args(["run", "--socket", &socket]).args(arguments).stderr(Stdio::inherit());
        let process =
            lab.server.run(|| command.spawn()).expect("entering the namespace").expect("starting the agent");
        let agent = Agent { lab, process, socket };
        agent.until("it answers", || agent.cli(&["status"]).status.success());
        agent
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(FINWAIT)
            .args(arguments)
            .args(["--socket", &self.socket])
            .output()
            .expect("running the CLI")
    }

    fn connections(&self) -> Vec<Connection> {
        let output = self.cli(&["ls", "--all", "-o", "ndjson"]);
        let lines = String::from_utf8(output.stdout).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("a connection")).collect()
    }

    fn scrape(&self) -> String {
        self.lab
            .server
            .run(|| {
                let mut stream = TcpStream::connect("127.0.0.1:9817").expect("connecting to the exporter");
                stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("asking");
                let mut page = String::new();
                stream.read_to_string(&mut page).expect("reading");
                page.split_once("\r\n\r\n").expect("a header and a body").1.to_owned()
            })
            .expect("entering the namespace")
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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
    std::thread::sleep(Duration::from_millis(300));
    for family in Family::ALL {
        if !lab.supports(family) {
            continue;
        }
        let played: Vec<_> = Scenario::perform_all(&lab, family)
            .into_iter()
            .map(|result| result.expect("a scenario"))
            .collect();
        let deadline = Instant::now() + Duration::from_secs(8);
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
    agent.until("watch tells the abort", || !closes().is_empty());
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
    promtool(&page);
    let stats: serde_json::Value =
        serde_json::from_slice(&agent.cli(&["stats", "-o", "json"]).stdout).expect("statistics");
    let ignored: u64 = stats["packets_ignored"]
        .as_object()
        .expect("reasons")
        .values()
        .filter_map(|count| count.as_u64())
        .sum();
    assert!(stats["packets_seen"].as_u64() >= Some(ignored));
    assert_eq!(stats["events_lost"], 0);

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

    // SAFETY of the signal: our own child.
    let stopped = Command::new("kill").arg(agent.process.id().to_string()).status().expect("kill");
    assert!(stopped.success());
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
fn every_close_by_xdp() {
    every_close("xdp");
}

#[test]
fn every_close_by_tc() {
    every_close("tc");
}

#[test]
fn bad_input_is_a_clear_error() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(FINWAIT);
        command.args(arguments);
        lab.server.run(|| command.output()).expect("entering the namespace").expect("running")
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let unknown = run(&["run", "-i", "eth77", "--socket", "/dev/null/x"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("eth77") && text(&unknown).contains("veth-server"), "{}", text(&unknown));
    let state = run(&["run", "--timeout", "fin_wait_9=3s"]);
    assert_eq!(state.status.code(), Some(2));
    assert!(text(&state).contains("fin_wait_1"), "{}", text(&state));
    let _taken = lab
        .server
        .run(|| std::net::TcpListener::bind("127.0.0.1:9817"))
        .expect("namespace")
        .expect("binding");
    let socket = format!("{}/bad.sock", env!("CARGO_TARGET_TMPDIR"));
    let port = run(&["run", "--socket", &socket]);
    assert_eq!(port.status.code(), Some(1));
    assert!(text(&port).contains("--listen"), "{}", text(&port));
    let dry = run(&["run", "--dry-run", "--ingress", "tc"]);
    assert!(dry.status.success() && String::from_utf8_lossy(&dry.stdout).contains("would watch veth-server"));
}
