//! Counters and events: what the agent learns.

use tcp_common::{
    End, Flow, FlowKey, FlowKey4, Ignored, Kind, Outcome, State,
    record::{Counters, Record, event_flag, event_kind, mark, segment_kind},
};

use crate::{diagnostics, maps::Table as _, ring, verifier::number, work::Work};

#[inline(always)]
pub fn ignored(counters: &mut Counters, reason: Ignored) {
    if let Some(count) = counters.ignored.get_mut(number(&reason)) {
        *count += 1;
    }
}

#[inline(always)]
pub fn count_segment(work: &Work, counters: &mut Counters) {
    let segment = &work.packet.segment;
    let kind = match segment.kind() {
        Kind::Syn => segment_kind::SYN,
        Kind::SynAck => segment_kind::SYN_ACK,
        Kind::Fin => segment_kind::FIN,
        Kind::Rst => segment_kind::RST,
        Kind::Ack | Kind::Bad if segment.payload_len != 0 => segment_kind::DATA,
        Kind::Ack | Kind::Bad => segment_kind::ACK,
    };
    if let Some(count) =
        counters.segments.get_mut(number(&work.direction)).and_then(|kinds| kinds.get_mut(kind))
    {
        *count += segment.wire_segments as u64;
    }
}

#[inline(always)]
pub fn count_outcome(outcome: &Outcome, flow: &Flow, counters: &mut Counters) {
    count_transition(counters, flow.is_local(End::A), &outcome.from[0], &outcome.to[0]);
    count_transition(counters, flow.is_local(End::B), &outcome.from[1], &outcome.to[1]);
    if let Some(count) = counters.causes.get_mut(number(&outcome.cause)) {
        *count += 1;
    }
    counters.time_wait_restarted += outcome.restarted as u64;
}

#[inline(always)]
fn count_transition(counters: &mut Counters, local: bool, from: &State, to: &State) {
    let (from, to) = (number(from), number(to));
    if from == to {
        return;
    }
    let matrix = if local { &mut counters.transitions[1] } else { &mut counters.transitions[0] };
    if let Some(count) = matrix.get_mut(from).and_then(|row| row.get_mut(to)) {
        *count += 1;
    }
}

/// A state changed. The flow is marked with what its event tells of, if there was room for the event.
#[inline(always)]
pub fn transition(outcome: &Outcome, work: &mut Work, counters: &mut Counters) {
    let told = mark::told_by(outcome);
    work.record.flow.set_reported(told);
    work.flags = (outcome.over as u32 * event_flag::OVER)
        | (outcome.established as u32 * event_flag::ESTABLISHED)
        | (outcome.restarted as u32 * event_flag::RESTARTED);
    if !emit(event_kind::TRANSITION, outcome, work, &work.packet.key, &work.record.flow, counters) {
        work.record.flow.clear_reported(told);
    }
}

/// The incarnation before ended because this segment began the next one; the slot still holds it.
#[inline(always)]
pub fn previous(work: &mut Work, counters: &mut Counters) {
    work.flags = 0;
    if work.packet.key.family == 4 {
        if let Some(held) = FlowKey4::held(work.slot) {
            emit_apart(event_kind::PREVIOUS, work, &work.packet.key, &held.flow, counters);
        }
    } else if let Some(held) = FlowKey::held(work.slot) {
        emit_apart(event_kind::PREVIOUS, work, &work.packet.key, &held.flow, counters);
    }
}

/// A flow had to make room for the one at hand, and nobody has told of its end yet.
#[inline(always)]
pub fn evicted(key: &FlowKey, held: &Record, work: &mut Work, counters: &mut Counters) {
    let own = work.hook;
    let [a, b] = held.hooks;
    work.hook = if a > b { a } else { b };
    emit_apart(event_kind::EVICTED, work, key, &held.flow, counters);
    work.hook = own;
}

/// The slot was busy: the agent applies the segment.
#[inline(always)]
pub fn deferred(work: &Work, counters: &mut Counters) -> Result<(), Ignored> {
    if emit_apart(event_kind::DEFERRED, work, &work.packet.key, &work.record.flow, counters) {
        counters.deferred += 1;
        diagnostics::tell(work, None);
        Ok(())
    } else {
        Err(Ignored::Contended)
    }
}

/// [`emit`] as a call of its own, where it is rare.
#[inline(never)]
fn emit_apart(kind: u8, work: &Work, key: &FlowKey, flow: &Flow, counters: &mut Counters) -> bool {
    emit(kind, &work.outcome, work, key, flow, counters)
}

/// Writes an event, or counts it as lost.
#[inline(always)]
fn emit(
    kind: u8,
    outcome: &Outcome,
    work: &Work,
    key: &FlowKey,
    flow: &Flow,
    counters: &mut Counters,
) -> bool {
    let sequence = counters.events.wrapping_add(counters.events_lost);
    let Some(place) = ring::place() else {
        counters.events_lost += 1;
        return false;
    };
    let event = place.event;
    // SAFETY: a map value that is this CPU's; every field is written.
    unsafe {
        (*event).at_ns = work.at_ns;
        (*event).sequence = sequence;
        (*event).slot = work.slot;
        (*event).cpu = place.cpu;
        (*event).hook = work.hook;
        (*event).kind = kind;
        (*event).sender = work.packet.sender as u8;
        (*event).cause = outcome.cause as u8;
        (*event).previous = outcome.previous as u8;
        (*event).from = [outcome.from[0] as u8, outcome.from[1] as u8];
        (*event).to = [outcome.to[0] as u8, outcome.to[1] as u8];
        (*event).flags = work.flags;
        (*event).segment = work.packet.segment;
        (*event).reserved = 0;
        (*event).key = *key;
        (*event).flow = *flow;
    }
    place.publish();
    counters.events += 1;
    true
}
