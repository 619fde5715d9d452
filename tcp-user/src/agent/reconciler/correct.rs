//! Corrects the states of flows whose socket is in another state, because the host's firewall dropped a FIN.

use std::sync::atomic::Ordering;

use tcp_common::{Cause, End, Flow, State};

use super::{SocketReconciler, Standing, Suspect};
use crate::agent::change::Change;
use crate::clock::monotonic_ns;
use crate::sockets::KernelSocket;

/// Whether the state of the socket corrects that of the end. A FIN that waits behind other bytes is no
/// correction: the next segments show where it ends.
pub(super) fn is_correction(flow: &Flow, end: End, socket: &KernelSocket) -> bool {
    let waits = matches!(socket.state, State::FinWait1 | State::LastAck) && socket.send_queue > 1;
    let mut corrected = *flow;
    !waits && corrected.correct(monotonic_ns(), end, socket.state).is_some()
}

impl SocketReconciler {
    /// Corrects a flow in the table, unless a segment has arrived.
    pub(super) fn correct(&self, suspect: &Suspect) {
        let Some(mut slot) = self.lock(suspect) else { return };
        let now_ns = monotonic_ns();
        let outcomes = [End::A, End::B].map(|end| match suspect.found[end as usize] {
            Standing::In(state) => slot.correct(now_ns, end, state),
            Standing::Fine | Standing::Missing => None,
        });
        let (flow, hook) = (*slot, slot.hook());
        drop(slot);
        self.shared.unseen_changes.store(true, Ordering::Relaxed);
        for outcome in outcomes.into_iter().flatten() {
            self.shared.totals.lock().count_outcome(&flow, &outcome);
            let (key, from, to, cause) = (&suspect.key, outcome.from, outcome.to, Cause::SocketCheck);
            let change = Change { key, flow: &flow, hook, at_ns: now_ns, from, to, cause, segment: None };
            self.shared.histories.lock().record(suspect.index, &change);
            self.shared.publish_transitions(&change);
        }
    }
}
