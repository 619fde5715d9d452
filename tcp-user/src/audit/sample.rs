//! A sample: what agent and kernel say at nearly the same moment.

use std::collections::HashMap;
use std::path::Path;

use tcp_common::State;

use super::conntrack::Entries;
use super::error::AuditError;
use crate::api::client;
use crate::sockets::{Diag, KernelSocket, tracked};
use crate::view::{Connection, SocketPair};

/// What agent and kernel say.
#[derive(Default)]
pub(super) struct Sample {
    /// Connections of the agent.
    pub(super) connections: Vec<Connection>,
    /// Connected sockets of the kernel. Several sockets have the same addresses only if they are bound to
    /// different devices.
    pub(super) sockets: HashMap<SocketPair, Vec<KernelSocket>>,
    /// Number of listening sockets by port.
    pub(super) listening: HashMap<u16, u64>,
    /// Number of sockets that neither listen nor are connected.
    pub(super) unconnected: u64,
    /// Connections that conntrack tracks, if requested.
    pub(super) conntrack: Option<Entries>,
}

impl Sample {
    /// Queries agent and kernel, and conntrack if requested.
    pub(super) async fn take(agent: &Path, conntrack: bool) -> Result<Sample, AuditError> {
        let mut sample = Sample::default();
        // Closed connections too: a socket of a connection that the agent takes for closed is a difference.
        let mut answer = client::get(agent, "/connections?all=true&own=true").await?;
        while let Some(line) = answer.line().await? {
            sample.connections.push(serde_json::from_slice(&line)?);
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

    /// The kernel's sockets with these addresses, the own one first.
    pub(super) fn sockets_of(&self, ends: &SocketPair) -> &[KernelSocket] {
        self.sockets.get(ends).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add(&mut self, socket: KernelSocket) {
        match socket.state {
            State::Listen => *self.listening.entry(socket.local.port()).or_default() += 1,
            _ if socket.remote.port() == 0 => self.unconnected += 1,
            _ => self.sockets.entry((socket.local, socket.remote)).or_default().push(socket),
        }
    }
}
