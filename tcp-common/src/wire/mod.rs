//! Parsing: from bytes to a key and a segment.
//!
//! [`parse`] reads the headers in their order: `ethernet`, `ip`, `tcp`. [`plain`] reads the common segment
//! of an established connection at fixed offsets, and leaves every other to [`parse`]. What is rare has a
//! step of its own, for which a kernel program has a tail call: `fragment`, `icmp`, `ip_options`.
//!
//! Both are generic over [`Bytes`], so kernel programs, captures and tests share the code. Every loop has a
//! small bound and no slice has a computed index, since the kernel's verifier follows every read.

mod ethernet;
mod fragment;
mod icmp;
mod ip;
mod ip_options;
pub mod plain;
mod tcp;

use core::hint::black_box;

pub use fragment::{DatagramId, Fragment, Position};
pub use icmp::{IcmpError, parse_icmp};
pub use ip_options::check_options;

use crate::ignored::Ignored;
use crate::key::{AddressNumber, FlowKey};
use crate::segment::Segment;
use crate::state::End;

/// A packet from which headers can be read.
pub trait Bytes {
    /// Bytes that are known to be present.
    type Header<'a>: Header
    where
        Self: 'a;

    /// `N` bytes at `offset`; `None` if the packet, or the captured part of it, is shorter.
    fn header<const N: usize>(&self, offset: usize) -> Option<Self::Header<'_>>;

    /// Whether the packet has `len` bytes, 60 at most, from the start of this header.
    fn has<'a>(&'a self, header: Self::Header<'a>, len: usize) -> bool;

    /// Length of the packet on the wire, in bytes; a capture may hold fewer.
    fn wire_len(&self) -> usize;

    /// Whether bytes of the packet were on the wire that were not captured. A kernel program can read every
    /// byte of a packet, so for it a header that is not whole is no header.
    #[inline(always)]
    fn is_cut(&self) -> bool {
        false
    }
}

/// Bytes whose presence [`Bytes::header`] has checked. Numbers are read in network byte order.
pub trait Header: Copy {
    /// The byte at this offset.
    fn u8(self, at: usize) -> u8;
    /// The 16-bit number at this offset.
    fn be16(self, at: usize) -> u16;
    /// The 32-bit number at this offset.
    fn be32(self, at: usize) -> u32;
    /// The 64-bit number at this offset.
    fn be64(self, at: usize) -> u64;
    /// The bytes from this offset on.
    fn from(self, at: usize) -> Self;
}

/// The header type of a slice: the bytes that were checked, and those that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderBytes<'a> {
    bytes: &'a [u8],
    checked: usize,
}

impl HeaderBytes<'_> {
    /// The bytes at this offset; zeros if they were not checked, which an assertion reports in tests.
    #[inline(always)]
    fn at<const N: usize>(self, at: usize) -> [u8; N] {
        debug_assert!(at + N <= self.checked, "{N} bytes at {at} of a header of {}", self.checked);
        self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
    }
}

impl Header for HeaderBytes<'_> {
    #[inline(always)]
    fn u8(self, at: usize) -> u8 {
        u8::from_be_bytes(self.at(at))
    }

    #[inline(always)]
    fn be16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.at(at))
    }

    #[inline(always)]
    fn be32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.at(at))
    }

    #[inline(always)]
    fn be64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.at(at))
    }

    #[inline(always)]
    fn from(self, at: usize) -> Self {
        HeaderBytes {
            bytes: self.bytes.get(at..).unwrap_or_default(),
            checked: self.checked.saturating_sub(at),
        }
    }
}

impl Bytes for [u8] {
    type Header<'a> = HeaderBytes<'a>;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<HeaderBytes<'_>> {
        let bytes = self.get(offset..)?;
        (bytes.len() >= N).then_some(HeaderBytes { bytes, checked: N })
    }

    #[inline(always)]
    fn has<'a>(&'a self, header: HeaderBytes<'a>, len: usize) -> bool {
        header.bytes.len() >= len
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.len()
    }
}

/// The captured bytes of a packet, and its length on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The captured bytes, from the first on.
    pub bytes: &'a [u8],
    /// Length on the wire, in bytes.
    pub wire_len: usize,
}

impl Bytes for Captured<'_> {
    type Header<'a>
        = HeaderBytes<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<HeaderBytes<'_>> {
        self.bytes.header::<N>(offset)
    }

    #[inline(always)]
    fn has<'a>(&'a self, header: HeaderBytes<'a>, len: usize) -> bool {
        self.bytes.has(header, len)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.wire_len
    }

    #[inline(always)]
    fn is_cut(&self) -> bool {
        self.bytes.len() < self.wire_len
    }
}

/// The header that a packet begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FirstHeader {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
}

