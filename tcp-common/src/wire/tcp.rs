//! The TCP header (RFC 9293 3.1) and the options that matter: MSS, window scale, SACK-permitted, timestamps.

use core::hint::black_box;

use super::{Bytes, Header as _, Packet, Position};
use crate::ignored::Ignored;
use crate::key::Endpoint;
use crate::segment::{Flags, Segment};

#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Ignored> {
    let (offset, len) = (packet.datagram.tcp_offset as usize, packet.datagram.tcp_len as usize);
    // The rest of a first fragment is in a later one, and padding does not replace it.
    let is_first = matches!(packet.datagram.fragment.position, Position::First);
    let too_short = if is_first { Ignored::Truncated } else { Ignored::Malformed };
    let h = bytes.header::<20>(offset).ok_or(Ignored::Truncated)?;
    if len < 20 {
        return Err(too_short);
    }
    let header_len = ((h.u8(12) >> 4) as usize) << 2;
    if header_len < 20 {
        return Err(Ignored::Malformed);
    }
    if header_len > len {
        return Err(too_short);
    }
    packet.segment = Segment {
        seq: h.be32(4),
        ack: h.be32(8),
        payload_len: (len - header_len) as u32,
        window: h.be16(14),
        flags: Flags(h.u8(13)),
        wire_segments: 1,
        ..Packet::EMPTY.segment
    };
    let source = Endpoint { address: packet.datagram.source, port: h.be16(0) };
    let destination = Endpoint { address: packet.datagram.destination, port: h.be16(2) };
    packet.sender = packet.key.set(&source, &destination, packet.datagram.family);
    if header_len > 20 {
        // A packet that ends inside its options is truncated; a capture may have cut them.
        let cut = bytes.header::<1>(offset + header_len - 1).is_none();
        if cut && !(bytes.is_cut() && offset + header_len <= bytes.wire_len()) {
            return Err(Ignored::Truncated);
        }
        let (start, len) = (offset + 20, header_len - 20);
        if !has_only_timestamps(bytes, start, len, &mut packet.segment) {
            packet.segment.options = options(bytes, start, len, &mut packet.segment);
        }
        if cut && packet.segment.flags.has(Flags::SYN) && !packet.segment.has(Segment::HAS_WSCALE) {
            // The shift may have been cut off. With the largest one no segment lies outside the window by
            // mistake.
            packet.segment.wscale = MAX_SHIFT;
            packet.segment.options |= Segment::HAS_WSCALE;
        }
    }
    Ok(())
}

/// Reads the options that nearly every segment of a connection has: NOP, NOP, timestamps. Returns whether
/// it has these.
#[inline(always)]
fn has_only_timestamps<B: Bytes + ?Sized>(
    bytes: &B,
    start: usize,
    len: usize,
    segment: &mut Segment,
) -> bool {
    if len == 12
        && let Some(o) = bytes.header::<12>(start)
        && o.be32(0) == u32::from_be_bytes([NOP, NOP, TIMESTAMPS, 10])
    {
        segment.tsval = o.be32(4);
        segment.tsecr = o.be32(8);
        segment.options = Segment::HAS_TIMESTAMP;
        return true;
    }
    false
}

/// Reads the options into `segment` and returns which were present. Options that cannot be read are left
/// out: no stack drops a segment for them.
#[inline(never)]
fn options<B: Bytes + ?Sized>(bytes: &B, start: usize, len: usize, segment: &mut Segment) -> u8 {
    let mut at = 0u8;
    for _ in 0..MAX_OPTIONS {
        // One byte through memory: the verifier then has one state a step, not one for each path to it.
        at = black_box(at);
        if at as usize >= len {
            break;
        }
        let here = start + at as usize;
        let Some(kind) = bytes.header::<1>(here).map(|option| option.u8(0)) else { break };
        if kind == END {
            break;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let Some(size) = bytes.header::<1>(here + 1).map(|option| option.u8(0)) else { break };
        if size < 2 || size as usize > MAX_OPTIONS as usize || (at + size) as usize > len {
            break;
        }
        apply_option(bytes, here + 2, kind, size, segment);
        at += size;
    }
    segment.options
}

#[inline(always)]
fn apply_option<B: Bytes + ?Sized>(bytes: &B, value: usize, kind: u8, size: u8, segment: &mut Segment) {
    match (kind, size) {
        (MSS, 4) => {
            if let Some(mss) = bytes.header::<2>(value) {
                segment.mss = mss.be16(0);
                segment.options |= Segment::HAS_MSS;
            }
        }
        (WINDOW_SCALE, 3) => {
            if let Some(shift) = bytes.header::<1>(value) {
                segment.wscale = shift.u8(0).min(MAX_SHIFT);
                segment.options |= Segment::HAS_WSCALE;
            }
        }
        (SACK_PERMITTED, 2) => segment.options |= Segment::HAS_SACK_PERMITTED,
        (TIMESTAMPS, 10) => {
            if let Some(o) = bytes.header::<8>(value) {
                segment.tsval = o.be32(0);
                segment.tsecr = o.be32(4);
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
/// Maximum window scale shift; a larger one is taken as this one (RFC 7323 2.3).
const MAX_SHIFT: u8 = 14;
/// Maximum length of the options, in bytes.
const MAX_OPTIONS: u32 = 40;
