//! Captures with a small snapshot length, which cuts the options of the TCP header.

use super::*;

/// The frames of a connection whose SYNs have the options of Linux and whose other segments have timestamps,
/// as in `tcpdump -s 68`.
fn frames(tagged: bool) -> Vec<Captured> {
    const A: u8 = Flags::ACK;
    let data = |payload_len, segment: Segment| Segment { payload_len, ..segment };
    let segments = [
        (End::A, segment_of(Flags::SYN, 1_000, 0)),
        (End::B, segment_of(Flags::SYN | A, 5_000, 1_001)),
        (End::A, segment_of(A, 1_001, 5_001)),
        (End::A, data(100, segment_of(Flags::PSH | A, 1_001, 5_001))),
        (End::B, segment_of(A, 5_001, 1_101)),
        // More in flight than the window field can say: its scale was cut off.
        (End::B, data(60_000, segment_of(A, 5_001, 1_101))),
        (End::B, data(60_000, segment_of(A, 65_001, 1_101))),
        (End::B, data(300, segment_of(Flags::PSH | A, 125_001, 1_101))),
        (End::A, segment_of(A, 1_101, 125_301)),
        (End::A, segment_of(Flags::FIN | A, 1_101, 125_301)),
        (End::B, segment_of(A, 125_301, 1_102)),
        (End::B, segment_of(Flags::FIN | A, 125_301, 1_102)),
        (End::A, segment_of(A, 1_102, 125_302)),
    ];
    let captured = |(index, (sender, segment)): (usize, (End, Segment))| {
        let frame = with_options(&frames::frame(sender, &segment), segment.flags);
        let frame = if tagged { [&frame[..12], &[0x81, 0, 0, 100], &frame[12..]].concat() } else { frame };
        Captured { at_ns: SECOND_NS + index as u64 * 10 * MS, frame }
    };
    segments.into_iter().enumerate().map(captured).collect()
}

/// Inserts the options that Linux sends, and corrects the lengths.
fn with_options(frame: &[u8], flags: Flags) -> Vec<u8> {
    const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
    const SYN: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let options = if flags.has(Flags::SYN) { &SYN[..] } else { &TIMESTAMPS };
    let mut frame = [&frame[..54], options].concat();
    let total = u16::from_be_bytes([frame[16], frame[17]]) + options.len() as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[46] = ((20 + options.len() as u8) / 4) << 4;
    frame
}

#[test]
fn a_segment_counts_if_its_fixed_bytes_were_captured() {
    for (tagged, snap_len) in [(false, 54), (false, 60), (false, 68), (true, 58), (true, 60), (true, 68)] {
        let (frames, what) = (frames(tagged), format!("tagged {tagged}, {snap_len} bytes"));
        let file = cut_pcap(Order::Little, 1, snap_len, &frames);
        let replayed = replay(file, Rules::RFC);
        assert_eq!(replayed.statistics.tracked, frames.len() as u64, "{what}");
        let [connection] = &replayed.connections[..] else { panic!("{what}: {:?}", replayed.connections) };
        assert_eq!(connection.confidence, Confidence::Exact, "{what}");
        assert_eq!(connection.close_word(), "fin_4seg", "{what}");
        assert_eq!((connection.client.bytes, connection.server.bytes), (100, 120_300), "{what}");
        assert!(connection.opened_at.is_some(), "{what}");
    }
}

#[test]
fn a_segment_without_its_fixed_bytes_is_truncated() {
    let file = cut_pcap(Order::Big, 1, 53, &frames(false));
    let replayed = replay(file, Rules::RFC);
    assert_eq!(replayed.statistics.ignored().collect::<Vec<_>>(), [("truncated", 13)]);
    // Nothing was cut: the frame ends in its header.
    let mut short = frames(false);
    short[0].frame.truncate(60);
    let replayed = replay(pcap(Order::Little, Unit::Micro, 1, &short), Rules::RFC);
    assert_eq!(replayed.statistics.ignored().collect::<Vec<_>>(), [("truncated", 1)]);
}
