//! The plain segment: ACK without SYN, FIN or RST, in the first fragment of nothing, behind at most one VLAN tag and no
//! other header. Nearly every packet is one; [`parse`](super::parse) reads the same from it, and all others.
//!
//! Everything is at a fixed place, so one comparison with the packet's end does, and options need not be read.

use super::{Bytes, Header as _, Link, ethernet, ip};
use crate::key::{FlowKey, FlowKey4};
use crate::segment::Flags;
use crate::seq::Seq;
use crate::state::End;

/// What a plain segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain<K> {
    /// Its flow.
    pub key: K,
    /// Which end sent it.
    pub sender: End,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgment number.
    pub ack: Seq,
    /// Octets of payload.
    pub payload_len: u32,
    /// The window field, not scaled.
    pub window: u16,
}

/// Where a packet's IP header begins, and which it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    offset: usize,
    vlan: u16,
    /// 4 or 6.
    pub version: u8,
}

/// Reads the link layer; `None` where it is not of the common kind.
#[inline(always)]
pub fn start<B: Bytes + ?Sized>(bytes: &B, link: Link, stripped_vlan: Option<u16>) -> Option<Start> {
    let (ether_type, offset, vlan) = match link {
        Link::Ip => {
            let version = bytes.header::<1>(0)?.u8(0) >> 4;
            return Some(Start { offset: 0, vlan: stripped_vlan.unwrap_or(0), version });
        }
        Link::Ethernet => {
            let header = bytes.header::<18>(0)?;
            let ether_type = header.be16(12);
            if ethernet::is_tag(ether_type) {
                (header.be16(16), 18, header.be16(14) & ethernet::VLAN_ID)
            } else {
                (ether_type, 14, 0)
            }
        }
    };
    let version = match ether_type {
        ethernet::IPV4 => 4,
        ethernet::IPV6 => 6,
        _ => return None,
    };
    Some(Start { offset, vlan: stripped_vlan.unwrap_or(vlan), version })
}

/// The plain segment of an IPv4 packet, if it is one.
#[inline(always)]
pub fn v4<B: Bytes + ?Sized>(bytes: &B, start: Start) -> Option<Plain<FlowKey4>> {
    let h = bytes.header::<40>(start.offset)?;
    // Version 4, no options; TCP; no part of a fragmented datagram.
    if h.u8(0) != 0x45 || h.u8(9) != ip::TCP || h.be16(6) & 0x3fff != 0 {
        return None;
    }
    let (source, destination) = (h.be32(12), h.be32(16));
    let (from, to) = (h.be16(20), h.be16(22));
    let sender = if (source, from) < (destination, to) { End::A } else { End::B };
    let (a, b, port_a, port_b) = match sender {
        End::A => (source, destination, from, to),
        End::B => (destination, source, to, from),
    };
    let addresses = (a as u64) << 32 | b as u64;
    let key = FlowKey4 { addresses, port_a, port_b, vlan: start.vlan, family: 4 };
    let tcp_len = (h.be16(2) as u32).checked_sub(20)?;
    finish(
        bytes,
        start.offset + 20,
        tcp_len,
        h.be16(32),
        Plain { key, sender, seq: h.be32(24), ack: h.be32(28), payload_len: 0, window: h.be16(34) },
    )
}

/// The plain segment of an IPv6 packet, if it is one.
#[inline(always)]
pub fn v6<B: Bytes + ?Sized>(bytes: &B, start: Start) -> Option<Plain<FlowKey>> {
    let h = bytes.header::<60>(start.offset)?;
    if h.u8(0) >> 4 != 6 || h.u8(6) != ip::TCP {
        return None;
    }
    let (source, destination) = ([h.be64(8), h.be64(16)], [h.be64(24), h.be64(32)]);
    let (from, to) = (h.be16(40), h.be16(42));
    let sender = if (source, from) < (destination, to) { End::A } else { End::B };
    let (address_a, address_b, port_a, port_b) = match sender {
        End::A => (source, destination, from, to),
        End::B => (destination, source, to, from),
    };
    let key = FlowKey { address_a, address_b, port_a, port_b, vlan: start.vlan, family: 6 };
    finish(
        bytes,
        start.offset + 40,
        h.be16(4) as u32,
        h.be16(52),
        Plain { key, sender, seq: h.be32(44), ack: h.be32(48), payload_len: 0, window: h.be16(54) },
    )
}

/// Checks the TCP header's length and flags; `offset_and_flags` is its seventh word (RFC 9293 3.1). A length of 0 (BIG
/// TCP) ends here too.
#[inline(always)]
fn finish<B: Bytes + ?Sized, K>(
    bytes: &B,
    offset: usize,
    tcp_len: u32,
    offset_and_flags: u16,
    mut plain: Plain<K>,
) -> Option<Plain<K>> {
    let header_len = (offset_and_flags >> 12) as u32 * 4;
    let flags = offset_and_flags as u8 & (Flags::FIN | Flags::SYN | Flags::RST | Flags::ACK);
    if flags != Flags::ACK || header_len < 20 || tcp_len < header_len {
        return None;
    }
    // The options must be there, read or not: a header cut inside them is none.
    bytes.header::<1>(offset + header_len as usize - 1)?;
    plain.payload_len = tcp_len - header_len;
    Some(plain)
}
