//! The cases of `conformance/parse_cases.jsonl`: whole frames, cut frames, and the expected result of each.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use serde::Deserialize;
use tcp_common::wire::{Captured, Content, FirstHeader, Packet, Position, parse, parse_into};
use tcp_common::{Endpoint, Ignored, Segment};

const CASES: &str = include_str!("../../../conformance/parse_cases.jsonl");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
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
fn a_cut_frame_is_truncated_or_reads_as_the_whole_one_but_for_its_options() {
    for case in cases() {
        let frame = case.bytes();
        let whole = parse(&frame[..], FirstHeader::Ethernet, None);
        let mut seen_whole = false;
        for len in 0..=frame.len() {
            let cut = Captured { bytes: &frame[..len], wire_len: frame.len() };
            let result = parse(&cut, FirstHeader::Ethernet, None).map(without_options);
            let whole = whole.map(without_options);
            seen_whole |= result == whole;
            let expected = if seen_whole { whole } else { Err(Ignored::Truncated) };
            assert_eq!(result, expected, "{} {}: {len} of {} octets", case.id, case.title, frame.len());
        }
    }
}

/// Leaves out what the options contain: a capture may have cut them.
fn without_options(packet: Packet) -> Packet {
    let Segment { seq, ack, payload_len, window, flags, wire_segments, .. } = packet.segment;
    let segment = Segment { seq, ack, payload_len, window, flags, wire_segments, ..Segment::default() };
    Packet { segment, ..packet }
}

#[test]
fn a_frame_cut_on_the_wire_does_not_panic() {
    for case in cases() {
        let frame = case.bytes();
        for len in 0..=frame.len() {
            for link in [FirstHeader::Ethernet, FirstHeader::Ip] {
                let _ = parse(&frame[..len], link, None);
                let _ = parse(&frame[len..], link, None);
            }
        }
    }
}

/// The differences between the parser and the case, one line each.
fn differences(case: &Case) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, expected: String, read: String| {
        if expected != read {
            found.push(format!("{} {}: {what} is {read}, not {expected}", case.id, case.title));
        }
    };
    // Filled as far as the parser came: a first fragment's header is here though its verdict is an error.
    let mut packet = Packet::EMPTY;
    let result = parse_into(&case.bytes()[..], FirstHeader::Ethernet, None, &mut packet);
    let verdict = match (result, packet.datagram.fragment.position) {
        (Ok(Content::Fragment), Position::First) => "fragment_first",
        (Ok(Content::Fragment), _) => "fragment_later",
        (Ok(Content::Icmp), _) => "not_tcp",
        (Ok(Content::Segment | Content::BehindOptions), _) => "tcp",
        // The cases have one verdict for all that is not TCP right behind an IP header.
        (Err(Ignored::Ipip), _) => Ignored::NotTcp.name(),
        (Err(reason), _) => reason.name(),
    };
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
        check("the outer tag", vlans.first().unwrap_or(&0).to_string(), (packet.tags & 0xffff).to_string());
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

pub(crate) fn cases() -> Vec<Case> {
    let cases: Vec<Case> =
        CASES.lines().map(|line| serde_json::from_str(line).expect("a case is a line of JSON")).collect();
    assert!(!cases.is_empty());
    cases
}

impl Case {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let digits = self.frame.as_bytes().chunks(2);
        digits
            .map(|pair| {
                let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
                u8::from_str_radix(pair, 16).expect("hexadecimal digits")
            })
            .collect()
    }
}
