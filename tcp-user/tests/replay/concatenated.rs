//! Files joined by `cat`: a capture begins where a record is expected.

use super::*;

/// The frames of a connection, split before its close.
fn halves() -> [Vec<Captured>; 2] {
    let mut frames = connection_of(41_000, SECOND_NS);
    let second = frames.split_off(3);
    [frames, second]
}

/// The frames with the header of another link type, which is another capture point. A direction may move to
/// it after a pause.
fn relinked(frames: &[Captured], link: u32, pause_ns: u64) -> Vec<Captured> {
    frames.iter().map(|c| Captured { at_ns: c.at_ns + pause_ns, frame: relink(&c.frame, link) }).collect()
}

fn in_pcapng(order: Order, frames: &[Captured]) -> Vec<u8> {
    pcapng(order, &[Interface::ETHERNET], &frames.iter().cloned().map(|frame| (0, frame)).collect::<Vec<_>>())
}

fn assert_joined(file: Vec<u8>, seam: usize, what: &str) {
    let replayed = replay(file, Rules::AGENT);
    assert_eq!(replayed.statistics.tracked, 6, "{what}");
    let [connection] = &replayed.connections[..] else { panic!("{what}: {:?}", replayed.connections) };
    assert_eq!(connection.close_word(), "fin_3seg", "{what}");
    assert_eq!(connection.client.state, State::TimeWait, "{what}");
    let [warning] = &replayed.warnings[..] else { panic!("{what}: {:?}", replayed.warnings) };
    assert!(warning.starts_with(&format!("at byte {seam}")), "{what}: {warning}");
    assert!(warning.contains("a second capture begins here"), "{what}: {warning}");
}

#[test]
fn a_connection_goes_on_in_the_next_file() {
    let [first, second] = halves();
    let firsts = [
        pcap(Order::Little, Unit::Micro, 1, &first),
        pcap(Order::Big, Unit::Nano, 1, &first),
        pcap(Order::Little, Unit::Nano, 12, &relinked(&first, 12, 0)),
        in_pcapng(Order::Little, &first),
        in_pcapng(Order::Big, &first),
    ];
    let seconds = [
        (pcap(Order::Little, Unit::Micro, 1, &second), false),
        (pcap(Order::Big, Unit::Micro, 1, &second), false),
        (pcap(Order::Big, Unit::Nano, 1, &second), false),
        (pcap(Order::Little, Unit::Nano, 276, &relinked(&second, 276, 2 * SECOND_NS)), false),
        (in_pcapng(Order::Little, &second), true),
        (in_pcapng(Order::Big, &second), true),
    ];
    for (number, first) in firsts.iter().enumerate() {
        for (other, (second, is_pcapng)) in seconds.iter().enumerate() {
            if number > 2 && *is_pcapng {
                // Another section of one pcapng file.
                continue;
            }
            let file = [&first[..], second].concat();
            assert_joined(file.clone(), first.len(), &format!("{number}, then {other}"));
            let members = [super::formats::gzip(first), super::formats::gzip(second)].concat();
            assert_joined(members, first.len(), &format!("gzip {number}, then {other}"));
            let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("into memory");
            let members = [zstd(first), zstd(second)].concat();
            assert_joined(members, first.len(), &format!("zstd {number}, then {other}"));
        }
    }
}

#[test]
fn every_seam_is_named() {
    let file = |port| pcap(Order::Little, Unit::Micro, 1, &connection_of(port, SECOND_NS));
    let one = file(41_000);
    let replayed = replay([one.clone(), file(41_001), file(41_002)].concat(), Rules::AGENT);
    assert_eq!(replayed.connections.len(), 3);
    let seams: Vec<_> = replayed.warnings.iter().filter(|text| text.contains("begins here")).collect();
    assert_eq!(seams.len(), 2);
    assert!(seams[1].starts_with(&format!("at byte {}:", 2 * one.len())), "{}", seams[1]);
    let compressed = super::formats::gzip(&[&one[..], &one].concat());
    let warnings = replay(compressed, Rules::AGENT).warnings;
    let seam = format!("at byte {} of the decompressed stream: a second capture begins here", one.len());
    assert!(warnings.iter().any(|text| text.starts_with(&seam)), "{warnings:?}");
}

#[test]
fn earlier_times_after_the_seam_do_not_move_the_clock_back() {
    let later = pcap(Order::Little, Unit::Micro, 1, &connection_of(41_000, 500 * SECOND_NS));
    let earlier = pcap(Order::Little, Unit::Micro, 1, &connection_of(42_000, SECOND_NS));
    let replayed = replay([later, earlier].concat(), Rules::AGENT);
    assert_eq!(replayed.ended_at.as_millisecond(), 500_050);
    assert_eq!(replayed.statistics.out_of_order, 6);
    let states: Vec<_> = replayed.connections.iter().map(|c| (c.client.port, c.client.state)).collect();
    assert_eq!(states, [(41_000, State::TimeWait), (42_000, State::TimeWait)]);
}

#[test]
fn a_link_type_that_is_not_read_does_not_end_the_replay() {
    let [first, second] = halves();
    let foreign = pcap(Order::Little, Unit::Micro, 189, &[arp(SECOND_NS)]);
    let ethernet = |frames: &[Captured]| pcap(Order::Little, Unit::Micro, 1, frames);
    let replayed =
        replay([foreign.clone(), ethernet(&first), foreign, ethernet(&second)].concat(), Rules::AGENT);
    assert_eq!((replayed.statistics.tracked, replayed.statistics.foreign_link), (6, 2));
    assert_eq!(replayed.connections[0].close_word(), "fin_3seg");
}

#[test]
fn a_header_cut_at_the_seam_is_named() {
    let whole = pcap(Order::Little, Unit::Micro, 1, &connection_of(41_000, SECOND_NS));
    for len in [9, 16, 23] {
        let file = [&whole[..], &whole[..len]].concat();
        let replayed = replay_broken(file, &Options::default());
        assert_eq!(replayed.statistics.tracked, 6, "{len}");
        let fault = replayed.report.fault.expect("a fault").fault;
        assert!(matches!(fault, Fault::Truncated(offset) if offset.bytes == whole.len() as u64), "{fault}");
    }
}
