//! The path of a packet that was not predicted, from top to bottom.
//!
//! What every segment needs is inlined: on CPUs that guard returns against speculation (Zen 1 to 4, some Intel), a call
//! costs some 6 ns. Rare steps are calls, which free their stack when they return.

use tcp_common::{
    Cause, End, FlowKey, FlowKey4, Ignored, Outcome, Previous, SegmentKind,
    record::{Counters, Settings, Sighting, tail_call},
    table::phase_of,
    wire::{self, Bytes, Content, FirstHeader},
};

use crate::{
    clock, diagnostics, maps,
    packet::{PacketAccess, SkbPacket},
    per_cpu::PerCpu,
    publish,
    scratch::{Direction, Scratch},
    table::{self, Acquired},
    verifier::{number, reread},
};

/// Notes the hook of the current program for the program behind the tail call.
#[inline(always)]
pub(crate) fn remember_hook(link: FirstHeader, direction: Direction, cpu: &mut PerCpu) {
    if let Some(scratch) = cpu.scratch() {
        scratch.link = link;
        scratch.direction = direction;
    }
}

/// Counts a packet whose tail call found no program.
///
/// The agent fills the program arrays before it attaches anything, and holds them as long as anything is attached.
#[inline(always)]
pub(crate) fn count_missing_program(cpu: &mut PerCpu) {
    if let Some(counters) = cpu.counters() {
        counters.seen += 1;
        publish::ignored(counters, Ignored::NoProgram, 1);
    }
}

/// Follows one packet, or returns the program that goes on with it.
///
/// All programs together increment exactly one of `tracked` and `ignored` for each packet.
#[inline(always)]
pub(crate) fn observe<P: PacketAccess>(
    packet: &P,
    link: FirstHeader,
    direction: Direction,
    cpu: &mut PerCpu,
) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    match read(packet, packet, link, direction, scratch) {
        Ok(Content::Segment) => finish(scratch, maps::settings(), counters),
        Ok(content) => return Some(next(content)),
        Err(reason) => ignore(reason, scratch, counters),
    }
    None
}

/// Follows one packet behind a TC entry program, whose hook is in the scratch memory, or returns the program that goes on
/// with it: [`tail_call::COPY`] if the headers are not all in the packet's linear part.
#[inline(always)]
pub(crate) fn observe_linear(packet: &SkbPacket<'_>, cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    let (link, direction) = (scratch.link, scratch.direction);
    match read(packet, packet, link, direction, scratch) {
        Ok(Content::Segment) => finish(scratch, maps::settings(), counters),
        Ok(content) => return Some(next(content)),
        Err(Ignored::Truncated) => return Some(tail_call::COPY),
        Err(reason) => ignore(reason, scratch, counters),
    }
    None
}

/// Reads a packet that [`observe_linear`] could not read, from a copy, into the scratch memory. Returns the program that
/// goes on with it, unless the packet is ignored.
#[inline(always)]
pub(crate) fn read_copied(packet: &SkbPacket<'_>, cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    let (link, direction) = (scratch.link, scratch.direction);
    let read = match packet.copied() {
        Some(copied) => read(&copied, packet, link, direction, scratch),
        None => Err(Ignored::Truncated),
    };
    match read {
        Ok(content) => Some(next(content)),
        Err(reason) => {
            ignore(reason, scratch, counters);
            None
        }
    }
}

/// Follows the packet that another program has read into the scratch memory.
#[inline(always)]
pub(crate) fn observe_read(cpu: &mut PerCpu) {
    let Some((scratch, counters)) = cpu.scratch_and_counters() else { return };
    finish(scratch, maps::settings(), counters);
}

/// The program that goes on with a packet of this content.
#[inline(always)]
const fn next(content: Content) -> u32 {
    match content {
        Content::Segment => tail_call::APPLY,
        Content::BehindOptions => tail_call::OPTIONS,
        Content::Fragment => tail_call::FRAGMENT,
        Content::Icmp => tail_call::ICMP,
    }
}

#[inline(always)]
fn finish(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) {
    match follow(scratch, settings, counters) {
        Ok(()) => track(scratch, counters),
        Err(reason) => ignore(reason, scratch, counters),
    }
}

/// Counts a packet that was followed, and the fragment that had waited for it.
#[inline(always)]
pub(crate) fn track(scratch: &Scratch, counters: &mut Counters) {
    counters.seen += 1;
    counters.tracked += 1 + scratch.waited as u64;
}

/// Counts a packet that is ignored, and the fragment that had waited for it.
#[inline(always)]
pub(crate) fn ignore(reason: Ignored, scratch: &Scratch, counters: &mut Counters) {
    counters.seen += 1;
    publish::ignored(counters, reason, 1 + scratch.waited as u64);
    diagnostics::log_ignored(scratch, Some(reason));
}

/// Step 1: parses the bytes of a packet.
#[inline(always)]
fn read<B: Bytes, P: PacketAccess>(
    bytes: &B,
    packet: &P,
    link: FirstHeader,
    direction: Direction,
    scratch: &mut Scratch,
) -> Result<Content, Ignored> {
    scratch.hook = packet.interface_index() << 1 | direction as u32;
    scratch.direction = direction;
    scratch.waited = 0;
    let content = wire::parse_into(bytes, link, packet.stripped_vlan(), &mut scratch.packet)?;
    scratch.packet.segment.wire_segments = packet.wire_segments();
    set_domain(packet, scratch);
    Ok(content)
}

