//! What a change of a flow reports: opens, closes, closes taken back, ends of a TIME-WAIT, and SYNs that nothing
//! answers. Each is counted and published here, whoever made the change: a kernel program, the scan, or the socket
//! reconciler.

use std::sync::Arc;

use tcp_common::flow::Initiator;
use tcp_common::record::reported;
use tcp_common::{Cause, End, Flow, FlowKey, State};

use super::change::Change;
use super::exemplar::Exemplar;
use super::history::ClosedFlow;
use super::shared::{Shared, WatchEvent};
use super::totals::{Locality, Totals};
use crate::view::describe::{Describer, time_wait_ending};
use crate::view::{ConnectionId, EventRecord, ReopenReason, TimeWaitEnding, is_ignored_rst};
use crate::why::SentSegment;

impl Shared {
    /// Publishes the transitions of a change, then counts and publishes what it reports: the bits of
    /// [`reported`] that [`Flow::report`] returned.
    pub(super) fn report(&self, totals: &mut Totals, change: &Change<'_>, reports: u32) {
        self.publish_transitions(change);
        self.publish_ignored_rst(change);
        self.report_open_and_close(totals, change, reports);
        let flow = change.flow;
        let ended = ended_time_waits(change, reports);
        for &end in &ended {
            self.report_time_wait_end(totals, change, end, time_wait_ending(flow, end, change.cause));
        }
        // What ended the connection is counted with its close.
        let is_counted = reports & reported::CLOSE != 0;
        if flow.time_wait_resetter().is_some() && !ended.is_empty() && !is_counted {
            totals.count_reset(flow, self.ask_reset_of(change.key, flow));
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
        totals.time_wait_ended[ending as usize][Locality::of(flow.is_local(end)) as usize] += 1;
        self.publish(change, |describer| {
            let scope = self.names.of_scope(key);
            let record = describer.time_wait_end(key, flow, scope.as_deref(), at_ns, end, ending);
            self.joined_time_wait_end(key, record).into_iter().map(EventRecord::from).collect()
        });
    }

    /// Counts and publishes that a close was taken back.
    pub(super) fn report_reopened(&self, totals: &mut Totals, change: &Change<'_>, reason: ReopenReason) {
        let &Change { key, flow, at_ns, .. } = change;
        if self.own.includes(key, flow) {
            return;
        }
        totals.reopened[reason as usize] += 1;
        self.publish(change, |describer| {
            let scope = self.names.of_scope(key);
            let record = describer.reopened(key, flow, scope.as_deref(), at_ns, reason);
            vec![record.into()]
        });
    }

    /// Counts a SYN that was sent again without an answer, and publishes that a host of this side sent it. The
    /// first SYN has no event, so that a flood of them does not fill the rings or the streams of watchers.
    pub(super) fn report_attempt(&self, totals: &mut Totals, key: &FlowKey, flow: &Flow, hook: u32) {
        totals.count_attempt(flow);
        if unanswered_sender(flow).is_some_and(|sender| flow.is_local(sender)) {
            let (from, to, at_ns, cause) = ([State::Closed; 2], flow.states(), flow.opened_ns(), Cause::Syn);
            self.publish_transitions(&Change { key, flow, hook, at_ns, from, to, cause, segment: None });
        }
    }

    fn report_open_and_close(&self, totals: &mut Totals, change: &Change<'_>, reports: u32) {
        let &Change { key, flow, at_ns, .. } = change;
        if self.own.includes(key, flow) {
            return;
        }
        if reports & reported::OPEN != 0 {
            totals.count_open(key, flow, self.exemplar(change));
        }
        if reports & flow.reported() & reported::CLOSE != 0 {
            totals.count_close(flow, self.ask_reset_of(key, flow), self.exemplar(change));
            // Also without a subscriber: one may come before the other leg of a translated connection is done.
            if self.closes_connection(key, flow) {
                self.publish(change, |_| vec![self.joined_close(key, flow, change.hook, at_ns).into()]);
                if let Some(disk) = &self.disk {
                    disk.push(ClosedFlow { key: *key, flow: *flow, hook: change.hook, at_ns });
                }
            }
        } else if reports & reported::CLOSE != 0 {
            self.report_reopened(totals, change, ReopenReason::DataAcknowledged);
        }
    }

    /// The connection of a change, as the exemplar of what is measured.
    fn exemplar(&self, change: &Change<'_>) -> Exemplar {
        let &Change { key, flow, at_ns, .. } = change;
        let clock = *self.clock.lock();
        let id = self.joined_id(key).unwrap_or_else(|| ConnectionId::new(key, flow, clock.boot));
        Exemplar { id, at: clock.wall(at_ns) }
    }

    /// Publishes the transitions of a change.
    pub(super) fn publish_transitions(&self, change: &Change<'_>) {
        let &Change { key, flow, at_ns, from, to, cause, .. } = change;
        if from != to {
            self.publish(change, |describer| {
                let scope = self.names.of_scope(key);
                let transitions =
                    describer.transitions(key, flow, scope.as_deref(), at_ns, (from, to), cause);
                let transitions = self.joined_transitions(key, transitions);
                transitions.into_iter().map(EventRecord::from).collect()
            });
        }
    }

    /// Publishes a RST that was not accepted. The kernel programs count it.
    fn publish_ignored_rst(&self, change: &Change<'_>) {
        let &Change { key, flow, at_ns, cause, segment, .. } = change;
        let Some(SentSegment { sender, .. }) = segment.filter(|_| is_ignored_rst(cause)) else { return };
        self.publish(change, |describer| {
            let scope = self.names.of_scope(key);
            let record = describer.ignored_rst(key, flow, scope.as_deref(), at_ns, sender, cause);
            self.joined_ignored_rst(key, record).into_iter().map(EventRecord::from).collect()
        });
    }

    /// Sends events to the subscribers of `/events`, if there are any, unless the connection is the agent's own.
    fn publish(&self, change: &Change<'_>, records: impl FnOnce(&Describer<'_>) -> Vec<EventRecord>) {
        let &Change { key, flow, hook, .. } = change;
        if self.watchers.receiver_count() == 0 || self.own.includes(key, flow) {
            return;
        }
        let (client, id) = (self.translations.client(key), self.joined_id(key));
        let describer = Describer { client, id, ..self.describer() };
        let records = records(&describer);
        if records.is_empty() {
            return;
        }
        let entry = self.changed_entry(key, flow, hook);
        let connection = Arc::new(self.joined(&describer, &entry));
        for event in records {
            // Fails if the last subscriber has gone.
            let _ = self.watchers.send(WatchEvent { connection: Arc::clone(&connection), event });
        }
    }
}

/// Whether it is still to be counted and reported that a SYN was sent again without an answer.
pub(super) fn attempt_unreported(flow: &Flow) -> bool {
    flow.reported() & reported::ATTEMPT == 0
        && unanswered_sender(flow).is_some_and(|sender| flow.end(sender).segments() > 1)
}

/// The end in SYN-SENT whose peer has not answered.
fn unanswered_sender(flow: &Flow) -> Option<End> {
    match flow.initiator() {
        Initiator::One(sender) => (flow.state(sender) == State::SynSent
            && flow.state(sender.peer()) == State::Listen
            && flow.proved(sender.peer()) == State::Unknown)
            .then_some(sender),
        Initiator::Both | Initiator::Unknown => None,
    }
}

/// The ends whose TIME-WAIT has ended by a change.
fn ended_time_waits(change: &Change<'_>, reports: u32) -> Vec<End> {
    let ended = reports & change.flow.reported();
    let bits = [(End::A, reported::LEFT_TIME_WAIT_A), (End::B, reported::LEFT_TIME_WAIT_B)];
    bits.into_iter().filter(|&(_, bit)| ended & bit != 0).map(|(end, _)| end).collect()
}
