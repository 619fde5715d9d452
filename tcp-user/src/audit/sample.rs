//! Both views at nearly one moment.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use tcp_common::State;

use super::conntrack::Entries;
use crate::api::client;
use crate::sockets::{Diag, KernelSocket, tracked};
use crate::view::{Connection, SocketPair};

/// What agent and kernel said.
#[derive(Default)]
pub(super) struct Sample {
    /// The agent's connections.
    pub(super) connections: Vec<Connection>,
    /// The kernel's sockets that have a peer. Usually one; two devices bound apart may have the same ends.
    pub(super) sockets: HashMap<SocketPair, Vec<KernelSocket>>,
    /// Ports on which it listens, and on how many sockets.
    pub(super) listening: HashMap<u16, u64>,
    /// What conntrack follows, if that was asked for.
    pub(super) conntrack: Option<Entries>,
}

impl Sample {
    /// Asks both, and conntrack if it is to be asked.
    pub(super) async fn take(agent: &Path, conntrack: bool) -> Result<Sample> {
        let mut sample = Sample::default();
        // What is over is asked for too: a socket that the agent takes for closed is a difference.
        let mut answer = client::get(agent, "/connections?all=true").await?;
        while let Some(line) = answer.line().await? {
            sample.connections.push(serde_json::from_slice(&line).context("reading the agent's answer")?);
        }
        tokio::task::spawn_blocking(move || {
            Diag::open()?.for_each(|socket| sample.add(socket))?;
            if conntrack {
                sample.conntrack = Some(tracked()?.into_iter().collect());
            }
            Ok(sample)
        })
        .await?
    }

    pub(super) fn add(&mut self, socket: KernelSocket) {
        match socket.state {
            State::Listen => *self.listening.entry(socket.local.port()).or_default() += 1,
            // Bound, or not even that: no connection.
            _ if socket.remote.port() == 0 => {}
            _ => self.sockets.entry((socket.local, socket.remote)).or_default().push(socket),
        }
    }
}
