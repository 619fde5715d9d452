//! The path of a packet that was not predicted, from top to bottom.
//!
//! Its steps are three programs, with tail calls in between. What every segment needs is inlined: on CPUs that guard returns
//! against speculation (Zen 1 to 4, some Intel), a call costs some 6 ns. Rare steps are calls, which free their stack when
//! they return.

use tcp_common::{
    Cause, End, Flags, FlowKey, FlowKey4, Ignored, Outcome, Previous, SegmentKind,
    record::{Counters, ForeignSegment, Settings, Sighting, Sightings, tail_call},
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

/// Counts a packet whose tail call found no program, and unlocks its flow.
///
/// The agent fills the program arrays before it attaches anything, and holds them as long as anything is attached.
#[inline(always)]
pub(crate) fn count_missing_program(index: u32, cpu: &mut PerCpu) {
    let Some((scratch, counters)) = cpu.scratch_and_counters() else { return };
    match index {
        // Nothing was read of this packet yet.
        tail_call::READ => scratch.waited = 0,
        tail_call::APPLY | tail_call::FINISH => store_and_unlock(scratch, maps::settings()),
        _ => {}
    }
    ignore(Ignored::NoProgram, scratch, counters);
}

/// Reads one packet and locks its flow. Returns the program that goes on with it, unless it is ignored or deferred.
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
        Ok(Content::Segment) => lock(scratch, maps::settings(), counters),
        Ok(content) => Some(next(content)),
        Err(reason) => {
            ignore(reason, scratch, counters);
            None
        }
    }
}

