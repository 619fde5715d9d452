//! The agent as a user runs it, one in each host: the binary itself, asked by its own CLI.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tcp_common::FlowKey;

use super::trail::key;
use crate::lab::Host;
use crate::view::{Close, Connection};

/// A running agent, and a `watch` that keeps every close.
pub(super) struct Agent {
    binary: PathBuf,
    socket: PathBuf,
    closes: PathBuf,
    agent: Child,
    watch: Child,
}

impl Agent {
    /// Starts it on the interface of `host`.
    pub(super) fn start(
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
            .args(["--max-flows", &max_flows.to_string(), "--socket"])
            .arg(&socket)
            .stderr(File::create(folder.join(format!("agent-{ingress}.log")))?);
        let agent = host.run(|| run.spawn())?.with_context(|| format!("starting {}", binary.display()))?;
        let until = Instant::now() + START_LIMIT;
        while !ask(binary, &socket, &["status"])?.status.success() {
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

    /// Every connection that it has, those too that are over.
    pub(super) fn list(&self) -> Result<Vec<Connection>> {
        let output = ask(&self.binary, &self.socket, &["ls", "--all", "-o", "ndjson"])?;
        let lines = output.stdout.split(|&octet| octet == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }

    /// What its `status` says.
    pub(super) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&ask(&self.binary, &self.socket, &["status", "-o", "json"])?.stdout)?)
    }

    /// The close records so far, by flow and incarnation.
    pub(super) fn closes(&self) -> Result<HashMap<(FlowKey, u32), Connection>> {
        let mut closes = HashMap::new();
        for line in BufReader::new(File::open(&self.closes)?).lines() {
            let line = line?;
            if !line.contains("finwait.close/1") {
                continue;
            }
            // The last line may be half written.
            if let Ok(close) = serde_json::from_str::<Close>(&line) {
                let connection = close.connection;
                let (client, server) =
                    (connection.client.socket_address(), connection.server.socket_address());
                closes.insert((key(client, server), connection.incarnation), connection);
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

fn ask(binary: &Path, socket: &Path, arguments: &[&str]) -> Result<std::process::Output> {
    Ok(Command::new(binary).args(arguments).arg("--socket").arg(socket).output()?)
}

const START_LIMIT: Duration = Duration::from_secs(20);
