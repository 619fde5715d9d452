//! IPv4: lengths, fragments, options.

use tcp_common::Ignored;
use tcp_common::wire::{Captured, FirstHeader, parse};

use crate::datagrams::{ACK, NOP, V4_PLAIN, ip, segment, tcp, v4};

#[test]
fn length_zero_takes_the_length_of_the_frame() {
    let mut datagram = v4(V4_PLAIN, &segment(ACK, &[], 0));
    datagram[2..4].fill(0);
    let super_packet = Captured { bytes: &datagram, wire_len: 40 + 185_000 };
    let packet = parse(&super_packet, FirstHeader::Ip, None).expect("a TCP packet");
    assert_eq!(packet.segment.payload_len, 185_000);

    let none_left = Captured { bytes: &datagram, wire_len: 20 };
    assert_eq!(parse(&none_left, FirstHeader::Ip, None), Err(Ignored::Malformed));
}

#[test]
fn the_longest_header_is_skipped() {
    let mut datagram = v4(V4_PLAIN, &segment(ACK, &[], 5));
    datagram[0] = 0x4f;
    datagram[3] += 40;
    datagram.splice(20..20, [NOP; 40]);
    let packet = tcp(&datagram);
    assert_eq!((packet.segment.payload_len, packet.datagram.tcp_offset), (5, 60));
}

#[test]
fn padding_does_not_complete_a_tiny_first_fragment() {
    for junk in [0x00, 0x50, 0xf0] {
        let mut datagram = v4(0x2000, &segment(ACK, &[], 0));
        datagram[2..4].copy_from_slice(&28u16.to_be_bytes());
        datagram[28..].fill(junk);
        assert_eq!(ip(&datagram), Err(Ignored::Truncated));
    }
}

#[test]
fn a_later_fragment_of_another_protocol_is_not_tcp() {
    let mut datagram = v4(0x00b9, &segment(ACK, &[], 0));
    assert_eq!(ip(&datagram), Err(Ignored::Fragment));
    datagram[9] = 17;
    assert_eq!(ip(&datagram), Err(Ignored::NotTcp));
}

/// An IPv4 packet with an authentication header of this length, and the number of what follows.
fn authenticated(words: u8, next: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; (usize::from(words) + 2) * 4];
    header[..2].copy_from_slice(&[next, words]);
    let mut datagram = v4(V4_PLAIN, &[&header, content].concat());
    datagram[9] = AUTHENTICATION;
    datagram
}

#[test]
fn an_authentication_header_is_skipped() {
    // Integrity values of 96, 128 and 256 bits, and none.
    for words in [4, 5, 9, 1] {
        let packet = tcp(&authenticated(words, 6, &segment(ACK, &[], 9)));
        assert_eq!(packet.segment.payload_len, 9, "{words}");
        assert_eq!(packet.datagram.tcp_offset, 20 + (u32::from(words) + 2) * 4, "{words}");
    }
    assert_eq!(ip(&authenticated(4, 17, &segment(ACK, &[], 9))), Err(Ignored::NotTcp));
}

#[test]
fn an_authentication_header_beyond_the_packet_is_malformed() {
    let mut datagram = authenticated(4, 6, &segment(ACK, &[], 9));
    datagram[2..4].copy_from_slice(&40u16.to_be_bytes());
    assert_eq!(ip(&datagram), Err(Ignored::Malformed));
    assert_eq!(ip(&datagram[..21]), Err(Ignored::Truncated));
}

#[test]
fn fragments_behind_an_authentication_header_are_fragments() {
    let fragment = |field: u16| {
        let mut datagram = authenticated(4, 6, &segment(ACK, &[], 9));
        datagram[6..8].copy_from_slice(&field.to_be_bytes());
        ip(&datagram)
    };
    assert_eq!(fragment(0x2000), Err(Ignored::Fragment));
    assert_eq!(fragment(0x2001), Err(Ignored::Fragment));
    assert_eq!(fragment(0x0001), Err(Ignored::Fragment));
}

#[test]
fn a_packet_with_dont_fragment_is_not_a_fragment() {
    tcp(&v4(0x4000, &segment(ACK, &[], 0)));
}

const AUTHENTICATION: u8 = 51;
