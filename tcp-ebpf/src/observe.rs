//! A packet's way through the machine's program, top to bottom.
//!
//! What every segment passes is inlined: where returns are guarded against speculation (Zen 1 to 4, some Intel) a call costs
//! some 6 ns. What is rare is a call, whose stack is free again after it. The stages hand on what they know in [`Scratch`]; the
//! machine works on a copy of the flow there, so that it is in the program once for both tables.

use tcp_common::{
    Cause, End, FlowKey, FlowKey4, Ignored, Kind, Outcome, Previous,
    flow::AT_SHIFT,
    record::{Counters, Settings, short_hook},
    table::phase_of,
    wire::{self, Bytes, Link},
};

use crate::{
    clock, diagnostics,
    maps::{self, COUNTERS, SCRATCH},
    packet::{Packet, SkbPacket},
    publish,
    scratch::{Acquired, Direction, Scratch},
    table,
    verifier::number,
};

/// For the program behind a tail call: what this one is.
#[inline(always)]
pub fn remember_hook(link: Link, direction: Direction) {
    if let Some(scratch) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; programs of one CPU do not interrupt each other while they run.
        unsafe {
            (*scratch).link = link;
            (*scratch).direction = direction;
        }
    }
}

/// What this CPU works with.
#[inline(always)]
fn per_cpu() -> Option<(&'static mut Scratch, &'static Settings, &'static mut Counters)> {
    let (scratch, counters) = (SCRATCH.get_ptr_mut(0)?, COUNTERS.get_ptr_mut(0)?);
    // SAFETY: as in `remember_hook`; called once for a packet.
    Some(unsafe { (&mut *scratch, maps::settings(), &mut *counters) })
}

/// The agent attaches nothing before the program behind the tail call is in place; even so the packet is counted.
#[inline(always)]
pub fn count_missing_program() {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: as in `remember_hook`.
        let counters = unsafe { &mut *counters };
        counters.seen += 1;
        publish::ignored(counters, Ignored::Contended);
    }
}

/// Follows one packet. Every way out increments exactly one of `tracked` and `ignored`.
#[inline(always)]
pub fn observe<P: Packet>(packet: &P, link: Link, direction: Direction) {
    let Some((scratch, settings, counters)) = per_cpu() else { return };
    let read = read(packet, packet, link, direction, scratch);
    finish(read, scratch, settings, counters);
}

/// The same behind a TC program, which has said in `Scratch` what it is. Returns false, and has done nothing, where the
/// headers are not all in the packet's linear part.
#[inline(always)]
pub fn observe_linear(packet: &SkbPacket<'_>) -> bool {
    let Some((scratch, settings, counters)) = per_cpu() else { return true };
    let (link, direction) = (scratch.link, scratch.direction);
    let read = read(packet, packet, link, direction, scratch);
    if matches!(read, Err(Ignored::Truncated)) {
        return false;
    }
    finish(read, scratch, settings, counters);
    true
}

/// Reads what [`observe_linear`] has left, for [`observe_read`]. Returns false if that is all that there is to do.
#[inline(always)]
pub fn read_copied(packet: &SkbPacket<'_>) -> bool {
    let Some((scratch, _, counters)) = per_cpu() else { return false };
    let (link, direction) = (scratch.link, scratch.direction);
    let read = match packet.copied() {
        Some(copied) => read(&copied, packet, link, direction, scratch),
        None => Err(Ignored::Truncated),
    };
    let is_read = read.is_ok();
    if !is_read {
        count(read, scratch, counters);
    }
    is_read
}

/// Follows the packet that [`read_copied`] has read.
#[inline(always)]
pub fn observe_read() {
    let Some((scratch, settings, counters)) = per_cpu() else { return };
    finish(Ok(()), scratch, settings, counters);
}

#[inline(always)]
fn finish(read: Result<(), Ignored>, scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) {
    let mut verdict = read;
    if verdict.is_ok() {
        verdict = follow(scratch, settings, counters);
    }
    count(verdict, scratch, counters);
}

#[inline(always)]
fn count(verdict: Result<(), Ignored>, scratch: &Scratch, counters: &mut Counters) {
    counters.seen += 1;
    match verdict {
        Ok(()) => counters.tracked += 1,
        Err(reason) => {
            publish::ignored(counters, reason);
            diagnostics::log_ignored(scratch, Some(reason));
        }
    }
}

