//! Fragments: what is read of each, and the segment that they make.

use tcp_common::Ignored;
use tcp_common::record::WaitingDatagram;
use tcp_common::wire::{Content, FirstHeader, Packet, Position, parse_into};

use super::datagrams::*;

fn read(datagram: &[u8]) -> Packet {
    let mut packet = Packet::EMPTY;
    let content = parse_into(datagram, FirstHeader::Ip, None, &mut packet);
    assert_eq!(content, Ok(Content::Fragment));
    packet
}

/// Joins the fragments of a datagram, which is not whole before the last of them.
fn join(parts: &[Packet]) -> Packet {
    let mut datagram = WaitingDatagram::EMPTY;
    for part in parts {
        assert!(!datagram.is_whole());
        let waits = part.datagram.fragment.position != Position::Middle;
        assert_eq!(datagram.add(part), Ok(waits));
    }
    assert!(datagram.is_whole());
    assert_eq!(datagram.complete(), Ok(()));
    datagram.packet
}

const FIN: u8 = 0x11;
const MORE: u16 = 0x2000;

#[test]
fn the_parts_make_the_segment_in_any_order() {
    // 20 bytes of header and 1,000 of payload, divided after 64 and 512.
    let whole = segment(FIN, &[], 1_000);
    let [first, middle, last] = [(MORE, 0..64), (MORE | 8, 64..512), (64, 512..1_020)]
        .map(|(field, range)| read(&v4(field, &whole[range])));
    assert_eq!(
        [first, middle, last].map(|packet| packet.datagram.fragment.position),
        [Position::First, Position::Middle, Position::Last]
    );
    assert_eq!(first.datagram.id(), last.datagram.id());
    let expected = tcp(&v4(0, &whole));
    for order in [[first, middle, last], [last, middle, first], [middle, last, first], [first, last, middle]]
    {
        let joined = join(&order);
        assert_eq!((joined.key, joined.sender), (expected.key, expected.sender));
        assert_eq!(joined.segment, expected.segment);
        assert_eq!((joined.segment.payload_len, joined.datagram.tcp_len), (1_000, 1_020));
    }
}

#[test]
fn the_same_in_ipv6_with_headers_in_the_fragmented_part() {
    let whole = segment(FIN, &[], 1_000);
    let part = |field: u16, next: u8, content: &[u8]| {
        let header = [[next, 0].as_slice(), &field.to_be_bytes(), &[0, 0, 0, 7]].concat();
        // `v6` writes the number of the next header over the first byte.
        let mut datagram = v6(&[(44, header)], content);
        datagram[40] = next;
        datagram
    };
    for options in [&[][..], &[6, 0, 1, 4, 0, 0, 0, 0]] {
        let next = if options.is_empty() { 6 } else { 60 };
        let fragmented = [options, &whole].concat();
        let first = read(&part(1, next, &fragmented[..64]));
        let last = read(&part(64, next, &fragmented[64..]));
        assert_eq!(first.datagram.id(), last.datagram.id());
        assert_eq!(join(&[last, first]).segment.payload_len, 1_000, "{options:?}");
    }
}

#[test]
fn copies_do_not_stand_for_parts_that_are_missing() {
    let whole = segment(FIN, &[], 1_000);
    let [first, one, two, last] =
        [(MORE, 0..64), (MORE | 8, 64..264), (MORE | 33, 264..464), (58, 464..1_020)]
            .map(|(field, range)| read(&v4(field, &whole[range])));
    let mut datagram = WaitingDatagram::EMPTY;
    for (part, expected) in [
        (first, Ok(true)),
        (first, Err(Ignored::Duplicate)),
        (two, Ok(false)),
        (two, Ok(false)),
        (last, Ok(true)),
        (last, Err(Ignored::Duplicate)),
    ] {
        assert_eq!(datagram.add(&part), expected);
        assert!(!datagram.is_whole());
    }
    assert_eq!(datagram.add(&one), Ok(false));
    assert!(datagram.is_whole());
}

#[test]
fn a_last_fragment_that_ends_inside_the_first_is_malformed() {
    let whole = segment(FIN, &[], 1_000);
    let mut datagram = WaitingDatagram::EMPTY;
    for part in [read(&v4(MORE, &whole[..64])), read(&v4(4, &whole[32..40]))] {
        assert_eq!(datagram.add(&part), Ok(true));
    }
    assert!(datagram.is_whole());
    assert_eq!(datagram.complete(), Err(Ignored::Malformed));
}

#[test]
fn datagrams_differ_by_addresses_and_identification() {
    let of = |id: u8, host: u8| {
        let mut datagram = v4(MORE, &segment(FIN, &[], 100));
        (datagram[5], datagram[15]) = (id, host);
        read(&datagram).datagram.id()
    };
    assert_eq!(of(1, 1), of(1, 1));
    assert_ne!(of(1, 1), of(2, 1));
    assert_ne!(of(1, 1), of(1, 2));
}
