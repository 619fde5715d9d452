//! The way of the plain segment that its flow predicted: found, taken and let go within one cache line of the flow.

use tcp_common::{
    FlowKey, FlowKey4,
    record::{Counters, Hash, Tag, WINDOW, segment_kind, short_hook},
    wire::{
        Link,
        plain::{self, Plain},
    },
};

use crate::{
    clock,
    maps::{COUNTERS, SETTINGS},
    packet::{Direction, Packet},
    table::{self, Table},
};

/// Takes the packet if it was predicted, and says whether it did; any other is for the machine.
#[inline(always)]
pub fn take<P: Packet>(packet: &P, link: Link, direction: Direction) -> bool {
    let Some(start) = plain::start(packet, link, packet.stripped_vlan()) else { return false };
    match start.version {
        4 => plain::v4(packet, start).is_some_and(|plain| take_plain::<FlowKey4, P>(&plain, packet, direction)),
        6 => plain::v6(packet, start).is_some_and(|plain| take_plain::<FlowKey, P>(&plain, packet, direction)),
        _ => false,
    }
}

#[inline(always)]
fn take_plain<K: Table, P: Packet>(plain: &Plain<K>, packet: &P, direction: Direction) -> bool {
    let Some(settings) = SETTINGS.get(0) else { return false };
    let hash = Hash::of(&plain.key, settings.seed);
    let hook = short_hook(packet.interface_index() << 1 | direction as u32);
    let wire_segments = packet.wire_segments().clamp(1, 255);
    let now_ns = clock::coarse_ns(settings);
    let mask = K::mask(settings);
    for step in 0..WINDOW {
        let Some(slot) = K::slot(hash.base(mask).wrapping_add(step) & mask) else { return false };
        let tag = table::load(slot);
        if tag.phase() != Tag::STEADY || tag.fingerprint() != hash.fingerprint() {
            continue;
        }
        // SAFETY: a map value. What is read before the tag changes hands is valid if the tag is still the same then.
        let (key, prediction) = unsafe { (&(*slot).key, &mut (*slot).prediction) };
        if *key != plain.key {
            continue;
        }
        if !prediction.fits(plain, wire_segments, hook, now_ns, settings.steady_silence_ns)
            || !table::swap(slot, tag, tag.next(Tag::BUSY))
        {
            return false;
        }
        prediction.take(plain, wire_segments, now_ns);
        table::store(slot, tag.next(Tag::BUSY).next(Tag::STEADY));
        count(plain.payload_len, wire_segments, direction);
        return true;
    }
    false
}

#[inline(always)]
fn count(payload_len: u32, wire_segments: u32, direction: Direction) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value; programs of one CPU do not interrupt each other while they run.
    let counters: &mut Counters = unsafe { &mut *counters };
    let kind = if payload_len == 0 {
        counters.predicted[0] += 1;
        segment_kind::ACK
    } else {
        counters.predicted[1] += 1;
        segment_kind::DATA
    };
    counters.segments[direction as usize][kind] += wire_segments as u64;
}
