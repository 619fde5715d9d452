//! From bytes to values: the way of a packet from its first octet to a [`FlowKey`] and a [`Segment`].
//!
//! [`ethernet`] steps over the link header and its VLAN tags, [`ip`] over IPv4 options and IPv6 extension headers,
//! [`tcp`] reads the segment. What is no whole TCP segment comes back as the reason why, [`Ignored`].
//!
//! The same code runs in the kernel, where the BPF verifier must be able to follow it: every function is inlined,
//! every read has a fixed size at an offset with a small bound, every loop a constant limit, and nothing can panic.
//! Offsets stay below 20,000 (two tags, an IP header and eight extension headers), so adding to them cannot overflow.
//!
//! Checksums are not verified: hardware fills them in after the packet was seen on its way out.

mod bytes;
mod ethernet;
mod ip;
mod tcp;

pub use bytes::{Bytes, Captured};

use crate::{End, Endpoint, FlowKey, Ignored, Segment};

/// Where a frame starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// With an Ethernet header.
    Ethernet,
    /// With the IP header, as on tunnels.
    Ip,
}

/// A TCP packet: its flow, which end sent it, and its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The flow, the same for both directions.
    pub key: FlowKey,
    /// Which end of the key sent the packet.
    pub sender: End,
    /// The segment. `wire_segments` is 1: how many a super-packet stands for is not in its bytes.
    pub segment: Segment,
    /// VLAN ids, the outermost first, one that the NIC stripped included; `vlan_count` of them are meant.
    pub vlans: [u16; 2],
    /// How many VLAN tags there were, 0 to 2.
    pub vlan_count: u8,
    /// Octets of the TCP header, options included, 20 to 60.
    pub header_len: u8,
    /// Where the TCP header starts in the frame.
    pub tcp_offset: u16,
    /// The first fragment of several: `segment.payload_len` counts this fragment's part only.
    pub first_fragment: bool,
}

impl Packet {
    /// Address and port of the sender.
    #[inline(always)]
    pub const fn source(&self) -> Endpoint {
        self.key.endpoint(self.sender)
    }

    /// Address and port of the receiver.
    #[inline(always)]
    pub const fn destination(&self) -> Endpoint {
        self.key.endpoint(self.sender.peer())
    }
}

/// The whole TCP segment in a frame, or why there is none.
///
/// `stripped_vlan` is the tag (TCI) of a VLAN header that the NIC took out of the frame.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B, link: Link, stripped_vlan: Option<u16>) -> Result<Packet, Ignored> {
    let packet = parse_headers(bytes, link, stripped_vlan)?;
    if packet.first_fragment {
        return Err(Ignored::FragmentFirst);
    }
    Ok(packet)
}

/// As [`parse`], but a first fragment is returned too, for those who show packets: no flow may be moved by it, because
/// where its segment ends is not known.
#[inline(always)]
pub fn parse_headers<B: Bytes + ?Sized>(
    bytes: &B,
    link: Link,
    stripped_vlan: Option<u16>,
) -> Result<Packet, Ignored> {
    let frame = match link {
        Link::Ethernet => ethernet::read(bytes, stripped_vlan)?,
        Link::Ip => ethernet::none(bytes, stripped_vlan)?,
    };
    let datagram = ip::read(bytes, frame.network, frame.network_offset)?;
    let header = tcp::read(bytes, datagram.tcp_offset, datagram.tcp_len, datagram.first_fragment)?;

    let source = Endpoint { port: header.source_port, ..datagram.source };
    let destination = Endpoint { port: header.destination_port, ..datagram.destination };
    let (key, sender) = FlowKey::new(source, destination, frame.tags.ids[0], datagram.family);
    Ok(Packet {
        key,
        sender,
        segment: header.segment,
        vlans: frame.tags.ids,
        vlan_count: frame.tags.count,
        header_len: header.len,
        tcp_offset: datagram.tcp_offset as u16,
        first_fragment: datagram.first_fragment,
    })
}
