//! Random bytes, cases with changed bytes, and random options compared with a second parser.

use proptest::prelude::*;
use tcp_common::wire::{Bytes, Captured, FirstHeader, Packet, parse};
use tcp_common::{Ignored, Segment};

use crate::cases::cases;
use crate::datagrams::{ACK_NUMBER, NOP, SEQ, SYN, V4_PLAIN, ip, segment, v4};

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..160), more in 0usize..200_000, vlan in any::<Option<u16>>()) {
        for link in [FirstHeader::Ethernet, FirstHeader::Ip] {
            let captured = Captured { bytes: &bytes, wire_len: bytes.len() + more };
            check_invariants(&captured, parse(&captured, link, vlan.map(|id| id & 0xfff)))?;
        }
    }

    #[test]
    fn a_mutated_case_does_not_panic(
        index in any::<prop::sample::Index>(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let cases = cases();
        let mut frame = index.get(&cases).bytes();
        for (at, value) in mutations {
            *at.get_mut(&mut frame) = value;
        }
        check_invariants(&frame[..], parse(&frame[..], FirstHeader::Ethernet, None))?;
        let cut = &frame[..cut.index(frame.len())];
        check_invariants(cut, parse(cut, FirstHeader::Ethernet, None))?;
    }

    #[test]
    fn options_do_not_change_the_rest_of_the_segment(words in 0usize..=10, garbage in option_noise(), payload in 0usize..50) {
        let options = &garbage[..words * 4];
        let packet = ip(&v4(V4_PLAIN, &segment(SYN, options, payload))).expect("options make no segment bad");
        prop_assert_eq!((packet.segment.seq, packet.segment.ack), (SEQ, ACK_NUMBER));
        let by_the_book = Segment { payload_len: payload as u32, ..parse_options_again(options) };
        prop_assert_eq!(packet.segment, by_the_book);
    }
}

/// Random bytes in which kinds and lengths of options are frequent.
fn option_noise() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        4 => prop::sample::select(vec![vec![0], vec![NOP], vec![NOP, NOP], vec![2, 4, 5, 180], vec![3, 3, 7], vec![4, 2],
            vec![8, 10, 0, 0, 0, 5, 0, 0, 0, 6], vec![5, 10, 0, 0, 0, 1, 0, 0, 0, 2]]),
        1 => prop::collection::vec(0u8..12, 1..5),
        1 => prop::collection::vec(any::<u8>(), 1..5),
    ];
    prop::collection::vec(option, 40).prop_map(|options| options.concat().into_iter().take(40).collect())
}

/// A second parser of options after RFC 9293 3.2, on slices: the fields that a SYN with these options has.
fn parse_options_again(mut options: &[u8]) -> Segment {
    let mut segment = ip(&v4(V4_PLAIN, &segment(SYN, &[], 0))).expect("a TCP packet").segment;
    loop {
        let (kind, value) = match options {
            [] | [0, ..] => return segment,
            [NOP, rest @ ..] => {
                options = rest;
                continue;
            }
            &[kind, len, ..] if len >= 2 && len as usize <= options.len() => {
                let (option, rest) = options.split_at(len as usize);
                options = rest;
                (kind, &option[2..])
            }
            _ => return segment,
        };
        match (kind, value) {
            (2, &[a, b]) => {
                segment.mss = u16::from_be_bytes([a, b]);
                segment.options |= Segment::HAS_MSS;
            }
            (3, &[shift]) => {
                segment.wscale = shift.min(14);
                segment.options |= Segment::HAS_WSCALE;
            }
            (4, []) => segment.options |= Segment::HAS_SACK_PERMITTED,
            (8, &[a, b, c, d, e, f, g, h]) => {
                segment.tsval = u32::from_be_bytes([a, b, c, d]);
                segment.tsecr = u32::from_be_bytes([e, f, g, h]);
                segment.options |= Segment::HAS_TIMESTAMP;
            }
            _ => {}
        }
    }
}

fn check_invariants<B: Bytes + ?Sized>(
    bytes: &B,
    result: Result<Packet, Ignored>,
) -> Result<(), TestCaseError> {
    let Ok(packet) = result else { return Ok(()) };
    let datagram = packet.datagram;
    prop_assert!(
        bytes.header::<20>(datagram.tcp_offset as usize).is_some(),
        "a TCP header that is not there"
    );
    prop_assert!(packet.segment.payload_len + 20 <= datagram.tcp_len);
    prop_assert!(packet.segment.payload_len + 60 >= datagram.tcp_len);
    prop_assert!(packet.segment.wscale <= 14);
    prop_assert!(packet.segment.wire_segments == 1);
    prop_assert!(packet.vlan_count <= 2 && packet.tags & 0xffff <= 0xfff);
    prop_assert!(matches!(packet.key.family, 4 | 6));
    Ok(())
}
