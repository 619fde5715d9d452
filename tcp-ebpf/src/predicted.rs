//! The way of the plain segment that its flow predicted: found, taken and let go within one cache line of the flow.

use tcp_common::{
    FlowKey, FlowKey4,
    record::{Counters, segment_kind, short_hook},
    table::{self, Home, Memory as _, Tag},
    wire::{
        Link,
        plain::{self, Plain},
    },
};

use crate::{
    clock,
    maps::{COUNTERS, SETTINGS},
    packet::{Direction, Packet},
    table::{Maps, Table},
};

/// Takes the packet if it was predicted, and says whether it did; any other is for the machine.
#[inline(always)]
pub fn take<P: Packet>(packet: &P, link: Link, direction: Direction) -> bool {
    let Some(start) = plain::start(packet, link, packet.stripped_vlan()) else { return false };
    match start.version {
        4 => {
            plain::v4(packet, start).is_some_and(|plain| take_plain::<FlowKey4, P>(&plain, packet, direction))
        }
        6 => {
            plain::v6(packet, start).is_some_and(|plain| take_plain::<FlowKey, P>(&plain, packet, direction))
        }
        _ => false,
    }
}

#[inline(always)]
fn take_plain<K: Table, P: Packet>(plain: &Plain<K>, packet: &P, direction: Direction) -> bool {
    let Some(settings) = SETTINGS.get(0) else { return false };
    let maps = Maps::<K>::new(settings);
    let home = Home::of(&plain.key, settings.seed, maps.places());
    let Some((slot, tag)) = table::find_steady(maps, &plain.key, home) else { return false };
    let hook = short_hook(packet.interface_index() << 1 | direction as u32);
    let wire_segments = packet.wire_segments().clamp(1, 255);
    let now_ns = clock::coarse_ns(settings);
    // SAFETY: a map value. What is read before the tag changes hands is valid if the tag is still the same then.
    let prediction = unsafe { &mut (*slot).prediction };
    if !prediction.fits(plain, wire_segments, hook, now_ns, settings.steady_silence_ns)
        || !maps.swap_tag(slot, tag, tag.next(Tag::BUSY))
    {
        return false;
    }
    prediction.take(plain, wire_segments, now_ns);
    maps.store_tag(slot, tag.next(Tag::BUSY).next(Tag::STEADY));
    count(plain.payload_len, wire_segments, direction);
    true
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
