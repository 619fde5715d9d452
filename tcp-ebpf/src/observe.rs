//! A packet's way through the machine's program, top to bottom.
//!
//! What every segment passes is inlined: where returns are guarded against speculation (Zen 1 to 4, some Intel) a call costs
//! some 6 ns. What is rare is a call, whose stack is free again after it. The stages hand on what they know in [`Work`]; the
//! machine works on a copy of the flow there, so that it is in the program once for both tables.

use tcp_common::{
    Cause, End, FlowKey, FlowKey4, Ignored, Kind, Outcome, Previous,
    flow::AT_SHIFT,
    record::{Counters, Settings, rest, short_hook},
    wire::{self, Bytes, Link},
};

use crate::{
    clock, diagnostics,
    maps::{self, COUNTERS, WORK},
    packet::{Packet, SkbPacket},
    publish, table,
    verifier::number,
    work::{Direction, Taken, Work},
};

/// For the program behind a tail call: what this one is.
#[inline(always)]
pub fn hand_on(link: Link, direction: Direction) {
    if let Some(work) = WORK.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; programs of one CPU do not interrupt each other while they run.
        unsafe {
            (*work).link = link;
            (*work).direction = direction;
        }
    }
}

/// What this CPU works with.
#[inline(always)]
fn desk() -> Option<(&'static mut Work, &'static Settings, &'static mut Counters)> {
    let (work, counters) = (WORK.get_ptr_mut(0)?, COUNTERS.get_ptr_mut(0)?);
    // SAFETY: as in `hand_on`; called once for a packet.
    Some(unsafe { (&mut *work, maps::settings(), &mut *counters) })
}

/// The agent attaches nothing before the program behind the tail call is in place; even so the packet is counted.
#[inline(always)]
pub fn nowhere_to_go() {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: as in `hand_on`.
        let counters = unsafe { &mut *counters };
        counters.seen += 1;
        publish::ignored(counters, Ignored::Contended);
    }
}

/// Follows one packet. Every way out increments exactly one of `tracked` and `ignored`.
#[inline(always)]
pub fn observe<P: Packet>(packet: &P, link: Link, direction: Direction) {
    let Some((work, settings, counters)) = desk() else { return };
    let read = read(packet, packet, link, direction, work);
    finish(read, work, settings, counters);
}

/// The same behind a TC program, which has said in `Work` what it is. Returns false, and has done nothing, where the
/// headers are not all in the packet's linear part.
#[inline(always)]
pub fn observe_linear(packet: &SkbPacket<'_>) -> bool {
    let Some((work, settings, counters)) = desk() else { return true };
    let (link, direction) = (work.link, work.direction);
    let read = read(packet, packet, link, direction, work);
    if matches!(read, Err(Ignored::Truncated)) {
        return false;
    }
    finish(read, work, settings, counters);
    true
}

/// Reads what [`observe_linear`] has left, for [`observe_read`]. Returns false if that is all that there is to do.
#[inline(always)]
pub fn read_copied(packet: &SkbPacket<'_>) -> bool {
    let Some((work, _, counters)) = desk() else { return false };
    let (link, direction) = (work.link, work.direction);
    let read = match packet.copied() {
        Some(copied) => read(&copied, packet, link, direction, work),
        None => Err(Ignored::Truncated),
    };
    let is_read = read.is_ok();
    if !is_read {
        count(read, work, counters);
    }
    is_read
}

/// Follows the packet that [`read_copied`] has read.
#[inline(always)]
pub fn observe_read() {
    let Some((work, settings, counters)) = desk() else { return };
    finish(Ok(()), work, settings, counters);
}

#[inline(always)]
fn finish(read: Result<(), Ignored>, work: &mut Work, settings: &Settings, counters: &mut Counters) {
    let mut verdict = read;
    if verdict.is_ok() {
        verdict = follow(work, settings, counters);
    }
    count(verdict, work, counters);
}