/// Reads one packet behind a TC entry program, whose hook is in the scratch memory, and locks its flow. Returns the program
/// that goes on with it: [`tail_call::COPY`] if the headers are not all in the packet's linear part.
#[inline(always)]
pub(crate) fn observe_linear(packet: &SkbPacket<'_>, cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    let (link, direction) = (scratch.link, scratch.direction);
    match read(packet, packet, link, direction, scratch) {
        Ok(Content::Segment) => lock(scratch, maps::settings(), counters),
        Ok(content) => Some(next(content)),
        Err(Ignored::Truncated) => Some(tail_call::COPY),
        Err(reason) => {
            ignore(reason, scratch, counters);
            None
        }
    }
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

/// Locks the flow of the packet that another program has read into the scratch memory. Returns the program that goes on
/// with it, unless it is ignored or deferred.
#[inline(always)]
pub(crate) fn lock_read(cpu: &mut PerCpu) -> Option<u32> {
    let (scratch, counters) = cpu.scratch_and_counters()?;
    lock(scratch, maps::settings(), counters)
}

/// The program that goes on with a packet of this content.
#[inline(always)]
const fn next(content: Content) -> u32 {
    match content {
        Content::Segment => tail_call::LOCK,
        Content::BehindOptions => tail_call::OPTIONS,
        Content::Fragment => tail_call::FRAGMENT,
        Content::Icmp => tail_call::ICMP,
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
    scratch.is_forwarded = matches!(direction, Direction::Egress) && packet.has_come_in();
    scratch.waited = 0;
    let content = wire::parse_into(bytes, link, packet.stripped_vlan(), &mut scratch.packet)?;
    scratch.packet.segment.wire_segments = packet.wire_segments();
    set_domain(packet, scratch)?;
    Ok(content)
}

/// Sets what distinguishes connections with equal addresses and ports.
#[inline(always)]
pub(crate) fn set_domain<P: PacketAccess>(packet: &P, scratch: &mut Scratch) -> Result<(), Ignored> {
    let tags = scratch.packet.tags;
    if scratch.packet.key.is_link_local() {
        scratch.packet.key.domain = maps::scope_of(packet.interface_index(), tags as u16);
    } else if tags != 0 && maps::settings().key_by_vlan != 0 {
        scratch.packet.key.domain = maps::vlan_domain(tags).ok_or(Ignored::TooManyVlans)?;
    }
    Ok(())
}

/// Step 2: locks the flow, and decides whether the packet counts.
#[inline(always)]
fn lock(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) -> Option<u32> {
    let result = if matches!(scratch.packet.segment.kind(), SegmentKind::Bad) {
        Err(Ignored::BadFlags)
    } else {
        let inserts = !matches!(scratch.packet.segment.kind(), SegmentKind::Rst);
        acquire(inserts, scratch, settings, counters);
        match reread(&scratch.acquired) {
            Acquired::Locked => {
                judge(scratch);
                let counts = reread(&scratch.verdict).ignored().is_none();
                return Some(if counts { tail_call::APPLY } else { tail_call::FINISH });
            }
            Acquired::Contended => defer(scratch, settings, counters),
            Acquired::SelfConnect => Err(Ignored::SelfConnect),
            Acquired::NoFlow => Err(Ignored::NoFlow),
            Acquired::TableFull => Err(Ignored::TableFull),
        }
    };
    match result {
        Ok(()) => track(scratch, counters),
        Err(reason) => ignore(reason, scratch, counters),
    }
    None
}

/// Step 3: applies the segment to the flow. The machine has a program of its own, in which no other step multiplies the
/// paths that the verifier follows.
#[inline(always)]
pub(crate) fn apply(cpu: &mut PerCpu) {
    let Some(scratch) = cpu.scratch() else { return };
    let sender = sender(scratch);
    let flow = &mut scratch.record.flow;
    scratch.outcome =
        flow.on_segment(scratch.at_ns, sender, &scratch.packet.segment, &maps::settings().rules);
}

/// Step 4: publishes what the segment did, and stores and unlocks the flow.
#[inline(always)]
pub(crate) fn finish(cpu: &mut PerCpu) {
    let Some((scratch, counters)) = cpu.scratch_and_counters() else { return };
    let ignored = reread(&scratch.verdict).ignored();
    if ignored.is_none() {
        publish::count_segment(scratch, counters);
        publish_outcome(scratch, counters);
        note(scratch);
    }
    if matches!(ignored, Some(Ignored::OtherNetwork)) {
        remember_foreign(scratch);
    }
    store_and_unlock(scratch, maps::settings());
    match ignored {
        None => track(scratch, counters),
        Some(reason) => ignore(reason, scratch, counters),
    }
}

/// Remembers a segment of another network for the agent's status.
#[inline(never)]
fn remember_foreign(scratch: &Scratch) {
    let Some(foreign) = maps::FOREIGN_SEGMENTS.get_ptr_mut(0) else { return };
    let index = sender(scratch) as usize & 1;
    let Scratch { packet, record, hook, at_ns, .. } = scratch;
    let Sightings { hooks, tags, .. } = &record.sightings;
    let seen = ForeignSegment {
        at_ns: *at_ns,
        key: packet.key,
        hooks: [hooks[index], *hook],
        tags: [tags[index], packet.tags],
    };
    // SAFETY: a value of this CPU's map, valid while the program runs, and borrowed nowhere else. The agent may read it
    // while it is written, and then shows parts of two segments.
    unsafe { *foreign = seen };
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
///
/// The first packet of an end may show that the end is elsewhere though the address is this host's: another host has it
/// behind a translation (NAT) if this host forwards the packet.
#[inline(never)]
fn judge(scratch: &mut Scratch) {
    let sender = sender(scratch);
    let Scratch { packet, record, prediction, hook, at_ns, verdict, is_forwarded, .. } = scratch;
    let [a, b] = record.sightings.hooks;
    if a | b == 0 {
        for end in [End::A, End::B] {
            record.flow.set_local(end, maps::is_local(&packet.key.endpoint(end)));
        }
    }
    if *is_forwarded && record.sightings.hooks[sender as usize & 1] == 0 {
        record.flow.set_local(sender, false);
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
pub(crate) fn store_and_unlock(scratch: &mut Scratch, settings: &Settings) {
    let phase = phase_of(&mut scratch.prediction, &scratch.record.flow);
    if scratch.packet.key.family == 4 {
        table::store_and_unlock::<FlowKey4>(phase, scratch, settings);
    } else {
        table::store_and_unlock::<FlowKey>(phase, scratch, settings);
    }
}

/// Counts what was done to the flow, and publishes what changed a state, and every SYN, FIN and RST.
#[inline(always)]
pub(crate) fn publish_outcome(scratch: &mut Scratch, counters: &mut Counters) {
    let outcome = reread(&scratch.outcome);
    publish::count_outcome(&outcome, scratch, counters);
    if !matches!(outcome.previous, Previous::None) {
        publish::previous(&outcome, scratch, counters);
    }
    let is_of_lifecycle = scratch.packet.segment.flags.has(Flags::SYN | Flags::FIN | Flags::RST);
    if (outcome.is_transition() || is_of_lifecycle) && !is_unanswered_syn(&outcome) {
        publish::segment(&outcome, scratch, counters);
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
