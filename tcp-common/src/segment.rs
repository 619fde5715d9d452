//! One TCP segment as the state machine sees it: values only, no bytes.

use crate::seq::Seq;

/// The control bits of a segment (RFC 9293 3.1), the low byte of the flags field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

#[allow(missing_docs, reason = "the names are the control bits of RFC 9293 3.1")]
impl Flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}

/// The kind of a segment by its flags. RST takes precedence over every other flag; a FIN without ACK is bad
/// (RFC 9293 3.10.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// SYN without ACK.
    Syn,
    /// SYN with ACK.
    SynAck,
    /// ACK with FIN.
    Fin,
    /// ACK without SYN, FIN and RST, with or without payload.
    Ack,
    /// Any segment with RST.
    Rst,
    /// A combination that every stack drops.
    Bad,
}

/// One segment. Numbers are in host byte order. Fixed layout: deferred segments cross the kernel boundary.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: Seq,
    /// Acknowledgment number, meaningful only with the ACK flag.
    pub ack: Seq,
    /// Length of the payload, in bytes, without SYN and FIN.
    pub payload_len: u32,
    /// Timestamp value (RFC 7323), if `has(HAS_TIMESTAMP)`.
    pub tsval: u32,
    /// Echoed timestamp (RFC 7323).
    pub tsecr: u32,
    /// The window field as sent, not scaled.
    pub window: u16,
    /// Maximum segment size option, 0 if absent.
    pub mss: u16,
    /// Control bits.
    pub flags: Flags,
    /// Window scale shift (RFC 7323), clamped to 14, meaningful with `HAS_WSCALE`.
    pub wscale: u8,
    /// The options that were present: bits `HAS_*`.
    pub options: u8,
    /// Number of segments on the wire, at least 1: GSO and GRO make one of several, with BIG TCP of thousands.
    pub wire_segments: u16,
}

impl Segment {
    /// Maximum of `wire_segments`. No packet of 512 KiB, the kernel's limit (`GSO_MAX_SIZE`), has more.
    pub const MAX_WIRE_SEGMENTS: u16 = 0x3fff;

    /// A timestamp option was present.
    pub const HAS_TIMESTAMP: u8 = 1;
    /// A window scale option was present.
    pub const HAS_WSCALE: u8 = 2;
    /// A SACK-permitted option was present.
    pub const HAS_SACK_PERMITTED: u8 = 4;
    /// A maximum segment size option was present.
    pub const HAS_MSS: u8 = 8;

    /// Whether the option was present.
    #[inline(always)]
    pub const fn has(&self, option: u8) -> bool {
        self.options & option != 0
    }

    /// SegmentKind of the segment by its flags.
    #[inline(always)]
    pub const fn kind(&self) -> SegmentKind {
        let f = self.flags.0 & (Flags::FIN | Flags::SYN | Flags::RST | Flags::ACK);
        if f & Flags::RST != 0 {
            return SegmentKind::Rst;
        }
        if f == Flags::SYN {
            return SegmentKind::Syn;
        }
        if f == Flags::SYN | Flags::ACK {
            return SegmentKind::SynAck;
        }
        if f == Flags::FIN | Flags::ACK {
            return SegmentKind::Fin;
        }
        if f == Flags::ACK {
            return SegmentKind::Ack;
        }
        SegmentKind::Bad
    }

    /// Sequence number after the payload, SYN and FIN: the acknowledgment number that covers the whole
    /// segment.
    #[inline(always)]
    pub const fn end(&self) -> Seq {
        let syn = (self.flags.0 & Flags::SYN != 0) as u32;
        let fin = (self.flags.0 & Flags::FIN != 0) as u32;
        self.seq.wrapping_add(self.payload_len).wrapping_add(syn).wrapping_add(fin)
    }
}
