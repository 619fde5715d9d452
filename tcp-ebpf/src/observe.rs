//! A packet's way through the kernel programs, top to bottom.
//!
//! Each stage is a function of its own for the verifier: its stack is free again when the next one begins, and what the
//! stages hand on is in [`Work`].

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_common::{
    Cause, End, Flow, Ignored, Kind, Outcome, Previous,
    record::{Counters, HookSeen, Settings, Slot},
    wire::{self, Link},
};

use crate::{
    maps::{BEFORE, COUNTERS, SETTINGS, WORK},
    packet::{Direction, Packet},
    publish,
    table::{self, Taken},
};

/// What is known of the packet at hand, one per CPU.
#[repr(C)]
pub struct Work {
    pub packet: wire::Packet,
    /// Where: interface index shifted by one, bit 0 set on egress.
    pub hook: u32,
    pub at_ns: u64,
    pub direction: Direction,
    pub outcome: Outcome,
    /// Flags of the event being written.
    pub flags: u32,
}

/// Follows one packet. Every way out increments exactly one of `tracked` and `ignored`.
#[inline(always)]
pub fn observe<P: Packet>(packet: &P, link: Link, direction: Direction) {
    let (Some(counters), Some(work)) = (COUNTERS.get_ptr_mut(0), WORK.get_ptr_mut(0)) else { return };
    let Some(settings) = SETTINGS.get(0) else { return };
    // SAFETY: per-CPU values; programs of one CPU do not interrupt each other while they run.
    let (counters, work) = unsafe { (&mut *counters, &mut *work) };
    counters.seen += 1;
    let mut verdict = read(packet, link, direction, work);
    if verdict.is_ok() {
        verdict = follow(work, settings, counters);
    }
    match verdict {
        Ok(()) => counters.tracked += 1,
        Err(reason) => publish::ignored(counters, reason),
    }
}

/// Stage 1: bytes to key and segment.
#[inline(always)]
fn read<P: Packet>(packet: &P, link: Link, direction: Direction, work: &mut Work) -> Result<(), Ignored> {
    wire::parse_into(packet, link, packet.stripped_vlan(), &mut work.packet)?;
    work.packet.segment.wire_segments = packet.wire_segments().clamp(1, 255) as u8;
    work.direction = direction;
    work.hook = packet.interface_index() << 1 | direction as u32;
    Ok(())
}

/// Stage 2: find the flow and take it; stage 3: apply the segment.
#[inline(never)]
fn follow(work: &mut Work, settings: &Settings, counters: &mut Counters) -> Result<(), Ignored> {
    let kind = work.packet.segment.kind();
    if work.packet.key.is_self_connect() {
        return Err(Ignored::SelfConnect);
    }
    if matches!(kind, Kind::Bad) {
        return Err(Ignored::BadFlags);
    }
    work.at_ns = now_ns(settings);
    match table::take(work, settings, counters)? {
        Taken::Owned { index, fresh } => {
            let result = apply(index, fresh, work, settings, counters);
            table::release(index);
            result
        }
        Taken::Busy { index } => publish::deferred(work, index, counters),
    }
}

/// Applies the segment to the flow in the slot that this CPU owns, and tells of it.
#[inline(never)]
fn apply(
    index: u32,
    fresh: bool,
    work: &mut Work,
    settings: &Settings,
    counters: &mut Counters,
) -> Result<(), Ignored> {
    let Some(slot) = table::slot(index) else { return Err(Ignored::TableFull) };
    // SAFETY: the slot's tag says BUSY, and this CPU made it so.
    let slot = unsafe { &mut *slot };
    if fresh {
        slot.flow = Flow::EMPTY;
        slot.hooks = [HookSeen { hook: 0, at: 0 }; 2];
        slot.reported = 0;
        slot.counted = 0;
    }
    let sender = if publish::number(&work.packet.sender) & 1 == 0 { End::A } else { End::B };
    if !claim_direction(slot, sender, work) {
        return Err(Ignored::Duplicate);
    }
    publish::count_segment(work, counters);
    let may_begin = !matches!(work.packet.segment.kind(), Kind::Ack | Kind::Fin)
        || work.at_ns.wrapping_sub(slot.flow.last_ns) > LONG_SILENCE_NS;
    if may_begin && let Some(before) = BEFORE.get_ptr_mut(0) {
        // SAFETY: a per-CPU value of this CPU.
        unsafe { *before = slot.flow };
    }
    work.outcome = slot.flow.on_segment(work.at_ns, sender, &work.packet.segment, &settings.rules);
    publish::count_outcome(work, &slot.flow, counters);
    if work.outcome.is_transition() {
        if !matches!(work.outcome.previous, Previous::None) {
            publish::previous(work, index, slot, counters);
        }
        if !is_unanswered_syn(&work.outcome) {
            publish::transition(work, index, &slot.flow, counters);
        }
    }
    Ok(())
}

/// A direction belongs to the hook that saw it first, until that hook falls silent. Returns whether this packet counts.
#[inline(always)]
fn claim_direction(slot: &mut Slot, sender: End, work: &Work) -> bool {
    let at = (work.at_ns >> 20) as u32;
    let [a, b] = &mut slot.hooks;
    let (own, peer) = match sender {
        End::A => (a, b),
        End::B => (b, a),
    };
    if own.hook != work.hook {
        if own.hook != 0 && at.wrapping_sub(own.at) < HOOK_SILENCE {
            return false;
        }
        own.hook = work.hook;
        let leaves = matches!(work.direction, Direction::Egress);
        let peer_unknown = peer.hook == 0;
        slot.flow.set_local(sender, leaves);
        if peer_unknown {
            slot.flow.set_local(sender.peer(), !leaves);
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
