//! The path of what few packets have: fragments, options of IPv4, ICMP. Each step is a program of its own.

use aya_ebpf::bindings::BPF_NOEXIST;
use tcp_common::{
    Cause, Ignored,
    record::{Counters, Settings, WaitingDatagram, WholeDatagram, tail_call},
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

/// Keeps the fragment in the scratch memory, or makes a whole segment of it and those that have waited for it. Returns the
/// program that goes on with the segment.
#[inline(always)]
pub(crate) fn fragment(cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    match join(scratch, maps::settings(), counters) {
        Ok(true) => return Some(tail_call::LOCK),
        Ok(false) => counters.seen += 1,
        Err(reason) => observe::ignore(reason, scratch, counters),
    }
    None
}

/// Adds the fragment in the scratch memory to its datagram. Returns whether that is whole, and its segment in the scratch
/// memory now. Otherwise the fragment waits, and is counted.
///
/// Who removes a datagram from the map, a program or the agent, counts its fragments.
#[inline(always)]
fn join(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) -> Result<bool, Ignored> {
    let id = scratch.packet.datagram.id();
    let now_ns = clock::now_ns(settings);
    let is_middle = matches!(scratch.packet.datagram.fragment.position, Position::Middle);
    let is_first = matches!(scratch.packet.datagram.fragment.position, Position::First);
    // SAFETY: a map value of integers. If another datagram is written to its memory meanwhile, one fragment is judged by
    // a mixture of both.
    let is_of_whole =
        unsafe { WHOLE_DATAGRAMS.get(id) }.is_some_and(|whole| whole.includes(&scratch.packet, now_ns));
    // Other fragments than the first belong to a datagram that waits, if there is one.
    // SAFETY: nothing is read.
    if is_of_whole && (is_first || unsafe { FRAGMENTS.get(id) }.is_none()) {
        return Err(if is_middle { Ignored::Fragment } else { Ignored::Duplicate });
    }
    // SAFETY: a map value. If its datagram is removed meanwhile, another may be written to its memory. What was read is used
    // only if this program removes the datagram.
    match unsafe { FRAGMENTS.get(id) } {
        Some(known) => {
            scratch.waiting = *known;
            if FRAGMENTS.remove(id).is_err() {
                return Err(Ignored::Fragment);
            }
            counters.fragments_released += scratch.waiting.waiting as u64;
            if scratch.waiting.has_expired(now_ns) {
                publish::ignored(counters, Ignored::Fragment, scratch.waiting.waiting as u64);
                scratch.waiting.begin(now_ns);
            }
        }
        None => scratch.waiting.begin(now_ns),
    }
    let waits = scratch.waiting.add(&scratch.packet);
    if scratch.waiting.is_whole() {
        // The first and the last one count with the segment.
        if is_middle {
            publish::ignored(counters, Ignored::Fragment, 1);
        }
        scratch.waited = 1;
        // Too many to remember only means that copies wait in vain.
        let whole = WholeDatagram::new(&scratch.waiting.packet, now_ns);
        let _ = WHOLE_DATAGRAMS.insert(id, whole, 0);
        let completed = scratch.waiting.complete();
        scratch.packet = scratch.waiting.packet;
        return completed.map(|()| true);
    }
    let waiting: &WaitingDatagram = &scratch.waiting;
    let count = waiting.waiting as u64;
    match FRAGMENTS.insert(id, waiting, BPF_NOEXIST.into()) {
        Ok(()) => counters.fragments_held += count,
        // No room, no memory, or another CPU was in between.
        Err(_) => publish::ignored(counters, Ignored::Fragment, count),
    }
    match waits {
        Ok(true) => Ok(false),
        Ok(false) => Err(Ignored::Fragment),
        Err(reason) => Err(reason),
    }
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
