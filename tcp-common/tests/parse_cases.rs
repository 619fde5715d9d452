//! The wire parser against `conformance/parse_cases.jsonl`, against frames built here for what the cases leave out, and
//! against noise.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use proptest::prelude::*;
use serde::Deserialize;
use tcp_common::wire::{Bytes, Captured, Link, Packet, parse, parse_into};
use tcp_common::{Endpoint, Ignored, Segment};

const CASES: &str = include_str!("../../conformance/parse_cases.jsonl");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    title: String,
    frame: String,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: String,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    sport: Option<u16>,
    dport: Option<u16>,
    seq: Option<u32>,
    ack: Option<u32>,
    flags: Option<String>,
    payload_len: Option<u32>,
    vlans: Option<Vec<u16>>,
    mss: Option<u16>,
    wscale: Option<u8>,
    sack_permitted: Option<bool>,
    tsval: Option<u32>,
    tsecr: Option<u32>,
}

#[test]
fn every_case_parses_as_expected() {
    let failures: Vec<String> = cases().iter().flat_map(differences).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_cut_frame_is_truncated_or_reads_as_the_whole_one() {
    for case in cases() {
        let frame = case.bytes();
        let whole = parse(&frame[..], Link::Ethernet, None);
        let mut seen_whole = false;
        for len in 0..=frame.len() {
            let cut = Captured { bytes: &frame[..len], wire_len: frame.len() };
            let result = parse(&cut, Link::Ethernet, None);
            seen_whole |= result == whole;
            let expected = if seen_whole { whole } else { Err(Ignored::Truncated) };
            assert_eq!(result, expected, "{} {}: {len} of {} octets", case.id, case.title, frame.len());
        }
    }
}

#[test]
fn a_frame_cut_on_the_wire_does_not_panic() {
    for case in cases() {
        let frame = case.bytes();
        for len in 0..=frame.len() {
            for link in [Link::Ethernet, Link::Ip] {
                let _ = parse(&frame[..len], link, None);
                let _ = parse(&frame[len..], link, None);
            }
        }
    }
}

#[test]
fn the_reverse_packet_has_the_same_key_and_the_other_sender() {
    let there = tcp(&v4(V4_PLAIN, &segment(ACK, &[], 0)));
    let mut back = v4(V4_PLAIN, &segment(ACK, &[], 0));
    back[12..20].rotate_left(4);
    back[20..24].rotate_left(2);
    let back = tcp(&back);
    assert_eq!(there.key, back.key);
    assert_eq!(there.sender, back.sender.peer());
}

mod link {
    use super::*;

    #[test]
    fn an_ip_link_takes_both_versions_and_nothing_else() {
        assert_eq!(tcp(&v4(V4_PLAIN, &segment(ACK, &[], 3))).segment.payload_len, 3);
        assert_eq!(tcp(&v6(&[], &segment(ACK, &[], 3))).segment.payload_len, 3);
        assert_eq!(ip(&[0x55; 60]), Err(Ignored::NotTcp));
        assert_eq!(ip(&[]), Err(Ignored::Truncated));
    }

    #[test]
    fn the_outer_tag_is_in_the_key() {
        let packet =
            ethernet(&[0x88a8, 0xe00a, 0x8100, 0x0014], 0x0800, &v4(V4_PLAIN, &segment(ACK, &[], 0)));
        let packet = parse(&packet[..], Link::Ethernet, None).expect("a TCP packet");
        assert_eq!(packet.key.vlan, 10, "the id alone, without priority and drop eligibility");
        assert_eq!((packet.vlan_count, packet.vlans), (2, [10, 20]));
    }

    #[test]
    fn a_tag_that_the_nic_stripped_is_in_the_key() {
        let datagram = v4(V4_PLAIN, &segment(ACK, &[], 0));
        let plain = ethernet(&[], 0x0800, &datagram);
        let tagged = ethernet(&[0x8100, 20], 0x0800, &datagram);
        for frame in [plain, tagged] {
            let packet = parse(&frame[..], Link::Ethernet, Some(7)).expect("a TCP packet");
            assert_eq!(packet.key.vlan, 7);
        }
    }

    #[test]
    fn three_tags_are_unsupported() {
        let frame =
            ethernet(&[0x88a8, 1, 0x8100, 2, 0x8100, 3], 0x0800, &v4(V4_PLAIN, &segment(ACK, &[], 0)));
        assert_eq!(parse(&frame[..], Link::Ethernet, None), Err(Ignored::Unsupported));
    }

    #[test]
    fn the_ether_type_must_agree_with_the_version() {
        let (four, six) = (v4(V4_PLAIN, &segment(ACK, &[], 0)), v6(&[], &segment(ACK, &[], 0)));
        for (ether_type, datagram) in [(0x86dd, four), (0x0800, six)] {
            let frame = ethernet(&[], ether_type, &datagram);
            assert_eq!(parse(&frame[..], Link::Ethernet, None), Err(Ignored::Malformed));
        }
    }
}

mod ipv4 {
    use super::*;

    #[test]
    fn length_zero_takes_the_length_of_the_frame() {
        let mut datagram = v4(V4_PLAIN, &segment(ACK, &[], 0));
        datagram[2..4].fill(0);
        let super_packet = Captured { bytes: &datagram, wire_len: 40 + 185_000 };
        let packet = parse(&super_packet, Link::Ip, None).expect("a TCP packet");
        assert_eq!(packet.segment.payload_len, 185_000);

        let none_left = Captured { bytes: &datagram, wire_len: 20 };
        assert_eq!(parse(&none_left, Link::Ip, None), Err(Ignored::Malformed));
    }

    #[test]
    fn the_longest_header_is_stepped_over() {
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
        assert_eq!(ip(&datagram), Err(Ignored::FragmentLater));
        datagram[9] = 17;
        assert_eq!(ip(&datagram), Err(Ignored::NotTcp));
    }

    #[test]
    fn do_not_fragment_is_no_fragment() {
        tcp(&v4(0x4000, &segment(ACK, &[], 0)));
    }
}

mod ipv6 {
    use super::*;

    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const ESP: u8 = 50;
    const AUTHENTICATION: u8 = 51;
    const NONE: u8 = 59;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;

    #[test]
    fn extension_headers_are_stepped_over_by_their_own_units() {
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
    fn what_hides_the_rest_is_not_tcp() {
        for next in [ESP, NONE, 17, 58, 41] {
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
        let packet = parse(&super_packet, Link::Ip, None).expect("a TCP packet");
        assert_eq!(packet.segment.payload_len, 500_000);
    }

    #[test]
    fn fragments_are_told_apart() {
        let fragment = |field: u16| {
            let [high, low] = field.to_be_bytes();
            v6(&[(FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 1])], &segment(ACK, &[], 4))
        };
        tcp(&fragment(0));
        assert_eq!(ip(&fragment(1)), Err(Ignored::FragmentFirst));
        assert_eq!(ip(&fragment(8)), Err(Ignored::FragmentLater));
        assert_eq!(ip(&fragment(9)), Err(Ignored::FragmentLater));
        let of = |next| {
            let mut datagram = fragment(8);
            datagram[40] = next;
            ip(&datagram)
        };
        assert_eq!(of(17), Err(Ignored::NotTcp));
        assert_eq!(of(DESTINATION), Err(Ignored::FragmentLater));
        let atomic = (FRAGMENT, vec![0; 8]);
        let nested = v6(&[(FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 1]), atomic], &segment(ACK, &[], 4));
        assert_eq!(ip(&nested), Err(Ignored::FragmentFirst));
    }
}

mod options {
    use super::*;

    const TIMESTAMPS: [u8; 10] = [8, 10, 0, 0, 0, 5, 0, 0, 0, 6];

    #[test]
    fn timestamps_are_found_in_the_usual_place_and_in_others() {
        let usual = [&[NOP, NOP][..], &TIMESTAMPS].concat();
        let behind = [&TIMESTAMPS[..], &[NOP, NOP]].concat();
        let with_sack = [&usual[..], &[NOP, NOP, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]].concat();
        let last = [&[NOP; 30][..], &TIMESTAMPS].concat();
        for options in [usual, behind, with_sack, last] {
            let segment = read(ACK, &options);
            assert_eq!((segment.tsval, segment.tsecr), (5, 6), "{options:?}");
            assert_eq!(segment.options, Segment::HAS_TIMESTAMP, "{options:?}");
        }
    }

    #[test]
    fn nothing_is_read_after_the_end_of_options() {
        assert_eq!(read(SYN, &[0, 2, 4, 5, 180, 0, 0, 0]).options, 0);
    }

    #[test]
    fn a_wrong_length_stops_the_reading_and_keeps_the_segment() {
        for garbage in [[8, 0, 1, 1], [8, 1, 1, 1], [8, 5, 1, 1], [8, 255, 1, 1], [1, 1, 1, 8]] {
            let segment = read(SYN, &[&[2, 4, 5, 180][..], &garbage].concat());
            assert_eq!((segment.mss, segment.options), (1460, Segment::HAS_MSS), "{garbage:?}");
        }
    }

    #[test]
    fn an_option_of_another_length_than_its_own_is_stepped_over() {
        let segment = read(SYN, &[2, 3, 9, 3, 4, 9, 9, 4, 3, 9, NOP, NOP, 2, 4, 5, 180]);
        assert_eq!((segment.mss, segment.options), (1460, Segment::HAS_MSS));
    }

    #[test]
    fn options_cut_by_the_capture_make_it_truncated() {
        let datagram = v4(V4_PLAIN, &segment(SYN, &[2, 4, 5, 180], 0));
        let cut = Captured { bytes: &datagram[..43], wire_len: 44 };
        assert_eq!(parse(&cut, Link::Ip, None), Err(Ignored::Truncated));
    }

    #[test]
    fn a_data_offset_below_five_is_malformed() {
        let mut datagram = v4(V4_PLAIN, &segment(SYN, &[], 8));
        datagram[32] = 0x40;
        assert_eq!(ip(&datagram), Err(Ignored::Malformed));
    }

    fn read(flags: u8, options: &[u8]) -> Segment {
        tcp(&v4(V4_PLAIN, &segment(flags, options, 0))).segment
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..160), more in 0usize..200_000, vlan in any::<Option<u16>>()) {
        for link in [Link::Ethernet, Link::Ip] {
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
        check_invariants(&frame[..], parse(&frame[..], Link::Ethernet, None))?;
        let cut = &frame[..cut.index(frame.len())];
        check_invariants(cut, parse(cut, Link::Ethernet, None))?;
    }

    #[test]
    fn any_options_leave_the_rest_of_the_segment_alone(words in 0usize..=10, garbage in option_noise(), payload in 0usize..50) {
        let options = &garbage[..words * 4];
        let packet = ip(&v4(V4_PLAIN, &segment(SYN, options, payload))).expect("options make no segment bad");
        prop_assert_eq!((packet.segment.seq, packet.segment.ack), (SEQ, ACK_NUMBER));
        let by_the_book = Segment { payload_len: payload as u32, ..options_by_the_book(options) };
        prop_assert_eq!(packet.segment, by_the_book);
    }
}

/// Octets that are kinds and lengths of options more often than chance has it.
fn option_noise() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        4 => prop::sample::select(vec![vec![0], vec![NOP], vec![NOP, NOP], vec![2, 4, 5, 180], vec![3, 3, 7], vec![4, 2],
            vec![8, 10, 0, 0, 0, 5, 0, 0, 0, 6], vec![5, 10, 0, 0, 0, 1, 0, 0, 0, 2]]),
        1 => prop::collection::vec(0u8..12, 1..5),
        1 => prop::collection::vec(any::<u8>(), 1..5),
    ];
    prop::collection::vec(option, 40).prop_map(|options| options.concat().into_iter().take(40).collect())
}

