//! The fast path: a segment that its flow predicted is handled within one cache line of the flow.

use tcp_common::{
    FlowKey, FlowKey4,
    record::{Counters, predicted, short_hook},
    table::{self, DirectoryEntry, HomeSlot, PredictedLookup, Storage as _},
    wire::{
        FirstHeader, Header,
        plain::{self, Plain},
    },
};

use crate::{
    clock,
    maps::{self, MappedKey},
    packet::PacketAccess,
    per_cpu::PerCpu,
    scratch::Direction,
    table::BpfStorage,
};

/// Handles the packet if its flow predicted it. Returns false if the machine must follow the packet.
#[inline(always)]
pub(crate) fn handle<P: PacketAccess>(
    packet: &P,
    link: FirstHeader,
    direction: Direction,
    cpu: &mut PerCpu,
) -> bool {
    match handle_at::<P, true>(packet, link, direction, cpu) {
        Some(is_handled) => is_handled,
        None => handle_elsewhere(packet, link, direction, cpu),
    }
}

/// Handles the packet of a flow that is not in its home slot. A call that starts over, so that nothing it needs slows
/// down flows in their home slots.
#[inline(never)]
fn handle_elsewhere<P: PacketAccess>(
    packet: &P,
    link: FirstHeader,
    direction: Direction,
    cpu: &mut PerCpu,
) -> bool {
    handle_at::<P, false>(packet, link, direction, cpu) == Some(true)
}

/// Handles the packet if its flow is in one slot: the home slot, or the slot that the directory names.
///
/// Returns `None` if the flow is not in that slot, and false if the machine must follow the packet.
#[inline(always)]
fn handle_at<P: PacketAccess, const AT_HOME: bool>(
    packet: &P,
    link: FirstHeader,
    direction: Direction,
    cpu: &mut PerCpu,
) -> Option<bool> {
    let Some(start) = plain::start(packet, link, packet.stripped_vlan()) else { return Some(false) };
    match start.version {
        4 => match plain::v4(packet, start) {
            Some(plain) => handle_plain::<FlowKey4, P, _, AT_HOME>(&plain, packet, direction, cpu),
            None => Some(false),
        },
        6 => match plain::v6(packet, start) {
            Some(plain) => handle_plain::<FlowKey, P, _, AT_HOME>(&plain, packet, direction, cpu),
            None => Some(false),
        },
        _ => Some(false),
    }
}

#[inline(always)]
fn handle_plain<K: MappedKey, P: PacketAccess, H: Header, const AT_HOME: bool>(
    plain: &Plain<K, H>,
    packet: &P,
    direction: Direction,
    cpu: &mut PerCpu,
) -> Option<bool> {
    let settings = maps::settings();
    let storage = BpfStorage::<K>::new(settings);
    let home = HomeSlot::of(&plain.key, &settings.secret, storage.slot_count());
    let index = if AT_HOME {
        // Not needed here. The load overlaps with that of the slot, for flows that are not in their home slots.
        storage.directory_entry(home.index);
        home.index
    } else {
        table::find(storage, &plain.key, home, &mut DirectoryEntry(0))
    };
    let (slot, tag) = match table::predicted_at(storage, &plain.key, index) {
        PredictedLookup::Found(slot, tag) => (slot, tag),
        PredictedLookup::Elsewhere => return None,
        PredictedLookup::NotPredicted => return Some(false),
    };
    let hook = short_hook(packet.interface_index() << 1 | direction as u32);
    let wire_segments = packet.wire_segments();
    let now_ns = clock::coarse_ns(settings);
    // SAFETY: a map value made of integers. It is read before the slot is locked; what was read is used only if the tag
    // did not change until the slot was locked. It is written after that.
    let prediction = unsafe { &mut (*slot).prediction };
    if !prediction.fits(plain, wire_segments, hook, now_ns, settings.steady_silence_ns) {
        return Some(false);
    }
    let Some(counters) = cpu.counters() else { return Some(false) };
    if !storage.swap_tag(slot, tag, tag.lock_predicted()) {
        return Some(false);
    }
    prediction.apply(plain, wire_segments, hook, now_ns);
    storage.store_tag(slot, tag.lock_predicted().unlock_predicted());
    count(counters, plain.payload_len, wire_segments, direction);
    Some(true)
}

#[inline(always)]
fn count(counters: &mut Counters, payload_len: u32, wire_segments: u16, direction: Direction) {
    let kind = if payload_len == 0 { predicted::ACK } else { predicted::DATA };
    counters.predicted[direction as usize][kind] += 1;
    if wire_segments != 1 {
        counters.merged[direction as usize][kind] += wire_segments as u64 - 1;
    }
}
