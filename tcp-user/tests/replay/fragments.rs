//! Fragments: a datagram counts once all of it was seen, in any order.

use super::*;

/// A connection whose client sends 1,000 bytes with its FIN.
fn connection() -> Vec<Vec<u8>> {
    let (ack, fin) = (Flags::ACK, Flags::FIN | Flags::ACK);
    [
        (End::A, frames::segment(Flags::SYN, 100, 0, 0)),
        (End::B, frames::segment(Flags::SYN | ack, 900, 101, 0)),
        (End::A, frames::segment(ack, 101, 901, 0)),
        (End::A, frames::segment(fin, 101, 901, 1_000)),
        (End::B, frames::segment(fin, 901, 1_102, 0)),
        (End::A, frames::segment(ack, 1_102, 902, 0)),
    ]
    .map(|(sender, segment)| frames::frame(sender, &segment))
    .into()
}

/// Replays the connection with the fourth frame in parts, in this order and so long after each other.
fn replay_in_parts(order: &[usize], pause_ns: u64) -> Replayed {
    let mut sent = connection();
    let parts = frames::fragments(&sent[3], 7, &[64, 512]);
    sent.splice(3..4, order.iter().map(|&part| parts[part].clone()));
    let captured = |(number, frame)| Captured { at_ns: SECOND_NS + number as u64 * pause_ns, frame };
    let frames: Vec<_> = sent.into_iter().enumerate().map(captured).collect();
    replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT)
}

#[test]
fn a_fin_in_fragments_closes_the_connection() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let report = replay_in_parts(&order, 1_000_000);
        let statistics = report.statistics;
        assert_eq!((statistics.frames, statistics.tracked, statistics.fragments_pending), (8, 7, 0));
        assert_eq!(statistics.ignored().collect::<Vec<_>>(), [("fragment", 1)]);
        let [connection] = &report.connections[..] else { panic!("{:#?}", report.connections) };
        assert_eq!([connection.client.state, connection.server.state], [State::TimeWait, State::Closed]);
        assert_eq!((connection.client.bytes, connection.client.segments), (1_000, 4), "{order:?}");
    }
}

#[test]
fn a_datagram_that_stays_incomplete_is_no_segment() {
    for (order, pause_ns) in [
        (&[0, 1][..], 1_000_000),
        (&[2], 1_000_000),
        (&[0, 1, 2], 3 * SECOND_NS),
        // Its receiver never gets it.
        (&[0, 2], 1_000_000),
        (&[2, 0], 1_000_000),
    ] {
        let report = replay_in_parts(order, pause_ns);
        let statistics = report.statistics;
        assert_eq!(statistics.tracked, 5, "{order:?}");
        assert_eq!(statistics.ignored().collect::<Vec<_>>(), [("fragment", order.len() as u64)]);
    }
}

#[test]
fn copies_of_fragments_are_duplicates() {
    let report = replay_in_parts(&[0, 0, 1, 1, 2, 2, 0], 1_000_000);
    assert_eq!(report.statistics.ignored().collect::<Vec<_>>(), [("fragment", 2), ("duplicate", 3)]);
    assert_eq!(report.connections[0].client.segments, 4);
}

#[test]
fn a_copy_of_one_part_does_not_stand_for_another() {
    let mut sent = connection();
    let parts = frames::fragments(&sent[3], 7, &[64, 512, 960]);
    // Two between the first and the last one, as two interfaces show them; the second is lost.
    sent.splice(3..4, [0, 0, 1, 1, 3, 3].map(|part| parts[part].clone()));
    let captured = |(number, frame)| Captured { at_ns: SECOND_NS + number as u64 * 1_000_000, frame };
    let frames: Vec<_> = sent.into_iter().enumerate().map(captured).collect();
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
    assert_eq!(report.statistics.tracked, 5);
}
