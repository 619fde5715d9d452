//! ICMP messages: which are errors about a TCP segment, and of which.

use tcp_common::wire::{Content, FirstHeader, IcmpError, Packet, parse_icmp, parse_into};
use tcp_common::{Ignored, Segment};

use super::datagrams::*;

/// Parses an ICMP message; IPv6 if `protocol` is 58.
fn read(protocol: u8, kind: u8, code: u8, quoted: &[u8]) -> Result<(Packet, IcmpError), Ignored> {
    let message = [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat();
    let mut datagram = if protocol == 1 { v4(0, &message) } else { v6(&[], &message) };
    datagram[if protocol == 1 { 9 } else { 6 }] = protocol;
    let mut packet = Packet::EMPTY;
    assert_eq!(parse_into(&datagram[..], FirstHeader::Ip, None, &mut packet), Ok(Content::Icmp));
    parse_icmp(&datagram[..], &mut packet).map(|error| (packet, error))
}

#[test]
fn the_quoted_segment_names_the_flow() {
    let syn = segment(0x02, &[2, 4, 5, 180], 0);
    for (protocol, kind, code, quoted) in [(1, 3, 3, v4(0x4000, &syn)), (58, 1, 4, v6(&[], &syn))] {
        let expected = tcp(&quoted);
        // All of it, or as little as RFC 792 asks for.
        for len in [quoted.len(), quoted.len() - syn.len() + 8] {
            let (packet, error) = read(protocol, kind, code, &quoted[..len]).expect("an error");
            assert_eq!((packet.key, packet.sender), (expected.key, expected.sender));
            assert_eq!(
                packet.segment,
                Segment { seq: expected.segment.seq, wire_segments: 0, ..Segment::default() }
            );
            assert!(error.refuses(packet.key.family));
        }
        assert_eq!(
            read(protocol, kind, code, &quoted[..quoted.len() - syn.len() + 7]).err(),
            Some(Ignored::Truncated)
        );
    }
}

#[test]
fn other_messages_are_not_about_a_connection_attempt() {
    let syn = segment(0x02, &[], 0);
    let (quoted, quoted_v6) = (v4(0x4000, &syn), v6(&[], &syn));
    // Echo, a neighbour solicitation.
    assert_eq!(read(1, 8, 0, &quoted).err(), Some(Ignored::NotTcp));
    assert_eq!(read(58, 135, 0, &quoted_v6).err(), Some(Ignored::NotTcp));
    // About UDP, and about a later fragment.
    let mut udp = quoted.clone();
    udp[9] = 17;
    assert_eq!(read(1, 3, 3, &udp).err(), Some(Ignored::NotTcp));
    assert_eq!(read(1, 3, 3, &v4(0x0008, &syn)).err(), Some(Ignored::NotTcp));
    // Fragmentation needed, source quench, redirect, packet too big.
    for (kind, code) in [(3, 4), (4, 0), (5, 1)] {
        assert_eq!(read(1, kind, code, &quoted).err(), Some(Ignored::Icmp));
    }
    assert_eq!(read(58, 2, 0, &quoted_v6).err(), Some(Ignored::Icmp));
}
