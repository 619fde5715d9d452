//! Counters and events for the agent.

use tcp_common::{
    Cause, End, FlowKey, FlowKey4, Ignored, Outcome, SegmentKind, State,
    record::{Counters, Event, EventHeader, Record, TimeWaitVisit, segment_kind},
};

use crate::{
    diagnostics,
    maps::MappedKey as _,
    observe::sender,
    ring,
    scratch::Scratch,
    verifier::{number, opaque},
};

/// Counts packets that are ignored.
#[inline(always)]
pub(crate) fn ignored(counters: &mut Counters, reason: Ignored, packets: u64) {
    if let Some(count) = counters.ignored.get_mut(number(&reason)) {
        *count += packets;
    }
}

/// Counts a segment by kind and direction.
#[inline(always)]
pub(crate) fn count_segment(scratch: &Scratch, counters: &mut Counters) {
    let segment = &scratch.packet.segment;
    let kind = match segment.kind() {
        SegmentKind::Syn => segment_kind::SYN,
        SegmentKind::SynAck => segment_kind::SYN_ACK,
        SegmentKind::Fin => segment_kind::FIN,
        SegmentKind::Rst => segment_kind::RST,
        SegmentKind::Ack | SegmentKind::Bad if segment.payload_len != 0 => segment_kind::DATA,
        SegmentKind::Ack | SegmentKind::Bad => segment_kind::ACK,
    };
    if let Some(count) =
        counters.segments.get_mut(number(&scratch.direction)).and_then(|kinds| kinds.get_mut(kind))
    {
        *count += segment.wire_segments as u64;
    }
}

/// Counts what a segment did.
#[inline(always)]
pub(crate) fn count_outcome(outcome: &Outcome, scratch: &Scratch, counters: &mut Counters) {
    let flow = &scratch.record.flow;
    count_transition(counters, flow.is_local(End::A), &outcome.from[0], &outcome.to[0]);
    count_transition(counters, flow.is_local(End::B), &outcome.from[1], &outcome.to[1]);
    if let Some(count) = counters.causes.get_mut(number(&outcome.cause)) {
        *count += 1;
    }
    let sender = sender(scratch);
    if let Some(visit) = TimeWaitVisit::of(sender, &scratch.packet.segment, outcome) {
        count_visit(visit, flow.is_local(sender.peer()), counters);
    }
}

/// Counts a segment at an end in TIME-WAIT.
#[inline(always)]
fn count_visit(visit: TimeWaitVisit, local: bool, counters: &mut Counters) {
    if let Some([remote_count, local_count]) = counters.time_wait_visits.get_mut(number(&visit)) {
        *if local { local_count } else { remote_count } += 1;
    }
}

#[inline(always)]
fn count_transition(counters: &mut Counters, local: bool, from: &State, to: &State) {
    let (from, to) = (number(from), number(to));
    if from == to {
        return;
    }
    let matrix = if local { &mut counters.transitions[1] } else { &mut counters.transitions[0] };
    // `opaque` keeps the compiler from checking the bounds before, in a register that the verifier of 6.1 forgets.
    if let Some(count) = matrix.get_mut(opaque(from)).and_then(|row| row.get_mut(opaque(to))) {
        *count += 1;
    }
}

/// Publishes a segment that changed a state, or is a SYN, FIN or RST. Marks what the event reports of the flow as
/// reported, if there is room for the event.
///
/// The event of a segment that changed no state reports nothing of the flow. So that it crowds out no event of other
/// flows, it is withheld while half of the ring is full.
#[inline(never)]
pub(crate) fn segment(outcome: &Outcome, scratch: &mut Scratch, counters: &mut Counters) {
    if !outcome.is_transition() && ring::is_half_full() {
        counters.events_withheld += 1;
        return;
    }
    let before = scratch.record.flow.reported();
    let reports = if outcome.is_transition() { scratch.record.flow.report() } else { 0 };
    let Scratch { packet, record, .. } = &*scratch;
    let at = EventOrigin { slot: scratch.slot, hook: scratch.hook, at_ns: scratch.at_ns };
    if !emit(at, counters, |event, header| event.set_segment(header, packet, outcome, &record.flow, reports))
    {
        scratch.record.flow.set_reported(before);
    }
}

/// Publishes the end of the previous incarnation, which the current segment superseded. The slot still holds it.
#[inline(never)]
pub(crate) fn previous(outcome: &Outcome, scratch: &Scratch, counters: &mut Counters) {
    let stored = if scratch.packet.key.family == 4 {
        FlowKey4::stored_record(scratch.slot)
    } else {
        FlowKey::stored_record(scratch.slot)
    };
    let Some(stored) = stored else { return };
    if matches!(outcome.cause, Cause::Reuse) {
        let (visit, holder) = stored.flow.reused_time_wait(sender(scratch), &scratch.packet.segment);
        count_visit(visit, stored.flow.is_local(holder), counters);
    }
    let at = EventOrigin { slot: scratch.slot, hook: scratch.hook, at_ns: scratch.at_ns };
    emit(at, counters, |event, header| {
        event.set_previous(header, &scratch.packet, outcome.cause, outcome.previous, &stored.flow);
    });
}

/// Publishes the end of a flow that was evicted from `slot`.
#[inline(always)]
pub(crate) fn evicted(at_ns: u64, slot: u32, key: &FlowKey, stored: &Record, counters: &mut Counters) {
    let at = EventOrigin { slot, hook: stored.hook(), at_ns };
    emit(at, counters, |event, header| event.set_evicted(header, key, &stored.flow));
}

/// Defers the segment to the agent, because another thread kept the flow locked.
#[inline(never)]
pub(crate) fn deferred(at_ns: u64, slot: u32, scratch: &Scratch, counters: &mut Counters) -> bool {
    let at = EventOrigin { slot, hook: scratch.hook, at_ns };
    let is_published = emit(at, counters, |event, header| event.set_deferred(header, &scratch.packet));
    if is_published {
        counters.deferred += 1;
        diagnostics::log_ignored(scratch, None);
    }
    is_published
}

/// What a publisher knows of an event's header.
#[derive(Clone, Copy)]
struct EventOrigin {
    slot: u32,
    hook: u32,
    at_ns: u64,
}

/// Writes and publishes an event, or counts it as lost. Returns whether there was room.
#[inline(always)]
fn emit(at: EventOrigin, counters: &mut Counters, set: impl FnOnce(&mut Event, EventHeader)) -> bool {
    let sequence = counters.events.wrapping_add(counters.events_lost);
    let Some(reservation) = ring::reserve() else {
        counters.events_lost += 1;
        return false;
    };
    let EventOrigin { slot, hook, at_ns } = at;
    // SAFETY: a map value that this CPU's current program alone writes (see `per_cpu`), and that the agent does not read
    // before it is published. All its fields are integers, so that any earlier content is valid.
    let event = unsafe { &mut *reservation.event };
    set(event, EventHeader { at_ns, sequence, slot, cpu: reservation.cpu, hook });
    reservation.publish();
    counters.events += 1;
    true
}
