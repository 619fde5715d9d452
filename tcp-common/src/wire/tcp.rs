//! The TCP header (RFC 9293 3.1) and the options that matter: MSS, window scale, SACK-permitted, timestamps.

use core::hint::black_box;

use super::{Bytes, Packet, be16};
use crate::ignored::Ignored;
use crate::key::Endpoint;
use crate::segment::{Flags, Segment};

#[inline(never)]
pub(super) fn parse<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Ignored> {
    let (offset, len) = (packet.datagram.tcp_offset as usize, packet.datagram.tcp_len as usize);
    // What a first fragment lacks is in a later one, and padding does not make up for it.
    let too_short = if packet.datagram.first_fragment { Ignored::Truncated } else { Ignored::Malformed };
    let h = bytes.read::<20>(offset).ok_or(Ignored::Truncated)?;
    if len < 20 {
        return Err(too_short);
    }
    let header_len = ((h[12] >> 4) as usize) << 2;
    if header_len < 20 {
        return Err(Ignored::Malformed);
    }
    if header_len > len {
        return Err(too_short);
    }
    packet.segment = Segment {
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        payload_len: (len - header_len) as u32,
        window: be16([h[14], h[15]]),
        flags: Flags(h[13]),
        wire_segments: 1,
        ..Packet::EMPTY.segment
    };
    let source = Endpoint { address: packet.datagram.source, port: be16([h[0], h[1]]) };
    let destination = Endpoint { address: packet.datagram.destination, port: be16([h[2], h[3]]) };
    packet.sender = packet.key.set(&source, &destination, packet.datagram.family);
    if header_len > 20 {
        // A header cut inside its options is no header.
        if bytes.read::<1>(offset + header_len - 1).is_none() {
            return Err(Ignored::Truncated);
        }
        options(bytes, offset + 20, header_len - 20, &mut packet.segment);
    }
    Ok(())
}

/// Options that cannot be read leave the segment as it is: no stack drops it for them.
#[inline(never)]
fn options<B: Bytes + ?Sized>(bytes: &B, start: usize, len: usize, segment: &mut Segment) {
    // What nearly every segment of a connection carries: NOP, NOP, timestamps.
    if len == 12
        && let Some(o) = bytes.read::<12>(start)
        && [o[0], o[1], o[2], o[3]] == [NOP, NOP, TIMESTAMPS, 10]
    {
        segment.tsval = u32::from_be_bytes([o[4], o[5], o[6], o[7]]);
        segment.tsecr = u32::from_be_bytes([o[8], o[9], o[10], o[11]]);
        segment.options = Segment::HAS_TIMESTAMP;
        return;
    }
    let mut at = 0u8;
    for _ in 0..MAX_OPTIONS {
        // One octet through memory: the verifier then sees one state a step and not one for every way to get here.
        at = black_box(at);
        if at as usize >= len {
            return;
        }
        let here = start + at as usize;
        let Some([kind]) = bytes.read::<1>(here) else { return };
        if kind == END {
            return;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let Some([size]) = bytes.read::<1>(here + 1) else { return };
        if size < 2 || size as usize > MAX_OPTIONS as usize || (at + size) as usize > len {
            return;
        }
        take_option(bytes, here + 2, kind, size, segment);
        at += size;
    }
}

#[inline(always)]
fn take_option<B: Bytes + ?Sized>(bytes: &B, value: usize, kind: u8, size: u8, segment: &mut Segment) {
    match (kind, size) {
        (MSS, 4) => {
            if let Some(mss) = bytes.read::<2>(value) {
                segment.mss = be16(mss);
                segment.options |= Segment::HAS_MSS;
            }
        }
        (WINDOW_SCALE, 3) => {
            if let Some([shift]) = bytes.read::<1>(value) {
                // RFC 7323 2.3: a shift above 14 is taken as 14.
                segment.wscale = shift.min(14);
                segment.options |= Segment::HAS_WSCALE;
            }
        }
        (SACK_PERMITTED, 2) => segment.options |= Segment::HAS_SACK_PERMITTED,
        (TIMESTAMPS, 10) => {
            if let Some(o) = bytes.read::<8>(value) {
                segment.tsval = u32::from_be_bytes([o[0], o[1], o[2], o[3]]);
                segment.tsecr = u32::from_be_bytes([o[4], o[5], o[6], o[7]]);
                segment.options |= Segment::HAS_TIMESTAMP;
            }
        }
        _ => {}
    }
}

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;
/// A header has room for forty octets of options.
const MAX_OPTIONS: u32 = 40;