/// A TCP segment with its flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The flow.
    pub key: FlowKey,
    /// The segment.
    pub segment: Segment,
    /// The end of the flow that sent it.
    pub sender: End,
    /// Number of VLAN tags in the frame.
    pub vlan_count: u8,
    /// VLAN ids, outermost first; `vlan_count` of them are set.
    pub vlans: [u16; 2],
    /// The two outermost VLAN ids, one that the NIC removed included: the outer one in the lower half, the
    /// inner one in the upper half; 0 without a tag.
    pub tags: u32,
    /// The headers below TCP.
    pub datagram: Datagram,
}

/// VLAN ids in the form of [`Packet::tags`].
#[inline(always)]
const fn tags(outer: u16, inner: u16) -> u32 {
    outer as u32 | (inner as u32) << 16
}

/// The IP datagram: its addresses, and the position of the TCP header in it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    source: AddressNumber,
    destination: AddressNumber,
    family: u16,
    /// Length of the options of the IPv4 header, in bytes.
    ip_options: u16,
    /// Offset of the IP header, in bytes.
    pub ip_offset: u32,
    /// Offset of the TCP header, in bytes; of the content in a later fragment, of the header in ICMP.
    pub tcp_offset: u32,
    /// Length of TCP header and payload, in bytes; in a fragment, of what it has of them.
    pub tcp_len: u32,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
}

/// What a packet has, as [`parse_into`] reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Content {
    /// A segment.
    Segment,
    /// A segment behind options of IPv4, which [`check_options`] must accept.
    BehindOptions,
    /// A fragment of a datagram with TCP. The first one has `key`, `sender` and a `segment` without the rest
    /// of its payload; the others have the `datagram` only.
    Fragment,
    /// An ICMP message, which [`parse_icmp`] reads.
    Icmp,
}

impl Packet {
    /// The packet before anything is read.
    pub const EMPTY: Packet = Packet {
        key: FlowKey::EMPTY,
        segment: Segment {
            seq: 0,
            ack: 0,
            payload_len: 0,
            tsval: 0,
            tsecr: 0,
            window: 0,
            mss: 0,
            flags: crate::segment::Flags(0),
            wscale: 0,
            options: 0,
            wire_segments: 0,
        },
        sender: End::A,
        vlan_count: 0,
        vlans: [0; 2],
        tags: 0,
        datagram: Datagram {
            source: [0; 2],
            destination: [0; 2],
            family: 0,
            ip_options: 0,
            ip_offset: 0,
            tcp_offset: 0,
            tcp_len: 0,
            fragment: Fragment::WHOLE,
        },
    };
}

/// Reads the headers of one packet that has a whole segment. `stripped_vlan` is the id of a VLAN tag that the
/// NIC removed from the frame.
///
/// # Errors
///
/// The reason for which the packet belongs to no flow.
pub fn parse<B: Bytes + ?Sized>(
    bytes: &B,
    link: FirstHeader,
    stripped_vlan: Option<u16>,
) -> Result<Packet, Ignored> {
    let mut packet = Packet::EMPTY;
    match parse_into(bytes, link, stripped_vlan, &mut packet)? {
        Content::Segment => Ok(packet),
        Content::BehindOptions => check_options(bytes, &packet.datagram).map(|()| packet),
        Content::Fragment => Err(Ignored::Fragment),
        Content::Icmp => parse_icmp(bytes, &mut packet).and(Err(Ignored::Icmp)),
    }
}

/// Reads the headers of one packet into the caller's memory: kernel programs have little stack. Each layer
/// is a function of its own for that reason.
///
/// # Errors
///
/// The reason for which the packet belongs to no flow.
#[inline(always)]
pub fn parse_into<B: Bytes + ?Sized>(
    bytes: &B,
    link: FirstHeader,
    stripped_vlan: Option<u16>,
    packet: &mut Packet,
) -> Result<Content, Ignored> {
    let frame = match link {
        FirstHeader::Ethernet => ethernet::parse(bytes)?,
        FirstHeader::Ip => ethernet::EthernetHeader::WITHOUT_LINK,
    };
    packet.vlans = frame.vlans;
    packet.vlan_count = frame.vlan_count;
    packet.tags = match stripped_vlan {
        Some(id) => tags(id, frame.vlans[0]),
        None => tags(frame.vlans[0], frame.vlans[1]),
    };
    packet.key.domain = 0;
    match ip::parse(bytes, &frame, &mut packet.datagram) {
        Ok(()) => tcp::parse(bytes, packet)?,
        Err(Ignored::Fragment) => return Ok(Content::Fragment),
        Err(Ignored::Icmp) => return Ok(Content::Icmp),
        Err(reason) => return Err(reason),
    }
    // Through memory: the verifier then follows the parser of TCP once, not once for each content.
    let datagram = black_box(&packet.datagram);
    Ok(if !matches!(datagram.fragment.position, Position::Whole) {
        Content::Fragment
    } else if datagram.ip_options != 0 {
        Content::BehindOptions
    } else {
        Content::Segment
    })
}
