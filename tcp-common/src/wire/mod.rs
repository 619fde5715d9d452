//! From bytes to a key and a segment, in the order of the headers: `ethernet`, `ip`, `tcp`; and [`plain`], which takes
//! the common segment of an established connection from its fixed places and leaves every other to [`parse`].
//!
//! Generic over [`Bytes`], so that a kernel program, a capture and a test read the same way. No loop without a small
//! bound, no slice with a computed index: the kernel's verifier follows every read.

mod ethernet;
mod ip;
pub mod plain;
mod tcp;

use crate::ignored::Ignored;
use crate::key::{Address, FlowKey};
use crate::segment::Segment;
use crate::state::End;

/// A packet whose headers can be read.
pub trait Bytes {
    /// Octets that are there.
    type Header<'a>: Header
    where
        Self: 'a;

    /// `N` octets at `offset`; `None` where the packet, or what was captured of it, is shorter.
    fn header<const N: usize>(&self, offset: usize) -> Option<Self::Header<'_>>;

    /// Whether the packet goes on for `len` octets, 60 at most, from where this header begins.
    fn has<'a>(&'a self, header: Self::Header<'a>, len: usize) -> bool;

    /// Octets of the packet on the wire from the same start; a capture may hold fewer.
    fn wire_len(&self) -> usize;
}

/// Octets whose presence [`Bytes::header`] has checked. The numbers in them are in network byte order.
pub trait Header: Copy {
    /// One octet.
    fn u8(self, at: usize) -> u8;
    /// Two.
    fn be16(self, at: usize) -> u16;
    /// Four.
    fn be32(self, at: usize) -> u32;
    /// Eight.
    fn be64(self, at: usize) -> u64;
    /// What follows the first `at`.
    fn from(self, at: usize) -> Self;
}

/// Octets of a slice: those that were checked, and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Octets<'a> {
    bytes: &'a [u8],
    checked: usize,
}

impl Octets<'_> {
    /// Zeros where a caller asks for more than it had checked, which the tests notice.
    #[inline(always)]
    fn at<const N: usize>(self, at: usize) -> [u8; N] {
        debug_assert!(at + N <= self.checked, "octet {at} and {N} of a header of {}", self.checked);
        self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
    }
}

impl Header for Octets<'_> {
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
        Octets { bytes: self.bytes.get(at..).unwrap_or_default(), checked: self.checked.saturating_sub(at) }
    }
}

impl Bytes for [u8] {
    type Header<'a> = Octets<'a>;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<Octets<'_>> {
        let bytes = self.get(offset..)?;
        (bytes.len() >= N).then_some(Octets { bytes, checked: N })
    }

    #[inline(always)]
    fn has<'a>(&'a self, header: Octets<'a>, len: usize) -> bool {
        header.bytes.len() >= len
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.len()
    }
}

/// What was captured of a packet, and how long it was.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The octets, from the packet's first on.
    pub bytes: &'a [u8],
    /// Octets on the wire.
    pub wire_len: usize,
}

impl Bytes for Captured<'_> {
    type Header<'a>
        = Octets<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<Octets<'_>> {
        self.bytes.header::<N>(offset)
    }

    #[inline(always)]
    fn has<'a>(&'a self, header: Octets<'a>, len: usize) -> bool {
        self.bytes.has(header, len)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.wire_len
    }
}

/// What a packet begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Link {
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
    /// Which end of the flow sent it.
    pub sender: End,
    /// How many VLAN tags the frame had.
    pub vlan_count: u8,
    /// VLAN ids, outermost first; only as many as `vlan_count`.
    pub vlans: [u16; 2],
    /// The headers below TCP.
    pub datagram: Datagram,
}

/// Where the TCP header is and what the headers before it said.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    source: Address,
    destination: Address,
    family: u16,
    first_fragment: bool,
    /// Where the TCP header begins.
    pub tcp_offset: u32,
    /// TCP header and payload, in octets.
    pub tcp_len: u32,
}

impl Packet {
    /// Nothing read yet.
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
        datagram: Datagram {
            source: [0; 2],
            destination: [0; 2],
            family: 0,
            first_fragment: false,
            tcp_offset: 0,
            tcp_len: 0,
        },
    };
}

/// Reads the headers of one packet. `stripped_vlan` is the id of a tag that the NIC took out of the frame.
pub fn parse<B: Bytes + ?Sized>(
    bytes: &B,
    link: Link,
    stripped_vlan: Option<u16>,
) -> Result<Packet, Ignored> {
    let mut packet = Packet::EMPTY;
    parse_into(bytes, link, stripped_vlan, &mut packet)?;
    Ok(packet)
}

/// [`parse`] into memory of the caller's: kernel programs have little stack. The layers are functions of their own for
/// the same reason.
#[inline(always)]
pub fn parse_into<B: Bytes + ?Sized>(
    bytes: &B,
    link: Link,
    stripped_vlan: Option<u16>,
    packet: &mut Packet,
) -> Result<(), Ignored> {
    let frame = match link {
        Link::Ethernet => ethernet::parse(bytes)?,
        Link::Ip => ethernet::Frame::WITHOUT_LINK,
    };
    packet.vlans = frame.vlans;
    packet.vlan_count = frame.vlan_count;
    packet.key.vlan = match stripped_vlan {
        Some(id) => id,
        None => frame.vlans[0],
    };
    ip::parse(bytes, &frame, &mut packet.datagram)?;
    tcp::parse(bytes, packet)?;
    if packet.datagram.first_fragment {
        // The rest of the payload is elsewhere: a FIN here must not be given a number.
        return Err(Ignored::FragmentFirst);
    }
    Ok(())
}
