//! The TCP header and those of its options that the state machine uses (RFC 9293 3.1, RFC 7323, RFC 2018).

use super::Bytes;
use crate::{Flags, Ignored, Segment};

/// What a TCP header says.
pub(super) struct Header {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) segment: Segment,
    /// Octets of the header, options included.
    pub(super) len: u8,
}

/// The header at `offset` of a segment of `tcp_len` octets, or of so many octets of it in a first fragment.
#[inline(always)]
pub(super) fn read<B: Bytes + ?Sized>(
    bytes: &B,
    offset: usize,
    tcp_len: usize,
    first_fragment: bool,
) -> Result<Header, Ignored> {
    // What a first fragment lacks is in a later one; what a whole segment lacks is nowhere.
    let too_short = if first_fragment { Ignored::Truncated } else { Ignored::Malformed };
    if tcp_len < FIXED_LEN {
        return Err(too_short);
    }
    let header: [u8; FIXED_LEN] = bytes.read(offset).ok_or(Ignored::Truncated)?;
    // The data offset counts words of 4 octets. The bit beside it (AE, RFC 9768) is none of the control bits used here.
    let len = (header[12] >> 4) as usize * 4;
    if len < FIXED_LEN {
        return Err(Ignored::Malformed);
    }
    if len > tcp_len {
        return Err(too_short);
    }
    let mut segment = Segment {
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        payload_len: (tcp_len - len) as u32,
        flags: Flags(header[13]),
        window: u16::from_be_bytes([header[14], header[15]]),
        wire_segments: 1,
        ..Segment::default()
    };
    read_options(bytes, offset + FIXED_LEN, len - FIXED_LEN, &mut segment)?;
    Ok(Header {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        segment,
        len: len as u8,
    })
}

/// The options in the `len` octets at `offset`.
#[inline(always)]
fn read_options<B: Bytes + ?Sized>(
    bytes: &B,
    offset: usize,
    len: usize,
    segment: &mut Segment,
) -> Result<(), Ignored> {
    if len == 0 {
        return Ok(());
    }
    // Nearly every segment of a connection with timestamps: NOP, NOP, timestamps (RFC 7323 appendix A).
    if len == 12 {
        let options = bytes.read::<12>(offset).ok_or(Ignored::Truncated)?;
        if let [NOP, NOP, TIMESTAMPS, TIMESTAMPS_LEN, v0, v1, v2, v3, e0, e1, e2, e3] = options {
            segment.set_timestamps([v0, v1, v2, v3, e0, e1, e2, e3]);
            return Ok(());
        }
    }
    let _last: [u8; 1] = bytes.read(offset + len - 1).ok_or(Ignored::Truncated)?;
    walk_options(bytes, offset, offset + len, segment);
    Ok(())
}

/// Walks the options one by one (RFC 9293 3.2). A length that leads nowhere or beyond the header ends the walk, not the
/// segment: the receiver's stack takes it too.
#[inline(always)]
fn walk_options<B: Bytes + ?Sized>(bytes: &B, start: usize, end: usize, segment: &mut Segment) {
    let syn = segment.flags.has(Flags::SYN);
    let mut at = start;
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return;
        }
        let Some([kind]) = bytes.read(at) else { return };
        if kind == END_OF_OPTIONS {
            return;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let Some([_, len]) = bytes.read(at) else { return };
        let next = at + len as usize;
        if len < 2 || next > end {
            return;
        }
        match (kind, len) {
            (TIMESTAMPS, TIMESTAMPS_LEN) => {
                let Some(values) = bytes.read(at + 2) else { return };
                segment.set_timestamps(values);
            }
            // The others belong to the handshake; elsewhere they mean nothing (RFC 7323 2.2, RFC 9293 3.2).
            (MAX_SEGMENT_SIZE, MAX_SEGMENT_SIZE_LEN) if syn => {
                let Some(value) = bytes.read(at + 2) else { return };
                segment.mss = u16::from_be_bytes(value);
                segment.options |= Segment::HAS_MSS;
            }
            (WINDOW_SCALE, WINDOW_SCALE_LEN) if syn => {
                let Some([shift]) = bytes.read(at + 2) else { return };
                segment.wscale = if shift > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { shift };
                segment.options |= Segment::HAS_WSCALE;
            }
            (SACK_PERMITTED, SACK_PERMITTED_LEN) if syn => segment.options |= Segment::HAS_SACK_PERMITTED,
            _ => {}
        }
        at = next;
    }
}

impl Segment {
    /// TSval and TSecr, as they lie in the option (RFC 7323 3.2).
    #[inline(always)]
    const fn set_timestamps(&mut self, [v0, v1, v2, v3, e0, e1, e2, e3]: [u8; 8]) {
        self.tsval = u32::from_be_bytes([v0, v1, v2, v3]);
        self.tsecr = u32::from_be_bytes([e0, e1, e2, e3]);
        self.options |= Segment::HAS_TIMESTAMP;
    }
}

/// The header without options.
const FIXED_LEN: usize = 20;
/// The longest header is 60 octets, an option at least one.
const MAX_OPTIONS: u32 = 40;

// Kinds and lengths: RFC 9293 3.2, RFC 7323 2.2 and 3.2, RFC 2018 2.
const END_OF_OPTIONS: u8 = 0;
const NOP: u8 = 1;
const MAX_SEGMENT_SIZE: u8 = 2;
const MAX_SEGMENT_SIZE_LEN: u8 = 4;
const WINDOW_SCALE: u8 = 3;
const WINDOW_SCALE_LEN: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK_PERMITTED_LEN: u8 = 2;
const TIMESTAMPS: u8 = 8;
const TIMESTAMPS_LEN: u8 = 10;
/// A larger shift counts as this one (RFC 7323 2.3).
const MAX_WINDOW_SCALE: u8 = 14;
