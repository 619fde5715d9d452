//! Takes back a close that a RST was believed to have caused, if the socket of an end is found alive: its host
//! ignored the RST, because of TCP-MD5, TCP-AO or a firewall.

use std::sync::atomic::Ordering;

use tcp_common::record::reported;
use tcp_common::{End, State};

use super::{SocketReconciler, ends};
use crate::agent::change::Change;
use crate::clock::monotonic_ns;
use crate::kernel::Entry;
use crate::sockets::Diag;
use crate::system_error::SystemError;
use crate::view::ReopenReason;

impl SocketReconciler {
    /// Whether an end of this host is to be looked up although a RST has ended the flow. The RST is so old that
    /// the host has processed it.
    pub(super) fn is_doubtful(&self, entry: &Entry, now_ns: u64) -> bool {
        entry.flow.is_over() && entry.flow.is_refutable() && self.is_silent(entry, now_ns)
    }

    /// Reopens a flow if the socket of one of its ends is connected.
    pub(super) fn reopen_if_alive(&self, entry: &Entry, diag: &mut Diag) -> Result<(), SystemError> {
        for end in [End::A, End::B].into_iter().filter(|&end| entry.flow.is_local(end)) {
            let (local, remote) = ends(&entry.key, end);
            if diag.find(local, remote)?.is_some_and(|socket| is_connected(socket.state)) {
                self.reopen(entry);
                break;
            }
        }
        Ok(())
    }

    /// Reopens a flow in the table, unless a segment has arrived.
    fn reopen(&self, entry: &Entry) {
        // If the slot is locked, a segment is being applied. The next check comes back to it.
        let Some(mut slot) = self.shared.table.try_lock(entry.index) else { return };
        let identity = (slot.key(), slot.incarnation(), slot.last_ns());
        if identity != (entry.key, entry.flow.incarnation(), entry.flow.last_ns()) {
            return;
        }
        let at_ns = monotonic_ns();
        let Some(outcome) = slot.reopen(at_ns) else { return };
        let reports = slot.report();
        let (flow, hook) = (*slot, slot.hook());
        drop(slot);
        self.shared.unseen_changes.store(true, Ordering::Relaxed);
        let (key, from, to, cause) = (&entry.key, outcome.from, outcome.to, outcome.cause);
        let change = Change { key, flow: &flow, hook, at_ns, from, to, cause, segment: None };
        self.shared.histories.lock().record(entry.index, &change);
        let mut totals = self.shared.totals.lock();
        totals.count_outcome(&flow, &outcome);
        self.shared.publish_transitions(&change);
        if reports & reported::CLOSE != 0 {
            self.shared.report_reopened(&mut totals, &change, ReopenReason::SocketAlive);
        }
        drop(totals);
        tracing::debug!("socket alive after a RST: {:?}", ends(key, End::A));
    }
}

/// Whether a socket in this state has not been reset, and is no later one with the same addresses.
fn is_connected(state: State) -> bool {
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
    matches!(state, Established | FinWait1 | FinWait2 | CloseWait | Closing | LastAck)
}
