//! Imports connections that are older than the agent and silent since, from their sockets.
//!
//! A connection with a segment since the start of the agent is in the table already, or its packets have
//! other addresses (NAT). So the list of all sockets is read once, and again only if another interface is
//! watched. An imported flow is removed if its socket has had segments that the programs have not seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use parking_lot::Mutex;
use tcp_common::flow::SocketReport;
use tcp_common::{End, Flow, State};

use super::JUST_BEFORE_MS;
use crate::agent::server::App;
use crate::agent::shared::Shared;
use crate::agent::tuple::{ends, key};
use crate::api::{self, InterfaceStatus};
use crate::clock::monotonic_ns;
use crate::kernel::{Entry, SlotGuard};
use crate::sockets::{Diag, HostContext, KernelSocket, Reason};
use crate::system_error::SystemError;
use crate::view::SocketPair;

/// Imports connections from sockets.
pub(in crate::agent) struct Adopter {
    shared: Arc<Shared>,
    started_at: Timestamp,
    interfaces: Arc<Mutex<Vec<InterfaceStatus>>>,
    /// Interfaces at the last import; `None` if an import is due.
    listed: Option<Vec<InterfaceStatus>>,
}

impl Adopter {
    /// An adopter for an agent with this state.
    pub(in crate::agent) fn new(app: &App) -> Adopter {
        let App { shared, started_at, interfaces } = app.clone();
        Adopter { shared, started_at, interfaces, listed: None }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Imports connections if other interfaces are watched than at the last import.
    pub(super) fn adopt(&mut self, diag: &mut Diag) -> Result<(), SystemError> {
        let watched = self.interfaces.lock().clone();
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
        let mut complete = true;
        for ends in older {
            complete &= self.import(diag, &host, ends)?;
        }
        self.listed = complete.then_some(watched);
        Ok(())
    }

    /// Imports a socket. Returns `false` if it is to be tried again later.
    fn import(&self, diag: &mut Diag, host: &HostContext, ends: SocketPair) -> Result<bool, SystemError> {
        let (key, local) = key(ends);
        let Some(mut slot) = self.shared.table.insert(&key) else { return Ok(true) };
        // Read only after the insertion: a later segment waits for the slot, and the socket knows the earlier
        // ones.
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
        // It was opened before the agent counted, and closed before if it is in TIME-WAIT.
        slot.report();
        drop(slot);
        self.shared.unseen_changes.store(true, Ordering::Relaxed);
        let mut totals = self.shared.totals.lock();
        totals.audit_adopted += 1;
        totals.time_wait_adopted += u64::from(socket.state == State::TimeWait);
        drop(totals);
        tracing::debug!("imported {ends:?} in {:?}", socket.state);
        Ok(true)
    }

    /// Removes an imported flow whose socket has had a segment since that the programs have not seen: its
    /// packets have other addresses. Returns whether it did.
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
        // The programs have seen by now what the socket has sent by now.
        let still_unseen = |slot: &SlotGuard<'_>| {
            slot.key() == entry.key && slot.opened_ns() == adopted_ns && is_unseen(slot)
        };
        let slot = self.shared.table.try_lock(entry.index).filter(still_unseen);
        Ok(slot.map(SlotGuard::remove).is_some())
    }

    fn report(&self, socket: &KernelSocket, now_ns: u64) -> SocketReport {
        let left_ns = u64::from(socket.expires_ms.unwrap_or(0)) * 1_000_000;
        let time_wait_at_ns = (now_ns + left_ns).saturating_sub(self.two_msl_ns());
        let last_ns = match (socket.silent_ms, socket.state) {
            (Some(silent_ms), _) => now_ns.saturating_sub(u64::from(silent_ms) * 1_000_000),
            (None, State::TimeWait) => time_wait_at_ns,
            // The kernel keeps no such time in the minisocket of an orphan in FIN-WAIT-2.
            (None, _) => now_ns,
        };
        SocketReport { state: socket.state, last_ns, time_wait_at_ns, wscale: socket.wscale }
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

/// Whether the FIN waits behind unacknowledged bytes: the next segments show its sequence number.
fn is_in_motion(socket: &KernelSocket) -> bool {
    matches!(socket.state, State::FinWait1 | State::Closing | State::LastAck) && socket.send_queue > 1
}
