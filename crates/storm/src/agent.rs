//! The finwait agent as a user runs it, one on each host, queried through its CLI. Its records are given with
//! the canonical addresses.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use finwait::api::{Stats, Status};
use finwait::lab::Namespace;
use finwait::view::{Close, Connection};
use serde::de::DeserializeOwned;

use crate::world::canonical;

/// A running agent, and a `watch` that records every close.
pub(crate) struct Agent {
    binary: PathBuf,
    socket: PathBuf,
    closes: PathBuf,
    agent: Child,
    watch: Child,
}

/// How an agent is started.
pub(crate) struct Setup<'a> {
    /// Name of its files.
    pub(crate) name: &'a str,
    pub(crate) binary: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) interfaces: &'a [&'a str],
    pub(crate) ingress: &'a str,
    /// Options that say how the hosts behave.
    pub(crate) rules: &'a [&'a str],
    pub(crate) max_flows: u64,
}

impl Agent {
    /// Starts the agent on these interfaces of a host and waits until it answers.
    pub(crate) fn start(host: &Namespace, setup: &Setup<'_>) -> Result<Agent> {
        let Setup { name, binary, folder, interfaces, ingress, rules, max_flows } = *setup;
        let file = |kind: &str| folder.join(format!("{name}.{kind}"));
        let (socket, closes, log) = (file("sock"), file("closes.ndjson"), file("log"));
        let mut run = Command::new(binary);
        run.args(["run", "--listen", "127.0.0.1:0", "--ingress", ingress])
            .args(interfaces.iter().flat_map(|interface| ["--interface", interface]))
            .args(rules)
            // The storm tests what the packets show, not what the socket check corrects.
            .args(["--audit-interval", "0"])
            .args(["--max-flows", &max_flows.to_string(), "--socket"])
            .arg(&socket)
            .stderr(File::create(&log)?);
        let agent = host.run(|| run.spawn())?.with_context(|| format!("starting {}", binary.display()))?;
        let until = Instant::now() + START_LIMIT;
        while !query(binary, &socket, &["status"])?.status.success() {
            if Instant::now() > until {
                bail!("the agent did not start: see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let watch = Command::new(binary)
            .args(["watch", CLOSES, "-o", "ndjson", "--socket"])
            .arg(&socket)
            .stdout(File::create(&closes)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Agent { binary: binary.to_owned(), socket, closes, agent, watch })
    }

    /// All connections, including closed ones that are remembered.
    pub(crate) fn list(&self) -> Result<Vec<Connection>> {
        let output = query(&self.binary, &self.socket, &["ls", "--all", "-o", "ndjson"])?;
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Ok(with_canonical_addresses(serde_json::from_slice(line)?))).collect()
    }

    /// The agent's losses: events, evicted flows, segments without a slot, segments of a contended slot.
    pub(crate) fn losses(&self) -> Result<Vec<(&'static str, u64)>> {
        let (status, stats): (Status, Stats) = (self.answer("status")?, self.answer("stats")?);
        let ignored = |reason| stats.packets_ignored.get(reason).copied().unwrap_or_default();
        let mut losses = vec![
            ("events lost", status.events_lost),
            ("flows evicted", status.evicted),
            ("segments without a slot", ignored("table_full")),
            ("segments contended", ignored("contended")),
        ];
        losses.retain(|&(_, count)| count > 0);
        Ok(losses)
    }

    /// Waits until the `watch` receives events. From then on it misses none.
    pub(crate) fn wait_for_watch(&self) -> Result<()> {
        let until = Instant::now() + START_LIMIT;
        while self.answer::<Status>("status")?.watchers == 0 {
            ensure!(Instant::now() < until, "`watch` did not connect");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn answer<T: DeserializeOwned>(&self, command: &str) -> Result<T> {
        let output = query(&self.binary, &self.socket, &[command, "-o", "json"])?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The close records so far.
    pub(crate) fn closes(&self) -> Result<Vec<Connection>> {
        let mut closes = Vec::new();
        for line in BufReader::new(File::open(&self.closes)?).lines() {
            let line = line?;
            if !line.contains("finwait.close/1") {
                continue;
            }
            // The last line may be incomplete.
            if let Ok(close) = serde_json::from_str::<Close>(&line) {
                closes.push(with_canonical_addresses(close.connection));
            }
        }
        Ok(closes)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for child in [&mut self.watch, &mut self.agent] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn with_canonical_addresses(mut connection: Connection) -> Connection {
    for end in [&mut connection.client, &mut connection.server] {
        end.address = canonical(end.socket_address()).ip();
    }
    connection
}

fn query(binary: &Path, socket: &Path, arguments: &[&str]) -> Result<std::process::Output> {
    Ok(Command::new(binary).args(arguments).arg("--socket").arg(socket).output()?)
}

/// Selects, among others, the closes that are complete: a TIME-WAIT goes on after the close was reported. With NAT, a FIN
/// that was sent again may have put the other end back into LAST-ACK when the agent reads the event.
const CLOSES: &str = "state closed or state time_wait";
/// The kernel's verifier is slow on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
