//! Takes in connections that are older than the agent and silent since, as their sockets tell: both kernels know them, and
//! no segment has told the programs of them.
//!
//! Whoever has spoken since the agent began is in the table already, or his packets are not to be seen under this name
//! (NAT). So the list of all sockets is asked for once, and again only when another interface is watched; and who speaks
//! later without being seen is given up.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tcp_common::flow::SocketReport;
use tcp_common::record::reported;
use tcp_common::{End, Endpoint, Flow, FlowKey, State};

use super::{JUST_BEFORE_MS, ends};
use crate::agent::lock::lock;
use crate::agent::server::App;
use crate::agent::shared::Shared;
use crate::api::{self, InterfaceStatus};
use crate::clock::monotonic_ns;
use crate::kernel::{Entry, SlotGuard};
use crate::sockets::{Diag, HostContext, KernelSocket, Reason};
use crate::system_error::SystemError;
use crate::view::SocketPair;

/// What makes flows of sockets.
pub(in crate::agent) struct Adopter {
    shared: Arc<Shared>,
    started_at: Timestamp,
    watched: Arc<Mutex<Vec<InterfaceStatus>>>,
    /// What was watched when the sockets were listed last; `None`: they are to be listed.
    listed: Option<Vec<InterfaceStatus>>,
}

impl Adopter {
    /// For the agent that answers so.
    pub(in crate::agent) fn new(app: &App) -> Adopter {
        let App { shared, started_at, watched } = app.clone();
        Adopter { shared, started_at, watched, listed: None }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Adopts what is to be adopted, if there can be anything.
    pub(super) fn adopt(&mut self, diag: &mut Diag) -> Result<(), SystemError> {
        let watched = lock(&self.watched).clone();
        if self.listed.as_ref() == Some(&watched) {
            return Ok(());
        }
        let host = HostContext::read(api::watched(&watched), self.started_at, self.two_msl_ns() / 1_000_000);
        let (now, mut older) = (Timestamp::now(), Vec::new());
        diag.for_each(|socket| {
            let ends = (socket.local, socket.remote);
            if is_connection(socket.state)
                && host.why_unknown(&socket, now) == Reason::Early
                && self.shared.table.find(&key(ends).0).is_none()
            {
                older.push(ends);
            }
        })?;
        let mut settled = true;
        for ends in older {
            settled &= self.take(diag, &host, ends)?;
        }
        self.listed = settled.then_some(watched);
        Ok(())
    }

    /// Makes a flow of a socket. Returns whether that is settled, be it that it cannot be done.
    fn take(&self, diag: &mut Diag, host: &HostContext, ends: SocketPair) -> Result<bool, SystemError> {
        let (key, local) = key(ends);
        let Some(mut slot) = self.shared.table.insert(&key) else { return Ok(true) };
        // Only now: a segment that comes from here on waits for the slot, and what one did before is known to the socket.
        let socket = match diag.inspect(ends.0, ends.1) {
            Ok(Some(socket)) if !is_in_motion(&socket) => socket,
            other => {
                slot.remove();
                return other.map(|socket| socket.is_none());
            }
        };
        let now_ns = monotonic_ns();
        match Flow::adopted(now_ns, local, &self.report(&socket, now_ns)) {
            Some(flow) => *slot = flow,
            None => {
                slot.remove();
                return Ok(true);
            }
        }
        slot.set_local(local.peer(), host.is_here(ends.1.ip()));
        // It was opened, and a TIME-WAIT closed, before anybody counted.
        slot.set_reported(reported::OPEN);
        if socket.state == State::TimeWait {
            slot.set_reported(reported::CLOSE);
        }
        drop(slot);
        self.shared.unseen_changes.store(true, Ordering::Relaxed);
        lock(&self.shared.totals).audit_adopted += 1;
        tracing::debug!("older than the agent: {ends:?} in {:?}", socket.state);
        Ok(true)
    }

    /// Retires a flow whose socket has spoken since it was adopted, though nothing of it has been seen: its packets have
    /// another name. Returns whether it did.
    pub(super) fn give_up(&self, entry: &Entry, diag: &mut Diag) -> Result<bool, SystemError> {
        if !is_unseen(&entry.flow) {
            return Ok(false);
        }
        let local = if entry.flow.is_local(End::A) { End::A } else { End::B };
        let (own, remote) = ends(&entry.key, local);
        let Some(silent_ms) = diag.inspect(own, remote)?.and_then(|socket| socket.silent_ms) else {
            return Ok(false);
        };
        let adopted_ns = entry.flow.opened_ns();
        let adopted_ms = u128::from(monotonic_ns().saturating_sub(adopted_ns) / 1_000_000);
        if u128::from(silent_ms) + JUST_BEFORE_MS >= adopted_ms {
            return Ok(false);
        }
        // What the socket has sent by now, the programs have seen by now.
        let still_unseen = |slot: &SlotGuard<'_>| {
            slot.key() == entry.key && slot.opened_ns() == adopted_ns && is_unseen(slot)
        };
        let slot = self.shared.table.try_lock(entry.index).filter(still_unseen);
        Ok(slot.map(SlotGuard::remove).is_some())
    }

    fn report(&self, socket: &KernelSocket, now_ns: u64) -> SocketReport {
        let left_ns = u64::from(socket.expires_ms.unwrap_or(0)) * 1_000_000;
        let time_wait_at_ns = (now_ns + left_ns).saturating_sub(self.two_msl_ns());
        SocketReport { state: socket.state, time_wait_at_ns, wscale: socket.wscale }
    }

    fn two_msl_ns(&self) -> u64 {
        self.shared.rules.time_wait_local_ns
    }
}

fn is_unseen(flow: &Flow) -> bool {
    flow.is_adopted() && [End::A, End::B].iter().all(|&end| flow.end(end).segments() == 0)
}

fn is_connection(state: State) -> bool {
    !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived | State::Unknown)
}

/// Whether its FIN waits behind octets that are not acknowledged: where it is the next segments tell, and soon.
fn is_in_motion(socket: &KernelSocket) -> bool {
    matches!(socket.state, State::FinWait1 | State::Closing | State::LastAck) && socket.send_queue > 1
}

/// The key of a socket's packets, and which end the socket is.
fn key((local, remote): SocketPair) -> (FlowKey, End) {
    let family = if local.is_ipv4() { 4 } else { 6 };
    FlowKey::new(endpoint(local), endpoint(remote), 0, family)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    match address.ip() {
        IpAddr::V4(ip) => Endpoint::v4(ip.octets(), address.port()),
        IpAddr::V6(ip) => Endpoint::v6(ip.octets(), address.port()),
    }
}
