//! What a change of a flow reports: opens, closes, closes taken back and ends of a TIME-WAIT. Each is counted and
//! published here, whoever made the change: a kernel program, the scan, or the socket reconciler.

use std::sync::Arc;

use tcp_common::End;
use tcp_common::record::reported;
use tcp_common::table::NO_SLOT;

use super::change::Change;
use super::shared::{Shared, WatchEvent};
use super::totals::Totals;
use crate::kernel::Entry;
use crate::view::describe::{Describer, time_wait_ending};
use crate::view::{EventRecord, ReopenReason, TimeWaitEnding};

impl Shared {
    /// Publishes the transitions of a change, then counts and publishes what it reports: the bits of
    /// [`reported`] that [`Flow::report`](tcp_common::Flow::report) returned.
    pub(super) fn report(&self, totals: &mut Totals, change: &Change<'_>, reports: u32) {
        self.publish_transitions(change);
        self.report_open_and_close(totals, change, reports);
        let flow = change.flow;
        let ended = ended_time_waits(change, reports);
        for &end in &ended {
            self.report_time_wait_end(totals, change, end, time_wait_ending(flow, end, change.cause));
        }
        // A RST before the close was complete is counted with the close.
        let is_counted = reports & reported::CLOSE != 0 && flow.aborter().is_some();
        if let Some(sender) = flow.time_wait_resetter().filter(|_| !ended.is_empty() && !is_counted) {
            totals.count_time_wait_reset(flow, sender);
        }
    }

    /// As [`Shared::report`], for an incarnation that the next one has replaced.
    pub(super) fn report_replaced(&self, totals: &mut Totals, change: &Change<'_>, reports: u32) {
        self.publish_transitions(change);
        self.report_open_and_close(totals, change, reports);
        for end in ended_time_waits(change, reports) {
            self.report_time_wait_end(totals, change, end, TimeWaitEnding::Reused);
        }
    }

    /// Counts and publishes the end of a TIME-WAIT.
    pub(super) fn report_time_wait_end(
        &self,
        totals: &mut Totals,
        change: &Change<'_>,
        end: End,
        ending: TimeWaitEnding,
    ) {
        let &Change { key, flow, at_ns, .. } = change;
        totals.time_wait_ended[ending as usize] += 1;
        self.publish(change, |describer| {
            let record = describer.time_wait_end(key, flow, end, at_ns, ending);
            self.joined_time_wait_end(key, record).into_iter().map(EventRecord::from).collect()
        });
    }

    /// Counts and publishes that a close was taken back.
    pub(super) fn report_reopened(&self, totals: &mut Totals, change: &Change<'_>, reason: ReopenReason) {
        let &Change { key, flow, at_ns, .. } = change;
        totals.reopened[reason as usize] += 1;
        self.publish(change, |describer| vec![describer.reopened(key, flow, at_ns, reason).into()]);
    }

    fn report_open_and_close(&self, totals: &mut Totals, change: &Change<'_>, reports: u32) {
        let &Change { key, flow, at_ns, .. } = change;
        if reports & reported::OPEN != 0 {
            totals.count_open(key, flow);
        }
        if reports & flow.reported() & reported::CLOSE != 0 {
            totals.count_close(flow);
            // Also without a subscriber: one may come before the other leg of a translated connection is done.
            if self.closes_connection(key) {
                self.publish(change, |_| vec![self.joined_close(key, flow, change.hook, at_ns).into()]);
            }
        } else if reports & reported::CLOSE != 0 {
            self.report_reopened(totals, change, ReopenReason::DataAcknowledged);
        }
    }

    /// Publishes the transitions of a change.
    pub(super) fn publish_transitions(&self, change: &Change<'_>) {
        let &Change { key, flow, at_ns, from, to, cause, .. } = change;
        if from != to {
            self.publish(change, |describer| {
                let transitions = describer.transitions(key, flow, at_ns, from, to, cause);
                let transitions = self.joined_transitions(key, transitions);
                transitions.into_iter().map(EventRecord::from).collect()
            });
        }
    }

    /// Sends events to the subscribers of `/events`, if there are any.
    fn publish(&self, change: &Change<'_>, records: impl FnOnce(&Describer<'_>) -> Vec<EventRecord>) {
        if self.watchers.receiver_count() == 0 {
            return;
        }
        let &Change { key, flow, hook, .. } = change;
        let describer = Describer { client: self.translations.client(key), ..self.describer() };
        let records = records(&describer);
        if records.is_empty() {
            return;
        }
        let entry = Entry { index: NO_SLOT, key: *key, hook, flow: *flow };
        let connection = Arc::new(self.joined(&describer, &entry));
        for event in records {
            // Fails if the last subscriber has gone.
            let _ = self.watchers.send(WatchEvent { connection: Arc::clone(&connection), event });
        }
    }
}

/// The ends whose TIME-WAIT has ended by a change.
fn ended_time_waits(change: &Change<'_>, reports: u32) -> Vec<End> {
    let ended = reports & change.flow.reported();
    let bits = [(End::A, reported::LEFT_TIME_WAIT_A), (End::B, reported::LEFT_TIME_WAIT_B)];
    bits.into_iter().filter(|&(_, bit)| ended & bit != 0).map(|(end, _)| end).collect()
}
