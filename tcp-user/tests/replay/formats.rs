//! File formats, link types, timestamps and compression.

use super::*;

/// Returns a report as text without the interface, which not every format contains.
fn reported(replayed: Replayed) -> String {
    let mut connections = replayed.connections;
    connections.iter_mut().for_each(|connection| connection.interface = None);
    format!("{connections:?}")
}

#[test]
fn every_format_byte_order_and_timestamp_unit_is_read() {
    for id in ["S001", "S007", "S060"] {
        let scenario = scenario(id);
        let (frames, rules) = (all_steps(&scenario), scenario.rules);
        let wanted = reported(replay(pcap(Order::Little, Unit::Micro, 1, &frames), rules));
        let numbered: Vec<_> = frames.iter().cloned().map(|frame| (0, frame)).collect();
        for order in [Order::Little, Order::Big] {
            for unit in [Unit::Micro, Unit::Nano] {
                assert_eq!(
                    reported(replay(pcap(order, unit, 1, &frames), rules)),
                    wanted,
                    "pcap {order:?} {unit:?}"
                );
            }
            let resolutions = [None, Some((6, 1_000_000)), Some((9, SECOND_NS)), Some((3, 1_000))];
            for resolution in resolutions {
                for offset_s in [0, 1_000] {
                    let interface = Interface { resolution, offset_s, ..Interface::ETHERNET };
                    let report = replay(pcapng(order, &[interface], &numbered), rules);
                    assert!(report.connections.iter().all(|c| c.interface.as_deref() == Some("eth0")));
                    assert_eq!(reported(report), wanted, "pcapng {order:?} {resolution:?} {offset_s}");
                }
            }
        }
    }
}

#[test]
fn timestamps_in_powers_of_two_are_read() {
    let frames = [(0, arp(5 * SECOND_NS + SECOND_NS / 4))];
    let interface = Interface { resolution: Some((0x80 | 10, 1_024)), ..Interface::ETHERNET };
    let report = replay(pcapng(Order::Big, &[interface], &frames), Rules::AGENT);
    assert_eq!(report.ended_at.as_nanosecond(), i128::from(5 * SECOND_NS + SECOND_NS / 4));
}

#[test]
fn every_link_type_is_read() {
    let scenario = scenario("S001");
    let (frames, rules) = (all_steps(&scenario), scenario.rules);
    let wanted = reported(replay(pcap(Order::Little, Unit::Micro, 1, &frames), rules));
    for link in [0, 9, 12, 14, 50, 101, 104, 108, 113, 228, 229, 239, 276] {
        let frames: Vec<_> =
            frames.iter().map(|c| Captured { at_ns: c.at_ns, frame: relink(&c.frame, link) }).collect();
        let report = replay(pcap(Order::Little, Unit::Micro, link, &frames), rules);
        assert_eq!(report.statistics.tracked, 11, "link type {link}");
        assert_eq!(report.statistics.ignored().next(), Some(("not_tcp", 2)), "link type {link}");
        assert_eq!(reported(report), wanted, "link type {link}");
    }
}

#[test]
fn vlan_tags_after_a_cooked_header_are_read() {
    let syn = relink(&syn_of(40_000), 113);
    let mut tagged = syn[..14].to_vec();
    tagged.extend([0x81, 0x00, 0x00, 0x07, 0x08, 0x00]);
    tagged.extend(&syn[16..]);
    let frames = [Captured { at_ns: 1, frame: syn }, Captured { at_ns: 2, frame: tagged }];
    let report = replay(pcap(Order::Little, Unit::Nano, 113, &frames), Rules::AGENT);
    assert_eq!(report.statistics.tracked, 2);
    let [connection] = &report.connections[..] else { panic!("a tag makes no connection") };
    assert_eq!(connection.client.segments, 2, "the same SYN again, with a tag");
}

#[test]
fn a_copy_at_another_interface_counts_once() {
    let scenario = scenario("S001");
    let copies: Vec<_> =
        all_steps(&scenario).into_iter().flat_map(|frame| [(0, frame.clone()), (1, frame)]).collect();
    let bridge = Interface { name: "br0", ..Interface::ETHERNET };
    let report = replay(pcapng(Order::Little, &[Interface::ETHERNET, bridge], &copies), Rules::RFC);
    let wanted = replay(pcap(Order::Little, Unit::Nano, 1, &all_steps(&scenario)), Rules::RFC);
    assert_eq!(reported(report), reported(wanted));
}

#[test]
fn an_interface_of_an_unsupported_link_type_is_skipped() {
    let foreign = Interface { link: 189, name: "usbmon0", ..Interface::ETHERNET };
    let frames = [(1, arp(1)), (0, arp(2))];
    let report = replay(pcapng(Order::Little, &[foreign, Interface::ETHERNET], &frames), Rules::AGENT);
    assert_eq!(report.statistics.ignored().collect::<Vec<_>>(), [("not_tcp", 1), ("foreign_link", 1)]);
    assert!(matches!(fault(pcapng(Order::Little, &[foreign], &frames[1..])), Fault::LinkType(189)));
    assert!(matches!(fault(pcap(Order::Big, Unit::Nano, 189, &[arp(1)])), Fault::LinkType(189)));
}

#[test]
fn a_packet_without_a_timestamp_follows_the_previous_one() {
    let mut file = pcapng(Order::Little, &[Interface::ETHERNET], &[(0, arp(7 * SECOND_NS))]);
    add_simple_packet(&mut file, &syn_of(40_000));
    let report = replay(file, Rules::AGENT);
    assert_eq!(report.connections[0].last_seen_at.as_second(), 7);
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

#[test]
fn captures_compressed_by_gzip_and_zstd_are_read() {
    let scenario = scenario("S001");
    let file = pcap(Order::Little, Unit::Micro, 1, &all_steps(&scenario));
    let wanted = reported(replay(file.clone(), Rules::RFC));
    assert_eq!(reported(replay(gzip(&file), Rules::RFC)), wanted);
    let zstd = zstd::encode_all(&file[..], 3).expect("into memory");
    assert_eq!(reported(replay(zstd, Rules::RFC)), wanted);
    // Several members, as log rotation and parallel compressors make them.
    let members = [gzip(&file[..100]), gzip(&file[100..])].concat();
    assert_eq!(reported(replay(members, Rules::RFC)), wanted);
}