/// Stage 1: bytes to key and segment.
#[inline(always)]
fn read<B: Bytes, P: Packet>(
    bytes: &B,
    packet: &P,
    link: Link,
    direction: Direction,
    scratch: &mut Scratch,
) -> Result<(), Ignored> {
    wire::parse_into(bytes, link, packet.stripped_vlan(), &mut scratch.packet)?;
    scratch.packet.segment.wire_segments = packet.wire_segments().clamp(1, 255) as u8;
    scratch.hook = packet.interface_index() << 1 | direction as u32;
    scratch.direction = direction;
    Ok(())
}

/// Stage 2: find the flow and take it out of its slot; stage 3: apply the segment; stage 4: put the flow back.
#[inline(always)]
fn follow(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) -> Result<(), Ignored> {
    if matches!(scratch.packet.segment.kind(), Kind::Bad) {
        return Err(Ignored::BadFlags);
    }
    let is_v4 = scratch.packet.key.family == 4;
    if is_v4 {
        table::get_or_insert::<FlowKey4>(scratch, settings, counters);
    } else {
        table::get_or_insert::<FlowKey>(scratch, settings, counters);
    }
    match scratch.acquired {
        Acquired::Locked => {}
        Acquired::Contended => {
            scratch.at_ns = clock::now_ns(settings);
            return publish::deferred(scratch, counters);
        }
        Acquired::Ignored(reason) => return Err(reason),
    }
    let counts = claim_direction(scratch);
    if counts {
        apply(scratch, settings, counters);
    }
    let phase = phase_of(&mut scratch.prediction, &scratch.record.flow);
    store_and_unlock(phase, scratch, settings);
    if counts { Ok(()) } else { Err(Ignored::Duplicate) }
}

#[inline(always)]
fn store_and_unlock(phase: u64, scratch: &Scratch, settings: &Settings) {
    if scratch.packet.key.family == 4 {
        table::store_and_unlock::<FlowKey4>(phase, scratch, settings);
    } else {
        table::store_and_unlock::<FlowKey>(phase, scratch, settings);
    }
}

/// Applies the segment to the flow, and tells of it.
#[inline(always)]
fn apply(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) {
    publish::count_segment(scratch, counters);
    let sender = sender(scratch);
    let outcome =
        scratch.record.flow.on_segment(scratch.at_ns, sender, &scratch.packet.segment, &settings.rules);
    publish::count_outcome(&outcome, &scratch.record.flow, counters);
    if outcome.is_transition() {
        if !matches!(outcome.previous, Previous::None) {
            scratch.outcome = outcome;
            publish::previous(scratch, counters);
        }
        if !is_unanswered_syn(&outcome) {
            publish::transition(&outcome, scratch, counters);
        }
    }
}

#[inline(always)]
fn sender(scratch: &Scratch) -> End {
    if number(&scratch.packet.sender) & 1 == 0 { End::A } else { End::B }
}

/// A direction belongs to the hook that saw it first, until that hook falls silent. Returns whether this packet counts.
#[inline(always)]
fn claim_direction(scratch: &mut Scratch) -> bool {
    let at = (scratch.at_ns >> AT_SHIFT) as u16;
    let sender = sender(scratch);
    let [from_a, from_b] = &mut scratch.prediction.directions;
    let [hook_a, hook_b] = &mut scratch.record.hooks;
    let (own, own_hook, peer_hook) = match sender {
        End::A => (from_a, hook_a, hook_b),
        End::B => (from_b, hook_b, hook_a),
    };
    if *own_hook != scratch.hook {
        if *own_hook != 0 && at.wrapping_sub(own.at) < HOOK_SILENCE {
            let came_in = *own_hook & 1 == 0;
            if *peer_hook == 0 && came_in && matches!(scratch.direction, Direction::Egress) {
                // What comes in and goes out again is for nobody here.
                scratch.record.flow.set_local(sender.peer(), false);
            }
            return false;
        }
        *own_hook = scratch.hook;
        own.hook = short_hook(scratch.hook);
        let leaves = matches!(scratch.direction, Direction::Egress);
        let peer_unknown = *peer_hook == 0;
        scratch.record.flow.set_local(sender, leaves);
        if peer_unknown {
            scratch.record.flow.set_local(sender.peer(), !leaves);
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

/// A second, in units of 2^26 ns.
const HOOK_SILENCE: u16 = 15;
