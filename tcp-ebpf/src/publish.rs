//! Counters and events: what the agent learns.

use tcp_common::{
    End, Flow, FlowKey, FlowKey4, Ignored, Kind, Outcome, State,
    record::{Counters, Record, event_flag, event_kind, reported, segment_kind},
};

use crate::{diagnostics, maps::MappedKey as _, ring, scratch::Scratch, verifier::number};

#[inline(always)]
pub fn ignored(counters: &mut Counters, reason: Ignored) {
    if let Some(count) = counters.ignored.get_mut(number(&reason)) {
        *count += 1;
    }
}

#[inline(always)]
pub fn count_segment(scratch: &Scratch, counters: &mut Counters) {
    let segment = &scratch.packet.segment;
    let kind = match segment.kind() {
        Kind::Syn => segment_kind::SYN,
        Kind::SynAck => segment_kind::SYN_ACK,
        Kind::Fin => segment_kind::FIN,
        Kind::Rst => segment_kind::RST,
        Kind::Ack | Kind::Bad if segment.payload_len != 0 => segment_kind::DATA,
        Kind::Ack | Kind::Bad => segment_kind::ACK,
    };
    if let Some(count) =
        counters.segments.get_mut(number(&scratch.direction)).and_then(|kinds| kinds.get_mut(kind))
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
pub fn transition(outcome: &Outcome, scratch: &mut Scratch, counters: &mut Counters) {
    let told = reported::flags_for(outcome);
    scratch.record.flow.set_reported(told);
    scratch.flags = (outcome.over as u32 * event_flag::OVER)
        | (outcome.established as u32 * event_flag::ESTABLISHED)
        | (outcome.restarted as u32 * event_flag::RESTARTED);
    if !emit(event_kind::TRANSITION, outcome, scratch, &scratch.packet.key, &scratch.record.flow, counters) {
        scratch.record.flow.clear_reported(told);
    }
}

/// The incarnation before ended because this segment began the next one; the slot still holds it.
#[inline(always)]
pub fn previous(scratch: &mut Scratch, counters: &mut Counters) {
    scratch.flags = 0;
    if scratch.packet.key.family == 4 {
        if let Some(stored) = FlowKey4::stored_record(scratch.slot) {
            emit_apart(event_kind::PREVIOUS, scratch, &scratch.packet.key, &stored.flow, counters);
        }
    } else if let Some(stored) = FlowKey::stored_record(scratch.slot) {
        emit_apart(event_kind::PREVIOUS, scratch, &scratch.packet.key, &stored.flow, counters);
    }
}

/// A flow had to make room for the one at hand, and nobody has told of its end yet.
#[inline(always)]
pub fn evicted(key: &FlowKey, stored: &Record, scratch: &mut Scratch, counters: &mut Counters) {
    let own = scratch.hook;
    let [a, b] = stored.hooks;
    scratch.hook = if a > b { a } else { b };
    emit_apart(event_kind::EVICTED, scratch, key, &stored.flow, counters);
    scratch.hook = own;
}

/// The slot was busy: the agent applies the segment.
#[inline(always)]
pub fn deferred(scratch: &Scratch, counters: &mut Counters) -> Result<(), Ignored> {
    if emit_apart(event_kind::DEFERRED, scratch, &scratch.packet.key, &scratch.record.flow, counters) {
        counters.deferred += 1;
        diagnostics::log_ignored(scratch, None);
        Ok(())
    } else {
        Err(Ignored::Contended)
    }
}

/// [`emit`] as a call of its own, where it is rare.
#[inline(never)]
fn emit_apart(kind: u8, scratch: &Scratch, key: &FlowKey, flow: &Flow, counters: &mut Counters) -> bool {
    emit(kind, &scratch.outcome, scratch, key, flow, counters)
}

/// Writes an event, or counts it as lost.
#[inline(always)]
fn emit(
    kind: u8,
    outcome: &Outcome,
    scratch: &Scratch,
    key: &FlowKey,
    flow: &Flow,
    counters: &mut Counters,
) -> bool {
    let sequence = counters.events.wrapping_add(counters.events_lost);
    let Some(reservation) = ring::reserve() else {
        counters.events_lost += 1;
        return false;
    };
    let event = reservation.event;
    // SAFETY: a map value that is this CPU's; every field is written.
    unsafe {
        (*event).at_ns = scratch.at_ns;
        (*event).sequence = sequence;
        (*event).slot = scratch.slot;
        (*event).cpu = reservation.cpu;
        (*event).hook = scratch.hook;
        (*event).kind = kind;
        (*event).sender = scratch.packet.sender as u8;
        (*event).cause = outcome.cause as u8;
        (*event).previous = outcome.previous as u8;
        (*event).from = [outcome.from[0] as u8, outcome.from[1] as u8];
        (*event).to = [outcome.to[0] as u8, outcome.to[1] as u8];
        (*event).flags = scratch.flags;
        (*event).segment = scratch.packet.segment;
        (*event).reserved = 0;
        (*event).key = *key;
        (*event).flow = *flow;
    }
    reservation.publish();
    counters.events += 1;
    true
}
