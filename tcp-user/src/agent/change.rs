//! A change of a flow's states, as the event thread and the socket reconciler hand it on.

use tcp_common::{Cause, Flow, FlowKey, State};

use crate::why::SentSegment;

/// What a segment or the clock did to a flow.
pub(super) struct Change<'a> {
    pub(super) key: &'a FlowKey,
    /// The flow after the change.
    pub(super) flow: &'a Flow,
    /// As [`Record::hook`](tcp_common::record::Record::hook) returns it.
    pub(super) hook: u32,
    pub(super) at_ns: u64,
    /// States of both ends before the change.
    pub(super) from: [State; 2],
    /// States of both ends after the change.
    pub(super) to: [State; 2],
    pub(super) cause: Cause,
    /// The segment that made it, if one did.
    pub(super) segment: Option<SentSegment>,
}

impl<'a> Change<'a> {
    /// What has become of a flow without an event that was read. Its last segment did it.
    pub(super) fn unnoticed(key: &'a FlowKey, flow: &'a Flow, hook: u32) -> Change<'a> {
        let states = flow.states();
        let (at_ns, from, to, cause) = (flow.last_ns(), states, states, Cause::Nothing);
        Change { key, flow, hook, at_ns, from, to, cause, segment: None }
    }
}
