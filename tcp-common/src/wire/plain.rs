//! The plain segment: an ACK without SYN, FIN or RST, not fragmented, with at most one VLAN tag and no
//! other header before IP, between addresses that are not link-local. Nearly every packet is one. [`parse`](super::parse) reads the same from it, and
//! reads all others.
//!
//! Every field has a fixed offset, so one comparison with the end of the packet suffices, and options are
//! not read.

use core::hint::black_box;

use super::{Bytes, FirstHeader, Header, ethernet, ip};
use crate::key::{FlowKey, FlowKey4, is_link_local};
use crate::segment::Flags;
use crate::seq::Seq;

/// A plain segment. Its numbers are read when they are needed, since they would occupy registers while the
/// flow is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain<K, H> {
    /// Key of its flow.
    pub key: K,
    /// Number of the [`End`](crate::End) that sent it.
    pub sender: usize,
    /// Length of the payload, in bytes.
    pub payload_len: u32,
    /// Its TCP header, of which 20 bytes are present.
    pub tcp: H,
}

impl<K, H: Header> Plain<K, H> {
    /// Sequence number.
    #[inline(always)]
    pub fn seq(&self) -> Seq {
        self.tcp.be32(4)
    }

    /// Acknowledgment number.
    #[inline(always)]
    pub fn ack(&self) -> Seq {
        self.tcp.be32(8)
    }

    /// The window field, not scaled.
    #[inline(always)]
    pub fn window(&self) -> u16 {
        self.tcp.be16(14)
    }
}

/// The start of a packet's IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start<H> {
    /// The bytes from there on that every plain segment has.
    ip: H,
    offset: usize,
    /// Id of the outer VLAN tag, 0 without one.
    pub vlan: u16,
    /// 4 or 6.
    pub version: u8,
}

/// Length of an IPv4 header and a TCP header without options.
const LEAST: usize = 40;

/// Reads the link layer; `None` if the packet is not plain.
#[inline(always)]
pub fn start<B: Bytes + ?Sized>(
    bytes: &B,
    link: FirstHeader,
    stripped_vlan: Option<u16>,
) -> Option<Start<B::Header<'_>>> {
    let (ether_type, ip, offset, vlan) = match link {
        FirstHeader::Ip => {
            let ip = bytes.header::<LEAST>(0)?;
            return Some(Start { ip, offset: 0, vlan: stripped_vlan.unwrap_or(0), version: ip.u8(0) >> 4 });
        }
        FirstHeader::Ethernet => {
            let h = bytes.header::<{ 14 + LEAST }>(0)?;
            match h.be16(12) {
                plain @ (ethernet::IPV4 | ethernet::IPV6) => (plain, h.from(14), 14, 0),
                tag if ethernet::is_tag(tag) => {
                    let h = bytes.header::<{ 18 + LEAST }>(0)?;
                    (h.be16(16), h.from(18), 18, h.be16(14) & ethernet::VLAN_ID)
                }
                _ => return None,
            }
        }
    };
    let version = match ether_type {
        ethernet::IPV4 => 4,
        ethernet::IPV6 => 6,
        _ => return None,
    };
    Some(Start { ip, offset, vlan: stripped_vlan.unwrap_or(vlan), version })
}

/// The plain segment of an IPv4 packet, if it is one.
#[inline(always)]
pub fn v4<'a, B: Bytes + ?Sized>(
    bytes: &'a B,
    start: Start<B::Header<'a>>,
) -> Option<Plain<FlowKey4, B::Header<'a>>> {
    let h = start.ip;
    // Version 4, no options; TCP; no part of a fragmented datagram.
    if h.u8(0) != 0x45 || h.u8(9) != ip::TCP || h.be16(6) & 0x3fff != 0 {
        return None;
    }
    let tcp = h.from(20);
    let payload_len = payload(bytes, tcp, h.be16(2) as i32 - 20)?;
    let (addresses, ports) = (h.be64(12), h.be32(20));
    let (source, destination) = (addresses >> 32, addresses & 0xffff_ffff);
    let difference = if source == destination {
        tcp.be16(0) as i64 - tcp.be16(2) as i64
    } else {
        source as i64 - destination as i64
    };
    // All ones or none, through memory, so that the compiler makes no branch of it: the branch would be
    // mispredicted half of the time, since either end may send next.
    let from_b = black_box(!(difference >> 63) as u64);
    let swap = (source ^ destination) & from_b;
    let swap_ports = (ports ^ ports >> 16) & from_b as u32 & 0xffff;
    let key = FlowKey4 {
        addresses: addresses ^ (swap | swap << 32),
        ports: (ports ^ (swap_ports | swap_ports << 16)) as u64,
    };
    Some(Plain { key, sender: from_b as usize & 1, payload_len, tcp })
}

/// The plain segment of an IPv6 packet, if it is one.
#[inline(always)]
pub fn v6<'a, B: Bytes + ?Sized>(
    bytes: &'a B,
    start: Start<B::Header<'a>>,
) -> Option<Plain<FlowKey, B::Header<'a>>> {
    let h = bytes.header::<60>(start.offset)?;
    if h.u8(0) >> 4 != 6 || h.u8(6) != ip::TCP {
        return None;
    }
    let tcp = h.from(40);
    let payload_len = payload(bytes, tcp, h.be16(4) as i32)?;
    let (source, destination) = ([h.be64(8), h.be64(16)], [h.be64(24), h.be64(32)]);
    if is_link_local(source) {
        return None;
    }
    let (from, to) = (h.be16(40), h.be16(42));
    let sender = if (source, from) < (destination, to) { 0 } else { 1 };
    let (address_a, address_b, port_a, port_b) =
        if sender == 0 { (source, destination, from, to) } else { (destination, source, to, from) };
    let key = FlowKey { address_a, address_b, port_a, port_b, domain: 0, family: 6 };
    Some(Plain { key, sender, payload_len, tcp })
}

/// Length of the payload; `None` unless the TCP header's length and flags are plain (RFC 9293 3.1). `None`
/// for an IP length of 0 (BIG TCP) as well.
#[inline(always)]
fn payload<'a, B: Bytes + ?Sized>(bytes: &'a B, tcp: B::Header<'a>, tcp_len: i32) -> Option<u32> {
    let header_len = (tcp.u8(12) >> 4) as i32 * 4;
    let flags = tcp.u8(13) & (Flags::FIN | Flags::SYN | Flags::RST | Flags::ACK);
    let payload_len = tcp_len - header_len;
    // The options must be present, though they are not read: a truncated or cut header is not plain.
    let is_plain =
        flags == Flags::ACK && header_len >= 20 && payload_len >= 0 && bytes.has(tcp, header_len as usize);
    is_plain.then_some(payload_len as u32)
}
