//! IPv6: chains of extension headers, jumbograms, fragments.

use tcp_common::Ignored;
use tcp_common::wire::{Captured, FirstHeader, parse};

use crate::datagrams::{ACK, ip, segment, tcp, v6};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NONE: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

#[test]
fn each_extension_header_is_skipped_by_its_own_length_unit() {
    let whole = segment(ACK, &[], 9);
    for (header, length_field, octets) in [
        (HOP_BY_HOP, 1, 16),
        (ROUTING, 2, 24),
        (FRAGMENT, 0xff, 8),
        (AUTHENTICATION, 4, 24),
        (DESTINATION, 0, 8),
        (MOBILITY, 3, 32),
    ] {
        let mut extension = vec![0; octets];
        extension[1] = length_field;
        let packet = tcp(&v6(&[(header, extension)], &whole));
        assert_eq!(packet.segment.payload_len, 9, "header {header}");
        assert_eq!(packet.datagram.tcp_offset as usize, 40 + octets, "header {header}");
    }
}

/// A routing header of this type on its way to the last of its two segments.
fn routing(kind: u8, segments_left: u8, len: u8) -> (u8, Vec<u8>) {
    let mut header = vec![0, len, kind, segments_left, 1, 0, 0, 0];
    for host in [0x77, 0x55] {
        header.extend(v6_address(host));
    }
    (ROUTING, header)
}

fn v6_address(host: u8) -> [u8; 16] {
    [0x20, 1, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

#[test]
fn a_routing_header_names_the_final_destination_until_it_is_reached() {
    let destination = |kind, segments_left| {
        let packet = tcp(&v6(&[routing(kind, segments_left, 4)], &segment(ACK, &[], 9)));
        assert_eq!(packet.segment.payload_len, 9);
        packet.key.endpoint(packet.sender.peer()).octets()
    };
    let field = destination(4, 0);
    assert_ne!(field, v6_address(0x77));
    for segments_left in [1, 2] {
        assert_eq!(destination(4, segments_left), v6_address(0x77), "segment routing");
    }
    assert_eq!(destination(2, 1), v6_address(0x77), "Mobile IPv6");
    assert_eq!(destination(0, 1), field, "a type that hosts drop");
    let behind = v6(&[(HOP_BY_HOP, vec![0; 8]), routing(4, 1, 4)], &segment(ACK, &[], 0));
    let packet = tcp(&behind);
    assert_eq!(packet.key.endpoint(packet.sender.peer()).octets(), v6_address(0x77), "a second header");
}

#[test]
fn a_routing_header_without_its_segments_is_malformed_or_truncated() {
    let short = v6(&[routing(4, 1, 1)], &segment(ACK, &[], 0));
    assert_eq!(ip(&short), Err(Ignored::Malformed));
    let datagram = v6(&[routing(4, 1, 4)], &segment(ACK, &[], 0));
    for len in [41, 43, 48, 63] {
        let cut = Captured { bytes: &datagram[..len], wire_len: datagram.len() };
        assert_eq!(parse(&cut, FirstHeader::Ip, None), Err(Ignored::Truncated), "{len}");
    }
}

#[test]
fn six_extension_headers_are_followed_and_ten_are_not() {
    let chain = |n| v6(&vec![(DESTINATION, vec![0; 8]); n], &segment(ACK, &[], 0));
    tcp(&chain(6));
    assert_eq!(ip(&chain(10)), Err(Ignored::Unsupported));
    let mut udp = chain(6);
    udp[40 + 5 * 8] = 17;
    assert_eq!(ip(&udp), Err(Ignored::NotTcp));
}

#[test]
fn any_other_next_header_is_not_tcp() {
    for next in [ESP, NONE, 17, 58] {
        let mut datagram = v6(&[(HOP_BY_HOP, vec![0; 8])], &segment(ACK, &[], 0));
        datagram[40] = next;
        assert_eq!(ip(&datagram), Err(Ignored::NotTcp), "next header {next}");
    }
}

#[test]
fn an_extension_beyond_the_payload_is_malformed() {
    let mut datagram = v6(&[(DESTINATION, vec![0; 8])], &segment(ACK, &[], 0));
    datagram[5] = 4;
    assert_eq!(ip(&datagram), Err(Ignored::Malformed));
}

#[test]
fn length_zero_takes_the_length_of_the_frame() {
    let mut datagram = v6(&[(HOP_BY_HOP, vec![0; 8])], &segment(ACK, &[], 0));
    datagram[4..6].fill(0);
    let super_packet = Captured { bytes: &datagram, wire_len: 40 + 8 + 20 + 500_000 };
    let packet = parse(&super_packet, FirstHeader::Ip, None).expect("a TCP packet");
    assert_eq!(packet.segment.payload_len, 500_000);
}

#[test]
fn first_and_later_fragments_have_their_own_reasons() {
    let fragment = |field: u16| {
        let [high, low] = field.to_be_bytes();
        v6(&[(FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 1])], &segment(ACK, &[], 4))
    };
    tcp(&fragment(0));
    assert_eq!(ip(&fragment(1)), Err(Ignored::Fragment));
    assert_eq!(ip(&fragment(8)), Err(Ignored::Fragment));
    assert_eq!(ip(&fragment(9)), Err(Ignored::Fragment));
    let of = |next| {
        let mut datagram = fragment(8);
        datagram[40] = next;
        ip(&datagram)
    };
    assert_eq!(of(17), Err(Ignored::NotTcp));
    assert_eq!(of(DESTINATION), Err(Ignored::Fragment));
    let atomic = (FRAGMENT, vec![0; 8]);
    let nested = v6(&[(FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 1]), atomic], &segment(ACK, &[], 4));
    assert_eq!(ip(&nested), Err(Ignored::Fragment));
}
