//! Counters and events: what the agent learns.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tcp_common::{
    Cause, End, Flow, FlowKey, Ignored, Kind, Outcome, Segment, State,
    record::{Counters, Event, event_flag, event_kind, segment_kind},
};

use crate::{
    maps::{BEFORE, EVENTS},
    packet::Direction,
};

/// When, where and from whom a segment was seen.
pub struct Sighting {
    pub at_ns: u64,
    pub hook: u32,
    pub sender: End,
}

#[inline(always)]
pub fn ignored(counters: &mut Counters, reason: Ignored) {
    if let Some(count) = counters.ignored.get_mut(reason as usize) {
        *count += 1;
    }
}

#[inline(always)]
pub fn count_segment(counters: &mut Counters, direction: Direction, segment: &Segment) {
    let kind = match segment.kind() {
        Kind::Syn => segment_kind::SYN,
        Kind::SynAck => segment_kind::SYN_ACK,
        Kind::Fin => segment_kind::FIN,
        Kind::Rst => segment_kind::RST,
        Kind::Ack | Kind::Bad if segment.payload_len != 0 => segment_kind::DATA,
        Kind::Ack | Kind::Bad => segment_kind::ACK,
    };
    if let Some(count) = counters.segments.get_mut(direction as usize).and_then(|kinds| kinds.get_mut(kind)) {
        *count += segment.wire_segments as u64;
    }
}

#[inline(always)]
pub fn count_outcome(counters: &mut Counters, flow: &Flow, sighting: &Sighting, outcome: &Outcome) {
    let _ = sighting;
    count_transition(counters, flow.is_local(End::A), outcome.from[0], outcome.to[0]);
    count_transition(counters, flow.is_local(End::B), outcome.from[1], outcome.to[1]);
    let again = match outcome.cause {
        Cause::SynAgain => Some(0),
        Cause::SynAckAgain => Some(1),
        Cause::FinAgain => Some(2),
        _ => None,
    };
    if let Some(count) = again.and_then(|kind: usize| counters.retransmitted.get_mut(kind)) {
        *count += 1;
    }
    let unmoved = (outcome.cause as u8).wrapping_sub(Cause::BadFlags as u8);
    if let Some(count) = counters.unmoved.get_mut(unmoved as usize) {
        *count += 1;
    }
}

#[inline(always)]
fn count_transition(counters: &mut Counters, local: bool, from: State, to: State) {
    if from as u8 == to as u8 {
        return;
    }
    let matrix = if local { &mut counters.transitions[1] } else { &mut counters.transitions[0] };
    if let Some(count) = matrix.get_mut(from as usize).and_then(|row| row.get_mut(to as usize)) {
        *count += 1;
    }
}

/// A state changed.
#[inline(always)]
pub fn transition(
    key: &FlowKey,
    slot: u32,
    flow: &Flow,
    segment: &Segment,
    sighting: &Sighting,
    outcome: &Outcome,
    counters: &mut Counters,
) {
    let mut flags = 0;
    if outcome.over {
        flags |= event_flag::OVER;
    }
    if outcome.established {
        flags |= event_flag::ESTABLISHED;
    }
    if outcome.restarted {
        flags |= event_flag::RESTARTED;
    }
    let head = Head { kind: event_kind::TRANSITION, slot, flags, outcome: Some(outcome) };
    emit(&head, key, flow, segment, sighting, counters);
}

/// The incarnation before ended because this segment began the next one.
#[inline(always)]
pub fn previous(
    key: &FlowKey,
    slot: u32,
    segment: &Segment,
    sighting: &Sighting,
    outcome: &Outcome,
    counters: &mut Counters,
) {
    let Some(before) = BEFORE.get(0) else { return };
    let head = Head { kind: event_kind::PREVIOUS, slot, flags: 0, outcome: Some(outcome) };
    emit(&head, key, before, segment, sighting, counters);
}

/// The slot was busy: the agent applies the segment.
#[inline(always)]
pub fn deferred(
    key: &FlowKey,
    slot: u32,
    segment: &Segment,
    sighting: &Sighting,
    counters: &mut Counters,
) -> Result<(), Ignored> {
    let Some(before) = BEFORE.get(0) else { return Err(Ignored::Contended) };
    let head = Head { kind: event_kind::DEFERRED, slot, flags: 0, outcome: None };
    if emit(&head, key, before, segment, sighting, counters) {
        counters.deferred += 1;
        Ok(())
    } else {
        Err(Ignored::Contended)
    }
}

struct Head<'a> {
    kind: u8,
    slot: u32,
    flags: u32,
    outcome: Option<&'a Outcome>,
}

/// Writes an event, or counts it as lost.
#[inline(always)]
fn emit(
    head: &Head<'_>,
    key: &FlowKey,
    flow: &Flow,
    segment: &Segment,
    sighting: &Sighting,
    counters: &mut Counters,
) -> bool {
    let sequence = counters.events.wrapping_add(counters.events_lost);
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        counters.events_lost += 1;
        return false;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the ring gave space for one event; every field is written.
    unsafe {
        (*event).at_ns = sighting.at_ns;
        (*event).sequence = sequence;
        (*event).slot = head.slot;
        (*event).cpu = bpf_get_smp_processor_id() as u32;
        (*event).hook = sighting.hook;
        (*event).kind = head.kind;
        (*event).sender = sighting.sender as u8;
        match head.outcome {
            Some(outcome) => {
                (*event).cause = outcome.cause as u8;
                (*event).previous = outcome.previous as u8;
                (*event).from = [outcome.from[0] as u8, outcome.from[1] as u8];
                (*event).to = [outcome.to[0] as u8, outcome.to[1] as u8];
            }
            None => {
                (*event).cause = 0;
                (*event).previous = 0;
                (*event).from = [0; 2];
                (*event).to = [0; 2];
            }
        }
        (*event).flags = head.flags;
        (*event).segment = *segment;
        (*event).reserved = 0;
        (*event).key = *key;
        (*event).flow = *flow;
    }
    entry.submit(RB_NO_WAKEUP);
    counters.events += 1;
    true
}

/// `BPF_RB_NO_WAKEUP`: the agent polls; a wakeup costs more than the event.
const RB_NO_WAKEUP: u64 = 1;
