//! The agent as a user runs it: the real binary on the server's host of a lab, queried by the CLI and
//! scraped.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "several test programs include this file, each uses what it needs"
)]

pub mod counts;
pub mod nginx;
pub mod oracle;
pub mod watch;

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use finwait::api::{Stats, Status};
use finwait::lab::{Lab, Namespace};
use finwait::view::{Connection, State};
pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// The binary under test.
pub const FINWAIT: &str = env!("CARGO_BIN_EXE_finwait");

/// A running agent. Dropping it kills the process.
pub struct Agent<'a> {
    pub process: Child,
    pub socket: String,
    namespace: &'a Namespace,
}

impl<'a> Agent<'a> {
    /// Starts `finwait run` on the server's host and waits until it answers. `name` is the name of its
    /// socket.
    pub fn start(lab: &'a Lab, name: &str, arguments: &[&str]) -> Agent<'a> {
        Agent::start_in(lab.server.namespace(), name, arguments)
    }

    /// Starts `finwait run` in a namespace and waits until it answers. `name` is the name of its socket.
    pub fn start_in(namespace: &'a Namespace, name: &str, arguments: &[&str]) -> Agent<'a> {
        let socket = format!("{}/{name}.sock", env!("CARGO_TARGET_TMPDIR"));
        let mut command = Command::new(FINWAIT);
        command.args(["run", "--socket", &socket]).args(arguments);
        Agent::wait_for(namespace, &socket, command.stderr(Stdio::inherit()))
    }

    /// Starts an agent with this command and waits until it answers on `socket`.
    pub fn start_by(lab: &'a Lab, socket: &str, command: &mut Command) -> Agent<'a> {
        Agent::wait_for(lab.server.namespace(), socket, command.stderr(Stdio::inherit()))
    }

    /// Starts an agent in a namespace with this command and waits until it answers on `socket`.
    pub fn start_by_in(namespace: &'a Namespace, socket: &str, command: &mut Command) -> Agent<'a> {
        Agent::wait_for(namespace, socket, command.stderr(Stdio::inherit()))
    }

    /// Starts an agent with this command, writes its log to a file, and waits until it answers on `socket`.
    pub fn start_logging(lab: &'a Lab, socket: &str, command: &mut Command, log: File) -> Agent<'a> {
        Agent::wait_for(lab.server.namespace(), socket, command.stderr(log))
    }

    fn wait_for(namespace: &'a Namespace, socket: &str, command: &mut Command) -> Agent<'a> {
        let process = namespace.run(|| command.spawn()).expect("entering the namespace");
        let process = process.expect("starting the agent");
        let mut agent = Agent { process, socket: socket.into(), namespace };
        // The kernel's verifier is slow on a busy machine.
        until_within(Duration::from_secs(120), "the agent answers", || {
            assert_eq!(agent.process.try_wait().expect("looking at the agent"), None, "the agent ended");
            agent.cli(&["status"]).status.success()
        });
        agent
    }

    /// Sends a signal to the agent and waits for its exit.
    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        send(&self.process, signal);
        self.process.wait().expect("waiting for the agent")
    }

    /// Returns the agent's status.
    pub fn status(&self) -> Status {
        let output = self.cli(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).expect("a status")
    }

    /// Waits until this number of clients receive the agent's events.
    pub fn wait_for_watchers(&self, count: u64) {
        until("the watchers are connected", || self.status().watchers == count);
    }

    /// Runs another command of the binary against this agent.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(FINWAIT)
            .args(arguments)
            .args(["--socket", &self.socket])
            .output()
            .expect("running the CLI")
    }

    /// Returns every connection in the table, including closed ones.
    pub fn connections(&self) -> Vec<Connection> {
        let output = self.cli(&["ls", "--all", "-o", "ndjson"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "ls: {}", output.status);
        let lines = String::from_utf8(output.stdout).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("a connection")).collect()
    }

    /// Returns the agent's statistics.
    pub fn stats(&self) -> Stats {
        let output = self.cli(&["stats", "-o", "json"]);
        serde_json::from_slice(&output.stdout).expect("statistics")
    }

    /// Returns the metrics page as a scrape receives it.
    pub fn scrape(&self) -> String {
        http_get(self.namespace, "127.0.0.1:9817", "/metrics")
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a program on a host.
pub fn spawn(host: &impl AsRef<Namespace>, command: &mut Command) -> Child {
    let name = format!("{command:?}");
    host.as_ref()
        .run(|| command.spawn())
        .expect("entering the namespace")
        .unwrap_or_else(|error| panic!("starting {name}: {error}"))
}

/// A background program. Dropping it stops the program.
pub struct Daemon(pub Child);

impl Daemon {
    /// Starts the program on a host.
    pub fn start(host: &impl AsRef<Namespace>, command: &mut Command) -> Daemon {
        Daemon(spawn(host, command))
    }
}

impl Drop for Daemon {
    /// Sends SIGTERM, so that the program can stop its own children.
    fn drop(&mut self) {
        let _ = kill(pid(&self.0), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Sends a signal to a child.
pub fn send(child: &Child, signal: Signal) {
    kill(pid(child), signal).expect("sending a signal to a child");
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("the kernel's process ids are positive"))
}

/// Runs a program on a host and returns its output. Panics if the program fails.
pub fn call(host: &impl AsRef<Namespace>, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = host.as_ref().run(|| command.output()).expect("entering the namespace").expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes an empty folder that every user can read. Other users may have no access to the target folder.
pub fn public_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("finwait-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("making a folder");
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("its mode");
    folder
}

/// Makes an empty folder of this name in the target folder.
pub fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("making a folder");
    folder
}

/// Returns the number of transitions on this side in a metrics page, from one state or from any state.
pub fn transitions(page: &str, side: &str, from: Option<State>, to: State) -> u64 {
    let labelled = |line: &str, label: &str, value: &str| line.contains(&format!("{label}=\"{value}\""));
    page.lines()
        .filter(|line| line.starts_with("finwait_transitions_total{"))
        .filter(|line| labelled(line, "side", side) && labelled(line, "to", to.name()))
        .filter(|line| from.is_none_or(|from| labelled(line, "from", from.name())))
        .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}

/// Sends an HTTP request to a server in a namespace and returns the body.
pub fn http_get(host: &Namespace, server: &str, path: &str) -> String {
    host.run(|| {
        let mut stream = TcpStream::connect(server).expect("connecting");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("asking");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reading");
        answer.split_once("\r\n\r\n").expect("a header and a body").1.to_owned()
    })
    .expect("entering the namespace")
}

/// Waits for a condition for at most [`LIMIT`].
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(LIMIT, what, condition);
}

/// Waits until both are equal, and shows both if they never are.
pub fn until_equal<T: PartialEq + std::fmt::Debug>(actual: impl Fn() -> T, expected: T) {
    let deadline = Instant::now() + LIMIT;
    while actual() != expected {
        assert!(Instant::now() < deadline, "waited in vain for {expected:?}, found {:?}", actual());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for a condition for at most `limit`.
pub fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Longer than any wait takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
