//! TCP checksums in captures: right, wrong, left to the NIC, or impossible to verify.

use std::io::Cursor;

use etherparse::PacketBuilder;
use finwait::replay::{Input, Options, Output, Statistics, run_input};
use testkit::captures::{Captured, Order, Unit, pcap};

/// Makes a SYN and a segment with payload.
fn frames(v6: bool, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut addresses = [[0; 16]; 2];
    addresses[0][..2].copy_from_slice(&[0xfd, 1]);
    addresses[0][15] = 1;
    addresses[1] = addresses[0];
    addresses[1][15] = 2;
    let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = || match v6 {
        true => ethernet().ipv6(addresses[0], addresses[1], 64),
        false => ethernet().ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64),
    };
    let mut frames = vec![Vec::new(), Vec::new()];
    ip().tcp(40_000, 80, 1_000, 65_535).syn().write(&mut frames[0], &[]).expect("into memory");
    ip().tcp(40_000, 80, 1_001, 65_535).ack(5_001).write(&mut frames[1], payload).expect("into memory");
    frames
}

fn replay(frames: Vec<Vec<u8>>, verify_checksums: bool) -> (u64, Statistics) {
    let captured = frames.into_iter().enumerate().map(|(at, frame)| Captured { at_ns: 1 + at as u64, frame });
    let file = pcap(Order::Little, Unit::Nano, 1, &captured.collect::<Vec<_>>());
    let options = Options { verify_checksums, ..Options::default() };
    let mut segments = 0;
    let report =
        run_input(Input::new(Cursor::new(file)).expect("an input"), &options, &mut |output| match output {
            Output::Connection(listed) => {
                segments += listed.connection.client.segments;
                Ok(())
            }
            other => panic!("not wanted: {other:?}"),
        })
        .expect("a capture");
    assert!(report.fault.is_none());
    (segments, report.statistics)
}

const PAYLOADS: [&[u8]; 4] = [b"", b"1", b"12345", b"a payload of thirty-two octets, "];

#[test]
fn checksums_of_another_implementation_are_right() {
    for v6 in [false, true] {
        for payload in PAYLOADS {
            let (segments, statistics) = replay(frames(v6, payload), true);
            assert_eq!((segments, statistics.checksum_wrong, statistics.checksum_offloaded), (2, 0, 0));
        }
    }
}

#[test]
fn every_wrong_byte_is_counted_and_rejected_only_on_request() {
    for v6 in [false, true] {
        for payload in PAYLOADS {
            let good = frames(v6, payload);
            // Only bytes from the checksum on, because other ports and numbers would make another flow.
            for at in (if v6 { 54 } else { 34 }) + 16..good[1].len() {
                let mut bad = good.clone();
                bad[1][at] ^= 0x10;
                let (segments, statistics) = replay(bad.clone(), false);
                assert_eq!((segments, statistics.checksum_wrong), (2, 1), "octet {at}");
                let (segments, statistics) = replay(bad, true);
                assert_eq!((segments, statistics.checksum_wrong), (1, 1), "octet {at}");
                assert_eq!(statistics.ignored().collect::<Vec<_>>(), [("bad_checksum", 1)]);
                assert_eq!(statistics.frames, statistics.tracked + 1, "every frame in one number");
            }
        }
    }
}

#[test]
fn checksums_left_to_the_nic_are_always_accepted() {
    for v6 in [false, true] {
        for payload in PAYLOADS {
            let mut offloaded = frames(v6, payload);
            let start = if v6 { 54 } else { 34 };
            // Linux leaves the sum of the pseudo header in the field (RFC 9293 3.1, RFC 8200 8.1).
            let addresses = if v6 { 22..54 } else { 26..34 };
            let words =
                offloaded[1][addresses].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
            let len = (offloaded[1].len() - start) as u32;
            let mut sum = words.sum::<u32>() + 6 + len;
            sum = (sum & 0xffff) + (sum >> 16);
            offloaded[1][start + 16..start + 18].copy_from_slice(&(sum as u16).to_be_bytes());
            let (segments, statistics) = replay(offloaded, true);
            assert_eq!((segments, statistics.checksum_wrong, statistics.checksum_offloaded), (2, 0, 1));
        }
    }
}

#[test]
fn truncated_packets_are_not_verified() {
    let mut cut = frames(false, b"12345");
    cut[1][34 + 16] ^= 0xff;
    cut[1].pop();
    let (segments, statistics) = replay(cut, true);
    assert_eq!((segments, statistics.checksum_wrong), (2, 0));
}

/// Bytes after the packet, which the link layer added, are not summed.
#[test]
fn padding_is_not_summed() {
    let mut padded = frames(false, b"");
    for frame in &mut padded {
        frame.extend([0xaa; 6]);
    }
    assert_eq!(replay(padded, true).1.checksum_wrong, 0);
}

/// After a routing header (RFC 8200 4.4) the sum uses the last address of the list, not the address in the
/// IPv6 header.
#[test]
fn packets_with_a_routing_header_are_not_verified() {
    let mut routed = frames(true, b"12345");
    let frame = &mut routed[1];
    frame[20] = 43;
    let mut header = vec![6, 2, 0, 1, 0, 0, 0, 0];
    header.extend([0xfd; 16]);
    let len = u16::from_be_bytes([frame[18], frame[19]]) + header.len() as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame.splice(54..54, header);
    frame[54 + 24 + 16] ^= 0xff;
    let (segments, statistics) = replay(routed, true);
    assert_eq!((segments, statistics.checksum_wrong), (2, 0));
}
