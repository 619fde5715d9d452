//! The way of the plain segment that its flow predicted: found, taken and let go within one cache line of the flow.

use tcp_common::{
    FlowKey, FlowKey4,
    record::{Counters, predicted, short_hook},
    table::{self, Home, Memory as _, Steady, Word},
    wire::{
        Header, Link,
        plain::{self, Plain},
    },
};

use crate::{
    clock,
    maps::{self, COUNTERS, Table},
    packet::Packet,
    table::Maps,
    work::Direction,
};

/// Takes the packet if it was predicted, and says whether it did; any other is for the machine.
#[inline(always)]
pub fn take<P: Packet>(packet: &P, link: Link, direction: Direction) -> bool {
    match look::<P, true>(packet, link, direction) {
        Some(taken) => taken,
        None => take_elsewhere(packet, link, direction),
    }
}

/// The same where the flow is not at its home. A call of its own, which begins anew: what it needs must not be in the way of
/// flows that are at home.
#[inline(never)]
fn take_elsewhere<P: Packet>(packet: &P, link: Link, direction: Direction) -> bool {
    look::<P, false>(packet, link, direction) == Some(true)
}

/// Looks in one place, the flow's home or where the directory says that it is. `None` if it is not there.
#[inline(always)]
fn look<P: Packet, const AT_HOME: bool>(packet: &P, link: Link, direction: Direction) -> Option<bool> {
    let Some(start) = plain::start(packet, link, packet.stripped_vlan()) else { return Some(false) };
    match start.version {
        4 => match plain::v4(packet, start) {
            Some(plain) => take_plain::<FlowKey4, P, _, AT_HOME>(&plain, packet, direction),
            None => Some(false),
        },
        6 => match plain::v6(packet, start) {
            Some(plain) => take_plain::<FlowKey, P, _, AT_HOME>(&plain, packet, direction),
            None => Some(false),
        },
        _ => Some(false),
    }
}

#[inline(always)]
fn take_plain<K: Table, P: Packet, H: Header, const AT_HOME: bool>(
    plain: &Plain<K, H>,
    packet: &P,
    direction: Direction,
) -> Option<bool> {
    let settings = maps::settings();
    let maps = Maps::<K>::new(settings);
    let home = Home::of(&plain.key, &settings.secret, maps.places());
    let index = if AT_HOME {
        // Not needed here: asked for early, both lines come from memory at once where the flow is not at home.
        maps.word(home.index);
        home.index
    } else {
        table::find(maps, &plain.key, home, &mut Word(0))
    };
    let (slot, tag) = match table::steady_at(maps, &plain.key, index) {
        Steady::Here(slot, tag) => (slot, tag),
        Steady::Elsewhere => return None,
        Steady::Not => return Some(false),
    };
    let hook = short_hook(packet.interface_index() << 1 | direction as u32);
    let wire_segments = packet.wire_segments().clamp(1, 255);
    let now_ns = clock::coarse_ns(settings);
    // SAFETY: a map value. What is read before the tag changes hands is valid if the tag is still the same then.
    let prediction = unsafe { &mut (*slot).prediction };
    if !prediction.fits(plain, wire_segments, hook, now_ns, settings.steady_silence_ns) {
        return Some(false);
    }
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return Some(false) };
    if !maps.swap_tag(slot, tag, tag.interrupted()) {
        return Some(false);
    }
    prediction.apply(plain, wire_segments, now_ns);
    maps.store_tag(slot, tag.interrupted().resumed());
    // SAFETY: a per-CPU value; programs of one CPU do not interrupt each other while they run.
    count(unsafe { &mut *counters }, plain.payload_len, wire_segments, direction);
    Some(true)
}

#[inline(always)]
fn count(counters: &mut Counters, payload_len: u32, wire_segments: u32, direction: Direction) {
    let kind = if payload_len == 0 { predicted::ACK } else { predicted::DATA };
    counters.predicted[direction as usize][kind] += 1;
    if wire_segments != 1 {
        counters.merged[direction as usize][kind] += wire_segments as u64 - 1;
    }
}