/// A second reading of RFC 9293 3.2, with slices: the segment that [`segment`] makes of a SYN with these options.
fn options_by_the_book(mut options: &[u8]) -> Segment {
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
    prop_assert!(packet.vlan_count <= 2 && packet.key.vlan <= 0xfff);
    prop_assert!(matches!(packet.key.family, 4 | 6));
    Ok(())
}

/// What the parser says otherwise than the case, a line each.
fn differences(case: &Case) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, expected: String, read: String| {
        if expected != read {
            found.push(format!("{} {}: {what} is {read}, not {expected}", case.id, case.title));
        }
    };
    // Filled as far as the parser came: a first fragment's header is here though its verdict is an error.
    let mut packet = Packet::EMPTY;
    let result = parse_into(&case.bytes()[..], Link::Ethernet, None, &mut packet);
    let verdict = result.map_or_else(Ignored::name, |()| "tcp");
    let expect = &case.expect;
    if expect.verdict == "tcp_or_unsupported" {
        check(
            "verdict is one of the two",
            "true".into(),
            matches!(verdict, "tcp" | "unsupported").to_string(),
        );
    } else {
        check("verdict", expect.verdict.clone(), verdict.into());
    }
    if !matches!(verdict, "tcp" | "fragment_first") {
        return found;
    }

    let segment = packet.segment;
    let (source, destination) =
        (packet.key.endpoint(packet.sender), packet.key.endpoint(packet.sender.peer()));
    let option = |bit, value: u32| if segment.has(bit) { value.to_string() } else { "absent".into() };
    let fields = [
        ("src", text(expect.src), address(source).to_string()),
        ("dst", text(expect.dst), address(destination).to_string()),
        ("sport", text(expect.sport), source.port.to_string()),
        ("dport", text(expect.dport), destination.port.to_string()),
        ("seq", text(expect.seq), segment.seq.to_string()),
        ("ack", text(expect.ack), segment.ack.to_string()),
        ("payload_len", text(expect.payload_len), segment.payload_len.to_string()),
        ("mss", text(expect.mss), option(Segment::HAS_MSS, segment.mss.into())),
        ("wscale", text(expect.wscale), option(Segment::HAS_WSCALE, segment.wscale.into())),
        ("tsval", text(expect.tsval), option(Segment::HAS_TIMESTAMP, segment.tsval)),
        ("tsecr", text(expect.tsecr), option(Segment::HAS_TIMESTAMP, segment.tsecr)),
        ("sack_permitted", text(expect.sack_permitted), segment.has(Segment::HAS_SACK_PERMITTED).to_string()),
    ];
    for (what, expected, read) in fields {
        if let Some(expected) = expected {
            check(what, expected, read);
        }
    }
    if let Some(vlans) = &expect.vlans {
        check("vlans", format!("{vlans:?}"), format!("{:?}", &packet.vlans[..packet.vlan_count.into()]));
        check("the key's vlan", vlans.first().unwrap_or(&0).to_string(), packet.key.vlan.to_string());
    }
    if let Some(flags) = &expect.flags {
        let letters: BTreeSet<char> = flags.chars().collect();
        check("flags", format!("{letters:?}"), format!("{:?}", flag_letters(segment.flags.0)));
    }
    found
}

