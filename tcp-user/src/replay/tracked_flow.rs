//! A flow of a capture, and what becomes of it in the records.

use std::sync::Arc;

use tcp_common::flow::{DirectionPrediction, Prediction};
use tcp_common::record::Sightings;
use tcp_common::{Flow, FlowKey, Outcome};

use super::deadlines::QueueHandle;
use super::mirror::Identifications;
use super::outbox::{Outbox, Selection, Subject};
use super::zeek::Trace;
use crate::view::describe::time_wait_ending;
use crate::view::{TimeWaitEnding, Tunnel};
use crate::why::History;

/// A flow in the table of a replay.
pub(super) struct TrackedFlow {
    pub(super) flow: Flow,
    pub(super) queue_handle: QueueHandle,
    pub(super) interface: Option<Arc<str>>,
    /// Interface whose link the addresses belong to, if they are link-local.
    pub(super) scope: Option<Arc<str>>,
    /// Outermost tunnel of the segment that began the incarnation.
    pub(super) tunnel: Option<Tunnel>,
    /// The IP identifications of each end.
    pub(super) identifications: [Identifications; 2],
    /// The capture points that have seen the flow.
    pub(super) sightings: Sightings,
    /// When and where each end was seen last.
    pub(super) directions: [DirectionPrediction; 2],
    /// For `conn.log`, if selected.
    pub(super) trace: Option<Box<Trace>>,
    /// For explanations, if selected.
    pub(super) history: Option<Box<History>>,
}

impl TrackedFlow {
    pub(super) fn new(ticket: u64, selection: &Selection) -> TrackedFlow {
        TrackedFlow {
            flow: Flow::EMPTY,
            queue_handle: QueueHandle::new(ticket),
            interface: None,
            scope: None,
            tunnel: None,
            identifications: [Identifications::default(); 2],
            sightings: Sightings::NONE,
            directions: Prediction::EMPTY.directions,
            trace: selection.zeek.then(Box::default),
            history: selection.explanations.then(Box::default),
        }
    }

    pub(super) fn subject<'a>(&'a self, key: &'a FlowKey) -> Subject<'a> {
        let (trace, history) = (self.trace.as_deref(), self.history.as_deref());
        let (interface, scope) = (self.interface.as_ref(), self.scope.as_ref());
        let (flow, tags, tunnel) = (&self.flow, self.sightings.tags, self.tunnel);
        Subject { key, flow, interface, scope, tags, tunnel, trace, history }
    }

    /// Reports what a segment or the clock did.
    pub(super) fn publish(&mut self, outbox: &mut Outbox, key: &FlowKey, now_ns: u64, outcome: &Outcome) {
        let reports = self.flow.report();
        let subject = self.subject(key);
        outbox.transitions(&subject, now_ns, outcome.from, outcome.to, outcome.cause);
        outbox.report(&subject, now_ns, reports, |flow, end| time_wait_ending(flow, end, outcome.cause));
    }

    /// Reports the end of the incarnation that a segment has replaced; `before` is the flow before the segment.
    pub(super) fn end_previous(
        &mut self,
        before: Flow,
        outbox: &mut Outbox,
        key: &FlowKey,
        now_ns: u64,
        outcome: &Outcome,
    ) {
        let trace = self.trace.as_mut().map(std::mem::take);
        let history = self.history.as_mut().map(std::mem::take);
        let mut ended = TrackedFlow {
            flow: before,
            trace,
            history,
            interface: self.interface.clone(),
            scope: self.scope.clone(),
            ..*self
        };
        let end = ended.flow.end_previous(now_ns, outcome.previous, &outbox.rules);
        if let Some(history) = &mut ended.history {
            history.record_change(now_ns, &Outcome { cause: outcome.cause, ..end }, &ended.flow);
        }
        let reports = ended.flow.report();
        if let (Some(trace), Some(aborter)) = (&mut ended.trace, outcome.previous.aborter()) {
            trace.aborted(aborter);
        }
        let subject = ended.subject(key);
        outbox.transitions(&subject, now_ns, end.from, end.to, outcome.cause);
        outbox.report(&subject, now_ns, reports, |_, _| TimeWaitEnding::Reused);
        outbox.ended(&subject, now_ns);
    }
}
