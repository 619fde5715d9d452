//! The finwait agent as a user runs it, one on each host, queried through its CLI.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use finwait::api::{Stats, Status};
use finwait::lab::Host;
use finwait::view::{Close, Connection};

/// A running agent, and a `watch` that records every close.
pub(crate) struct Agent {
    binary: PathBuf,
    socket: PathBuf,
    closes: PathBuf,
    agent: Child,
    watch: Child,
}

impl Agent {
    /// Starts the agent on the interface of `host` and waits until it answers.
    pub(crate) fn start(
        host: &Host,
        binary: &Path,
        folder: &Path,
        ingress: &str,
        max_flows: u64,
    ) -> Result<Agent> {
        let (socket, closes) =
            (folder.join(format!("{ingress}.sock")), folder.join(format!("closes-{ingress}.ndjson")));
        let mut run = Command::new(binary);
        run.args(["run", "--listen", "127.0.0.1:0", "--interface", host.interface, "--ingress", ingress])
            // The storm tests what the packets show, not what the socket check corrects.
            .args(["--audit-interval", "0"])
            .args(["--max-flows", &max_flows.to_string(), "--socket"])
            .arg(&socket)
            .stderr(File::create(folder.join(format!("agent-{ingress}.log")))?);
        let agent = host.run(|| run.spawn())?.with_context(|| format!("starting {}", binary.display()))?;
        let until = Instant::now() + START_LIMIT;
        while !query(binary, &socket, &["status"])?.status.success() {
            if Instant::now() > until {
                bail!(
                    "the agent did not start: see {}",
                    folder.join(format!("agent-{ingress}.log")).display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let watch = Command::new(binary)
            .args(["watch", "client state closed and server state closed", "-o", "ndjson", "--socket"])
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
        lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }

    /// The agent's losses: events, evicted flows, segments without a slot, segments of a contended slot.
    pub(crate) fn losses(&self) -> Result<Vec<(&'static str, u64)>> {
        let query = |command| Ok(query(&self.binary, &self.socket, &[command, "-o", "json"])?.stdout);
        let answers: Result<Vec<_>> = ["status", "stats"].into_iter().map(query).collect();
        let [status, stats] = &answers?[..] else { bail!("two answers") };
        let (status, stats): (Status, Stats) =
            (serde_json::from_slice(status)?, serde_json::from_slice(stats)?);
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

    /// Whether the `watch` has printed anything yet.
    pub(crate) fn has_reported(&self) -> Result<bool> {
        Ok(std::fs::metadata(&self.closes)?.len() > 0)
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
                closes.push(close.connection);
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

fn query(binary: &Path, socket: &Path, arguments: &[&str]) -> Result<std::process::Output> {
    Ok(Command::new(binary).args(arguments).arg("--socket").arg(socket).output()?)
}

const START_LIMIT: Duration = Duration::from_secs(20);
