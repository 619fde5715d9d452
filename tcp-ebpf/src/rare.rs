//! The path of what few packets have: fragments, options of IPv4, ICMP. Each step is a program of its own.

use aya_ebpf::bindings::BPF_NOEXIST;
use tcp_common::{
    Cause, Ignored,
    record::{Counters, Settings, WaitingFragment, WholeDatagram, tail_call},
    wire::{Bytes, Position, check_options, parse_icmp},
};

use crate::{
    clock,
    maps::{self, FRAGMENTS, WHOLE_DATAGRAMS},
    observe,
    packet::PacketAccess,
    per_cpu::PerCpu,
    publish,
    scratch::Scratch,
    table::Acquired,
    verifier::reread,
};

/// Checks the options of the packet in the scratch memory. Returns the program that goes on with it, unless the packet is
/// ignored.
#[inline(always)]
pub(crate) fn options<B: Bytes>(bytes: Option<&B>, cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    let checked = match bytes {
        Some(bytes) => check_options(bytes, &scratch.packet.datagram),
        None => Err(Ignored::Truncated),
    };
    match checked {
        Ok(()) => Some(tail_call::LOCK),
        Err(reason) => {
            observe::ignore(reason, scratch, counters);
            None
        }
    }
}

/// Keeps the fragment in the scratch memory, or makes a whole segment of it and the one that has waited for it. Returns
/// the program that goes on with the segment.
#[inline(always)]
pub(crate) fn fragment(cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    match join(scratch, maps::settings(), counters) {
        Ok(true) => return Some(tail_call::LOCK),
        Ok(false) => {
            counters.seen += 1;
            counters.fragments_held += 1;
        }
        Err(reason) => observe::ignore(reason, scratch, counters),
    }
    None
}

/// Returns whether the segment in the scratch memory is whole. Otherwise the fragment waits from now on.
///
/// Who removes a fragment from the map, a program or the agent, counts it.
#[inline(always)]
fn join(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) -> Result<bool, Ignored> {
    let position = scratch.packet.datagram.fragment.position;
    if matches!(position, Position::Middle) {
        return Err(Ignored::Fragment);
    }
    let id = scratch.packet.datagram.id();
    let now_ns = clock::now_ns(settings);
    // SAFETY: a map value of integers. If another datagram is written to its memory meanwhile, one fragment is judged by
    // a mixture of both.
    let is_of_whole =
        unsafe { WHOLE_DATAGRAMS.get(id) }.is_some_and(|whole| whole.includes(&scratch.packet, now_ns));
    // The last fragment belongs to a first one that waits, if there is one.
    // SAFETY: nothing is read.
    if is_of_whole && (matches!(position, Position::First) || unsafe { FRAGMENTS.get(id) }.is_none()) {
        return Err(Ignored::Duplicate);
    }
    for _ in 0..2 {
        scratch.waiting.at_ns = now_ns;
        scratch.waiting.packet = scratch.packet;
        let waiting: &WaitingFragment = &scratch.waiting;
        match FRAGMENTS.insert(id, waiting, BPF_NOEXIST.into()) {
            Ok(()) => return Ok(false),
            Err(EEXIST) => {}
            // No room, or no memory.
            Err(_) => return Err(Ignored::Fragment),
        }
        // SAFETY: a map value. If its fragment is removed meanwhile, another may be written to its memory. What was read
        // is used only if this program removes the fragment below.
        let Some(other) = (unsafe { FRAGMENTS.get(id) }) else { continue };
        scratch.waiting = *other;
        if scratch.waiting.has_expired(now_ns) {
            if FRAGMENTS.remove(id).is_ok() {
                counters.fragments_released += 1;
                publish::ignored(counters, Ignored::Fragment, 1);
            }
            continue;
        }
        if scratch.waiting.packet.datagram.fragment.position as u32 == position as u32 {
            return Err(Ignored::Duplicate);
        }
        if FRAGMENTS.remove(id).is_err() {
            continue;
        }
        counters.fragments_released += 1;
        scratch.waited = 1;
        if matches!(position, Position::Last) {
            core::mem::swap(&mut scratch.packet, &mut scratch.waiting.packet);
        }
        // Too many to remember only means that copies wait in vain.
        let whole = WholeDatagram::new(&scratch.packet, now_ns);
        let _ = WHOLE_DATAGRAMS.insert(id, whole, 0);
        return scratch.packet.complete(&scratch.waiting.packet.datagram).map(|()| true);
    }
    Err(Ignored::Fragment)
}

/// Reads an ICMP message, and applies it to the flow that it is about.
#[inline(always)]
pub(crate) fn icmp<B: Bytes, P: PacketAccess>(bytes: Option<&B>, packet: &P, cpu: &mut PerCpu) {
    let Some((scratch, counters)) = cpu.scratch_and_counters() else { return };
    let applied = match bytes {
        Some(bytes) => apply_icmp(bytes, packet, scratch, maps::settings(), counters),
        None => Err(Ignored::Truncated),
    };
    match applied {
        Ok(()) => observe::track(scratch, counters),
        Err(reason) => observe::ignore(reason, scratch, counters),
    }
}

#[inline(always)]
fn apply_icmp<B: Bytes, P: PacketAccess>(
    bytes: &B,
    packet: &P,
    scratch: &mut Scratch,
    settings: &Settings,
    counters: &mut Counters,
) -> Result<(), Ignored> {
    let error = parse_icmp(bytes, &mut scratch.packet)?;
    observe::set_domain(packet, scratch)?;
    observe::acquire(false, scratch, settings, counters);
    match reread(&scratch.acquired) {
        Acquired::Locked => {}
        Acquired::Contended => return Err(Ignored::Contended),
        Acquired::SelfConnect | Acquired::NoFlow | Acquired::TableFull => return Err(Ignored::Icmp),
    }
    let (sender, seq, family) =
        (observe::sender(scratch), scratch.packet.segment.seq, scratch.packet.key.family);
    let flow = &mut scratch.record.flow;
    scratch.outcome = flow.on_icmp_error(scratch.at_ns, sender, seq, error, family, &settings.rules);
    let outcome = reread(&scratch.outcome);
    let is_applied = !matches!(outcome.cause, Cause::Nothing);
    // Without an effect of the error there may be one of the clock.
    if is_applied || outcome.is_transition() {
        observe::publish_outcome(scratch, counters);
    }
    observe::store_and_unlock(scratch, settings);
    if is_applied { Ok(()) } else { Err(Ignored::Icmp) }
}

/// `EEXIST`, as helpers return it.
const EEXIST: i32 = -17;
