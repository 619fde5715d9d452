//! The agent as a user runs it, for tests: the real binary in the server's host of a lab, asked by the CLI and scraped.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "several test programs include this file, each uses what it needs"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use finwait::agent::report::Stats;
use finwait::lab::{Host, Lab};
use finwait::view::Connection;

/// The binary under test.
pub const FINWAIT: &str = env!("CARGO_BIN_EXE_finwait");

/// A running agent; killed when dropped.
pub struct Agent<'a> {
    pub process: Child,
    pub socket: String,
    lab: &'a Lab,
}

impl<'a> Agent<'a> {
    /// Starts `finwait run` in the server's host and waits until it answers. `name`: of its socket.
    pub fn start(lab: &'a Lab, name: &str, arguments: &[&str]) -> Agent<'a> {
        let socket = format!("{}/{name}.sock", env!("CARGO_TARGET_TMPDIR"));
        let mut command = Command::new(FINWAIT);
        command.args(["run", "--socket", &socket]).args(arguments).stderr(Stdio::inherit());
        let agent = Agent { process: spawn(&lab.server, &mut command), socket, lab };
        until("the agent answers", || agent.cli(&["status"]).status.success());
        agent
    }

    /// Runs another command of the binary against this agent.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(FINWAIT)
            .args(arguments)
            .args(["--socket", &self.socket])
            .output()
            .expect("running the CLI")
    }

    /// Every connection in the table, those too that are over.
    pub fn connections(&self) -> Vec<Connection> {
        let output = self.cli(&["ls", "--all", "-o", "ndjson"]);
        let lines = String::from_utf8(output.stdout).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("a connection")).collect()
    }

    /// The totals.
    pub fn stats(&self) -> Stats {
        let output = self.cli(&["stats", "-o", "json"]);
        serde_json::from_slice(&output.stdout).expect("statistics")
    }

    /// The page that Prometheus gets.
    pub fn scrape(&self) -> String {
        http_get(&self.lab.server, "127.0.0.1:9817", "/metrics")
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a program in a host of the lab.
pub fn spawn(host: &Host, command: &mut Command) -> Child {
    let name = format!("{command:?}");
    host.run(|| command.spawn())
        .expect("entering the namespace")
        .unwrap_or_else(|error| panic!("starting {name}: {error}"))
}

/// The body that a server in a host of the lab answers with.
pub fn http_get(host: &Host, server: &str, path: &str) -> String {
    host.run(|| {
        let mut stream = TcpStream::connect(server).expect("connecting");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("asking");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reading");
        answer.split_once("\r\n\r\n").expect("a header and a body").1.to_owned()
    })
    .expect("entering the namespace")
}

/// Waits for a condition, 20 s at most.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(Duration::from_secs(20), what, condition);
}

/// Waits for a condition.
pub fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