/// Sets what distinguishes connections with equal addresses.
#[inline(always)]
pub(crate) fn set_domain<P: PacketAccess>(packet: &P, scratch: &mut Scratch) {
    if scratch.packet.key.is_link_local() {
        scratch.packet.key.domain = maps::scope_of(packet.interface_index(), scratch.packet.tags as u16);
    }
}

/// Step 2: locks the flow. Step 3: applies the segment. Step 4: stores and unlocks the flow.
#[inline(always)]
fn follow(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) -> Result<(), Ignored> {
    if matches!(scratch.packet.segment.kind(), SegmentKind::Bad) {
        return Err(Ignored::BadFlags);
    }
    let inserts = !matches!(scratch.packet.segment.kind(), SegmentKind::Rst);
    acquire(inserts, scratch, settings, counters);
    match reread(&scratch.acquired) {
        Acquired::Locked => {}
        Acquired::Contended => return defer(scratch, settings, counters),
        Acquired::SelfConnect => return Err(Ignored::SelfConnect),
        Acquired::NoFlow => return Err(Ignored::NoFlow),
        Acquired::TableFull => return Err(Ignored::TableFull),
    }
    judge(scratch);
    if reread(&scratch.verdict).ignored().is_none() {
        apply(scratch, settings, counters);
        note(scratch);
    }
    let phase = phase_of(&mut scratch.prediction, &scratch.record.flow);
    store_and_unlock(phase, scratch, settings);
    match reread(&scratch.verdict).ignored() {
        None => Ok(()),
        Some(reason) => Err(reason),
    }
}

/// Locks the packet's flow, a new one if `inserts`.
#[inline(always)]
pub(crate) fn acquire(inserts: bool, scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) {
    scratch.acquired = if scratch.packet.key.family == 4 {
        table::get_or_insert::<FlowKey4>(inserts, scratch, settings, counters)
    } else {
        table::get_or_insert::<FlowKey>(inserts, scratch, settings, counters)
    };
}

/// Decides whether the packet counts. Looks up which ends belong to this host, if the flow is new.
#[inline(never)]
fn judge(scratch: &mut Scratch) {
    let sender = sender(scratch);
    let Scratch { packet, record, prediction, hook, at_ns, verdict, .. } = scratch;
    let [a, b] = record.sightings.hooks;
    if a | b == 0 {
        for end in [End::A, End::B] {
            record.flow.set_local(end, maps::is_local(&packet.key.endpoint(end)));
        }
    }
    let seen = Sighting { hook: *hook, tags: packet.tags, at_ns: *at_ns, sender, segment: &packet.segment };
    let direction = &prediction.directions[sender as usize & 1];
    *verdict = record.sightings.judge(&record.flow, direction, &seen);
}

/// Notes where the packet was seen. After the outcome was published, so that the verifier follows one path to here.
#[inline(never)]
fn note(scratch: &mut Scratch) {
    let sender = sender(scratch);
    let Scratch { packet, record, prediction, hook, at_ns, verdict, outcome, .. } = scratch;
    let seen = Sighting { hook: *hook, tags: packet.tags, at_ns: *at_ns, sender, segment: &packet.segment };
    let direction = &mut prediction.directions[sender as usize & 1];
    record.sightings.note(direction, &seen, *verdict, reread(&outcome.cause).has_effect());
}

/// Defers the segment to the agent.
#[inline(always)]
fn defer(scratch: &Scratch, settings: &Settings, counters: &mut Counters) -> Result<(), Ignored> {
    if publish::deferred(clock::now_ns(settings), scratch.slot, scratch, counters) {
        Ok(())
    } else {
        Err(Ignored::Contended)
    }
}

#[inline(always)]
pub(crate) fn store_and_unlock(phase: u64, scratch: &Scratch, settings: &Settings) {
    if scratch.packet.key.family == 4 {
        table::store_and_unlock::<FlowKey4>(phase, scratch, settings);
    } else {
        table::store_and_unlock::<FlowKey>(phase, scratch, settings);
    }
}

/// Applies the segment to the flow, and publishes what it did.
#[inline(always)]
fn apply(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) {
    publish::count_segment(scratch, counters);
    let sender = sender(scratch);
    // Through memory: the verifier then has one path from here, not one for each outcome.
    scratch.outcome =
        scratch.record.flow.on_segment(scratch.at_ns, sender, &scratch.packet.segment, &settings.rules);
    publish_outcome(scratch, counters);
}

/// Counts what was done to the flow, and publishes transitions.
#[inline(always)]
pub(crate) fn publish_outcome(scratch: &mut Scratch, counters: &mut Counters) {
    let outcome = reread(&scratch.outcome);
    publish::count_outcome(&outcome, &scratch.record.flow, counters);
    if outcome.is_transition() {
        if !matches!(outcome.previous, Previous::None) {
            publish::previous(&outcome, scratch, counters);
        }
        if !is_unanswered_syn(&outcome) {
            publish::transition(&outcome, scratch, counters);
        }
    }
}

#[inline(always)]
pub(crate) fn sender(scratch: &Scratch) -> End {
    if number(&scratch.packet.sender) & 1 == 0 { End::A } else { End::B }
}

/// A SYN without an answer is not published: a flood of SYNs must not crowd out the events of other flows.
#[inline(always)]
fn is_unanswered_syn(outcome: &Outcome) -> bool {
    matches!(outcome.cause, Cause::Syn) && matches!(outcome.previous, Previous::None | Previous::Over)
}