fn text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn flag_letters(flags: u8) -> BTreeSet<char> {
    "FSRPAUEC"
        .chars()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0)
        .map(|(_, letter)| letter)
        .collect()
}

fn address(endpoint: Endpoint) -> IpAddr {
    Ipv6Addr::from(endpoint.octets()).to_canonical()
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> =
        CASES.lines().map(|line| serde_json::from_str(line).expect("a case is a line of JSON")).collect();
    assert!(!cases.is_empty());
    cases
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let digits = self.frame.as_bytes().chunks(2);
        digits
            .map(|pair| {
                let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
                u8::from_str_radix(pair, 16).expect("hexadecimal digits")
            })
            .collect()
    }
}

fn ip(datagram: &[u8]) -> Result<Packet, Ignored> {
    parse(datagram, Link::Ip, None)
}

fn tcp(datagram: &[u8]) -> Packet {
    ip(datagram).expect("a TCP packet")
}

/// A frame with `tags` (type, control information, type, ..) before the type of its content.
fn ethernet(tags: &[u16], ether_type: u16, datagram: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for field in tags.iter().chain([&ether_type]) {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(datagram);
    frame
}

fn v4(fragment: u16, content: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x45, 0];
    datagram.extend((20 + content.len() as u16).to_be_bytes());
    datagram.extend([0, 1]);
    datagram.extend(fragment.to_be_bytes());
    datagram.extend([64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    datagram.extend(content);
    datagram
}

/// With extension headers (number, octets); the first octet of each is filled in with the number of the next.
fn v6(extensions: &[(u8, Vec<u8>)], content: &[u8]) -> Vec<u8> {
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

fn segment(flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
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

const SEQ: u32 = 1000;
const ACK_NUMBER: u32 = 2000;
const SYN: u8 = tcp_common::Flags::SYN;
const ACK: u8 = tcp_common::Flags::ACK;
const NOP: u8 = 1;
/// Neither fragmented nor forbidden to be.
const V4_PLAIN: u16 = 0;
