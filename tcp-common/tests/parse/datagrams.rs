//! Packets made in memory, and short forms of the calls that parse them.

use std::net::Ipv6Addr;

use tcp_common::Ignored;
use tcp_common::wire::{FirstHeader, Packet, parse};

pub(crate) fn ip(datagram: &[u8]) -> Result<Packet, Ignored> {
    parse(datagram, FirstHeader::Ip, None)
}

pub(crate) fn tcp(datagram: &[u8]) -> Packet {
    ip(datagram).expect("a TCP packet")
}

/// An Ethernet frame with VLAN tags (`tags`: type, control information, type, ...) before its EtherType.
pub(crate) fn ethernet(tags: &[u16], ether_type: u16, datagram: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for field in tags.iter().chain([&ether_type]) {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(datagram);
    frame
}

pub(crate) fn v4(fragment: u16, content: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x45, 0];
    datagram.extend((20 + content.len() as u16).to_be_bytes());
    datagram.extend([0, 1]);
    datagram.extend(fragment.to_be_bytes());
    datagram.extend([64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    datagram.extend(content);
    datagram
}

/// An IPv6 packet with extension headers (number, bytes); the first byte of each becomes the number of
/// the next.
pub(crate) fn v6(extensions: &[(u8, Vec<u8>)], content: &[u8]) -> Vec<u8> {
    let payload_len = extensions.iter().map(|(_, octets)| octets.len()).sum::<usize>() + content.len();
    let mut datagram = vec![0x60, 0, 0, 0];
    datagram.extend((payload_len as u16).to_be_bytes());
    datagram.extend([6, 64]);
    datagram.extend("2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets());
    datagram.extend("2001:db8:ffff::7".parse::<Ipv6Addr>().expect("an address").octets());
    let mut next_field = 6;
    for (number, octets) in extensions {
        datagram[next_field] = *number;
        next_field = datagram.len();
        datagram.extend(octets);
        datagram[next_field] = 6;
    }
    datagram.extend(content);
    datagram
}

pub(crate) fn segment(flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4), "a header is whole words");
    let mut segment = Vec::new();
    segment.extend(40_000u16.to_be_bytes());
    segment.extend(443u16.to_be_bytes());
    segment.extend(SEQ.to_be_bytes());
    segment.extend(ACK_NUMBER.to_be_bytes());
    segment.extend([(5 + options.len() as u8 / 4) << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(options);
    segment.resize(segment.len() + payload, b'x');
    segment
}

pub(crate) const SEQ: u32 = 1000;
pub(crate) const ACK_NUMBER: u32 = 2000;
pub(crate) const SYN: u8 = tcp_common::Flags::SYN;
pub(crate) const ACK: u8 = tcp_common::Flags::ACK;
pub(crate) const NOP: u8 = 1;
/// The fragment field of a packet that is not a fragment and may be fragmented.
pub(crate) const V4_PLAIN: u16 = 0;
