//! A packet's way through the kernel programs, top to bottom.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_common::{
    Cause, End, Flow, FlowKey, Ignored, Kind, Outcome, Previous, Segment,
    record::{Counters, HookSeen, Settings, Slot},
    wire::{self, Link},
};

use crate::{
    maps::{BEFORE, COUNTERS, SETTINGS},
    packet::{Direction, Packet},
    publish::{self, Sighting},
    table::{self, Taken},
};

/// Follows one packet. Every way out increments exactly one of `tracked` and `ignored`.
#[inline(always)]
pub fn observe<P: Packet>(packet: &P, link: Link, direction: Direction) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value; programs of one CPU do not interrupt each other while they run.
    let counters = unsafe { &mut *counters };
    let Some(settings) = SETTINGS.get(0) else { return };
    counters.seen += 1;
    match follow(packet, link, direction, settings, counters) {
        Ok(()) => counters.tracked += 1,
        Err(reason) => publish::ignored(counters, reason),
    }
}

#[inline(always)]
fn follow<P: Packet>(
    packet: &P,
    link: Link,
    direction: Direction,
    settings: &Settings,
    counters: &mut Counters,
) -> Result<(), Ignored> {
    let parsed = wire::parse(packet, link, packet.stripped_vlan())?;
    let mut segment = parsed.segment;
    segment.wire_segments = packet.wire_segments().clamp(1, 255) as u8;
    if parsed.key.is_self_connect() {
        return Err(Ignored::SelfConnect);
    }
    if matches!(segment.kind(), Kind::Bad) {
        return Err(Ignored::BadFlags);
    }
    let sighting = Sighting {
        at_ns: now_ns(settings),
        hook: packet.interface_index() << 1 | direction as u32,
        sender: parsed.sender,
    };
    let opens = !matches!(segment.kind(), Kind::Rst);
    match table::take(&parsed.key, settings, opens, sighting.at_ns, counters)? {
        Taken::Owned { index, slot, fresh } => {
            let result = apply(&parsed.key, index, slot, fresh, &segment, &sighting, direction, settings, counters);
            table::release(slot);
            result
        }
        Taken::Busy { index } => publish::deferred(&parsed.key, index, &segment, &sighting, counters),
    }
}

/// Applies the segment to the flow in the slot that this CPU owns.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "inlined; a struct would only be spilled")]
fn apply(
    key: &FlowKey,
    index: u32,
    slot: *mut Slot,
    fresh: bool,
    segment: &Segment,
    sighting: &Sighting,
    direction: Direction,
    settings: &Settings,
    counters: &mut Counters,
) -> Result<(), Ignored> {
    // SAFETY: the slot's tag says BUSY, and this CPU made it so.
    let slot = unsafe { &mut *slot };
    if fresh {
        slot.flow = Flow::EMPTY;
        slot.hooks = [HookSeen { hook: 0, at: 0 }; 2];
        slot.reported = 0;
        slot.counted = 0;
    }
    if !claim_direction(slot, sighting, direction) {
        return Err(Ignored::Duplicate);
    }
    publish::count_segment(counters, direction, segment);
    let may_begin = !matches!(segment.kind(), Kind::Ack | Kind::Fin)
        || sighting.at_ns.wrapping_sub(slot.flow.last_ns) > LONG_SILENCE_NS;
    if may_begin && let Some(before) = BEFORE.get_ptr_mut(0) {
        // SAFETY: a per-CPU value of this CPU.
        unsafe { *before = slot.flow };
    }
    let outcome = slot.flow.on_segment(sighting.at_ns, sighting.sender, segment, &settings.rules);
    publish::count_outcome(counters, &slot.flow, sighting, &outcome);
    if outcome.is_transition() {
        if !matches!(outcome.previous, Previous::None) {
            publish::previous(key, index, segment, sighting, &outcome, counters);
        }
        if !is_unanswered_syn(&outcome) {
            publish::transition(key, index, &slot.flow, segment, sighting, &outcome, counters);
        }
    }
    Ok(())
}

/// A direction belongs to the hook that saw it first, until that hook falls silent. Returns whether this packet counts.
#[inline(always)]
fn claim_direction(slot: &mut Slot, sighting: &Sighting, direction: Direction) -> bool {
    let at = (sighting.at_ns >> 20) as u32;
    let [a, b] = &mut slot.hooks;
    let (own, peer) = match sighting.sender {
        End::A => (a, b),
        End::B => (b, a),
    };
    if own.hook != sighting.hook {
        if own.hook != 0 && at.wrapping_sub(own.at) < HOOK_SILENCE {
            return false;
        }
        own.hook = sighting.hook;
        let leaves = matches!(direction, Direction::Egress);
        let peer_unknown = peer.hook == 0;
        slot.flow.set_local(sighting.sender, leaves);
        if peer_unknown {
            slot.flow.set_local(sighting.sender.peer(), !leaves);
        }
    }
    own.at = at;
    true
}

/// A SYN alone is no news: a flood of them must not drown the events of others.
#[inline(always)]
fn is_unanswered_syn(outcome: &Outcome) -> bool {
    matches!(outcome.cause, Cause::Syn) && matches!(outcome.previous, Previous::None | Previous::Over)
}

#[inline(always)]
fn now_ns(settings: &Settings) -> u64 {
    if settings.clock_ns != 0 {
        return settings.clock_ns;
    }
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_ktime_get_ns() }
}

/// About a second, in units of 2^20 ns.
const HOOK_SILENCE: u32 = 1_000;
/// Silence limits are never shorter.
const LONG_SILENCE_NS: u64 = 1_000_000_000;