#[inline(always)]
fn count(verdict: Result<(), Ignored>, work: &Work, counters: &mut Counters) {
    counters.seen += 1;
    match verdict {
        Ok(()) => counters.tracked += 1,
        Err(reason) => {
            publish::ignored(counters, reason);
            diagnostics::tell(work, Some(reason));
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
    work: &mut Work,
) -> Result<(), Ignored> {
    wire::parse_into(bytes, link, packet.stripped_vlan(), &mut work.packet)?;
    work.packet.segment.wire_segments = packet.wire_segments().clamp(1, 255) as u8;
    work.hook = packet.interface_index() << 1 | direction as u32;
    work.direction = direction;
    Ok(())
}

/// Stage 2: find the flow and take it out of its slot; stage 3: apply the segment; stage 4: put the flow back.
#[inline(always)]
fn follow(work: &mut Work, settings: &Settings, counters: &mut Counters) -> Result<(), Ignored> {
    if matches!(work.packet.segment.kind(), Kind::Bad) {
        return Err(Ignored::BadFlags);
    }
    let is_v4 = work.packet.key.family == 4;
    if is_v4 {
        table::take::<FlowKey4>(work, settings, counters);
    } else {
        table::take::<FlowKey>(work, settings, counters);
    }
    match work.taken {
        Taken::Owned => {}
        Taken::Busy => {
            work.at_ns = clock::now_ns(settings);
            return publish::deferred(work, counters);
        }
        Taken::Nothing(reason) => return Err(reason),
    }
    let counts = claim_direction(work);
    if counts {
        apply(work, settings, counters);
    }
    let phase = rest(&mut work.prediction, &work.record.flow);
    give_back(phase, work, settings);
    if counts { Ok(()) } else { Err(Ignored::Duplicate) }
}

#[inline(always)]
fn give_back(phase: u64, work: &Work, settings: &Settings) {
    if work.packet.key.family == 4 {
        table::give_back::<FlowKey4>(phase, work, settings);
    } else {
        table::give_back::<FlowKey>(phase, work, settings);
    }
}

/// Applies the segment to the flow, and tells of it.
#[inline(always)]
fn apply(work: &mut Work, settings: &Settings, counters: &mut Counters) {
    publish::count_segment(work, counters);
    let sender = sender(work);
    let outcome = work.record.flow.on_segment(work.at_ns, sender, &work.packet.segment, &settings.rules);
    publish::count_outcome(&outcome, &work.record.flow, counters);
    if outcome.is_transition() {
        if !matches!(outcome.previous, Previous::None) {
            work.outcome = outcome;
            publish::previous(work, counters);
        }
        if !is_unanswered_syn(&outcome) {
            publish::transition(&outcome, work, counters);
        }
    }
}

#[inline(always)]
fn sender(work: &Work) -> End {
    if number(&work.packet.sender) & 1 == 0 { End::A } else { End::B }
}

/// A direction belongs to the hook that saw it first, until that hook falls silent. Returns whether this packet counts.
#[inline(always)]
fn claim_direction(work: &mut Work) -> bool {
    let at = (work.at_ns >> AT_SHIFT) as u16;
    let sender = sender(work);
    let [from_a, from_b] = &mut work.prediction.directions;
    let [hook_a, hook_b] = &mut work.record.hooks;
    let (own, own_hook, peer_hook) = match sender {
        End::A => (from_a, hook_a, hook_b),
        End::B => (from_b, hook_b, hook_a),
    };
    if *own_hook != work.hook {
        if *own_hook != 0 && at.wrapping_sub(own.at) < HOOK_SILENCE {
            let came_in = *own_hook & 1 == 0;
            if *peer_hook == 0 && came_in && matches!(work.direction, Direction::Egress) {
                // What comes in and goes out again is for nobody here.
                work.record.flow.set_local(sender.peer(), false);
            }
            return false;
        }
        *own_hook = work.hook;
        own.hook = short_hook(work.hook);
        let leaves = matches!(work.direction, Direction::Egress);
        let peer_unknown = *peer_hook == 0;
        work.record.flow.set_local(sender, leaves);
        if peer_unknown {
            work.record.flow.set_local(sender.peer(), !leaves);
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
