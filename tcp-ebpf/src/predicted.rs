//! The way of the plain segment that its flow predicted: found, taken and let go within one cache line of the flow.

use tcp_common::{
    FlowKey, FlowKey4,
    record::{Counters, predicted, short_hook},
    table::{self, DirectoryEntry, HomeSlot, PredictedLookup, Storage as _},
    wire::{
        Header, Link,
        plain::{self, Plain},
    },
};

use crate::{
    clock,
    maps::{self, COUNTERS, MappedKey},
    packet::Packet,
    scratch::Direction,
    table::BpfStorage,
};

/// Takes the packet if it was predicted, and says whether it did; any other is for the machine.
#[inline(always)]
pub fn handle<P: Packet>(packet: &P, link: Link, direction: Direction) -> bool {
    match handle_at::<P, true>(packet, link, direction) {
        Some(handled) => handled,
        None => handle_elsewhere(packet, link, direction),
    }
}

/// The same where the flow is not at its home. A call of its own, which begins anew: what it needs must not be in the way of
/// flows that are at home.
#[inline(never)]
fn handle_elsewhere<P: Packet>(packet: &P, link: Link, direction: Direction) -> bool {
    handle_at::<P, false>(packet, link, direction) == Some(true)
}

/// Looks in one slot, the flow's home or where the directory says that it is. `None` if it is not there.
#[inline(always)]
fn handle_at<P: Packet, const AT_HOME: bool>(packet: &P, link: Link, direction: Direction) -> Option<bool> {
    let Some(start) = plain::start(packet, link, packet.stripped_vlan()) else { return Some(false) };
    match start.version {
        4 => match plain::v4(packet, start) {
            Some(plain) => handle_plain::<FlowKey4, P, _, AT_HOME>(&plain, packet, direction),
            None => Some(false),
        },
        6 => match plain::v6(packet, start) {
            Some(plain) => handle_plain::<FlowKey, P, _, AT_HOME>(&plain, packet, direction),
            None => Some(false),
        },
        _ => Some(false),
    }
}

#[inline(always)]
fn handle_plain<K: MappedKey, P: Packet, H: Header, const AT_HOME: bool>(
    plain: &Plain<K, H>,
    packet: &P,
    direction: Direction,
) -> Option<bool> {
    let settings = maps::settings();
    let maps = BpfStorage::<K>::new(settings);
    let home = HomeSlot::of(&plain.key, &settings.secret, maps.slot_count());
    let index = if AT_HOME {
        // Not needed here: asked for early, both lines come from memory at once where the flow is not at home.
        maps.directory_entry(home.index);
        home.index
    } else {
        table::find(maps, &plain.key, home, &mut DirectoryEntry(0))
    };
    let (slot, tag) = match table::predicted_at(maps, &plain.key, index) {
        PredictedLookup::Found(slot, tag) => (slot, tag),
        PredictedLookup::Elsewhere => return None,
        PredictedLookup::NotPredicted => return Some(false),
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
    if !maps.swap_tag(slot, tag, tag.lock_predicted()) {
        return Some(false);
    }
    prediction.apply(plain, wire_segments, now_ns);
    maps.store_tag(slot, tag.lock_predicted().unlock_predicted());
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
