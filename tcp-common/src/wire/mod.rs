//! From bytes to a key and a segment, in the order of the headers: `ethernet`, `ip`, `tcp`.
//!
//! Generic over [`Bytes`], so that a kernel program, a capture and a test read the same way. No loop without a small
//! bound, no slice with a computed index: the kernel's verifier follows every read.

mod ethernet;
mod ip;
mod tcp;

use crate::ignored::Ignored;
use crate::key::FlowKey;
use crate::segment::Segment;
use crate::state::End;

/// A packet whose bytes can be read.
pub trait Bytes {
    /// `N` octets at `offset`; `None` where the packet, or what was captured of it, is shorter.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Octets of the packet on the wire from the same start; a capture may hold fewer.
    fn wire_len(&self) -> usize;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.len()
    }
}

/// What a packet begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
}

/// A TCP segment with its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The flow.
    pub key: FlowKey,
    /// Which end of it sent this.
    pub sender: End,
    /// The segment.
    pub segment: Segment,
    /// VLAN ids, outermost first; only as many as `vlan_count`.
    pub vlans: [u16; 2],
    /// How many VLAN tags the frame had.
    pub vlan_count: u8,
}

/// Where the TCP header is and what the headers before it said.
#[derive(Clone, Copy)]
struct Datagram {
    family: u16,
    source: [u8; 16],
    destination: [u8; 16],
    tcp_offset: usize,
    /// TCP header and payload, in octets.
    tcp_len: usize,
    first_fragment: bool,
}

/// Reads the headers of one packet. `stripped_vlan` is the id of a tag that the NIC took out of the frame.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B, link: Link, stripped_vlan: Option<u16>) -> Result<Packet, Ignored> {
    let frame = match link {
        Link::Ethernet => ethernet::parse(bytes)?,
        Link::Ip => ethernet::Frame::WITHOUT_LINK,
    };
    let datagram = ip::parse(bytes, &frame)?;
    let vlan = match (stripped_vlan, frame.vlan_count) {
        (Some(id), _) => id,
        (None, 0) => 0,
        (None, _) => frame.vlans[0],
    };
    let (key, sender, segment) = tcp::parse(bytes, &datagram, vlan)?;
    if datagram.first_fragment {
        // The rest of the payload is elsewhere: a FIN here must not be given a number.
        return Err(Ignored::FragmentFirst);
    }
    Ok(Packet { key, sender, segment, vlans: frame.vlans, vlan_count: frame.vlan_count })
}

#[inline(always)]
const fn be16(bytes: [u8; 2]) -> u16 {
    u16::from_be_bytes(bytes)
}
