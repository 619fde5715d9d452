//! Equal addresses and ports in several VLANs.

use finwait::options::KeyBy;

use super::*;

/// Two connections with equal addresses and ports in step with each other, one in VLAN 10 and one in 20, and one without a
/// tag.
fn twins() -> Vec<u8> {
    let in_vlan = |frame: &[u8], id: u8| [&frame[..12], &[0x81, 0, 0, id], &frame[12..]].concat();
    let (ack, fin) = (Flags::ACK, Flags::FIN | Flags::ACK);
    let mut captured = Vec::new();
    for (sender, flags, seq, acked) in [
        (End::A, Flags::SYN, 0, 0),
        (End::B, Flags::SYN | ack, 0, 1),
        (End::A, ack, 1, 1),
        (End::A, fin, 1, 1),
        (End::B, fin, 1, 2),
        (End::A, ack, 2, 2),
    ] {
        for (number, id) in [None, Some(10), Some(20)].into_iter().enumerate() {
            let isn = number as u32 * 100_000_000;
            let segment = segment_of(flags, isn + seq, if flags & ack != 0 { isn + acked } else { 0 });
            let frame = frames::frame(sender, &segment);
            let frame = id.map_or(frame.clone(), |id| in_vlan(&frame, id));
            captured.push(Captured { at_ns: SECOND_NS + captured.len() as u64 * MS, frame });
        }
    }
    pcap(Order::Little, Unit::Nano, 1, &captured)
}

#[test]
fn with_vlans_in_the_key_each_is_a_connection() {
    let report = replay_broken(twins(), &Options { key: KeyBy::Vlan, ..options(Rules::AGENT) });
    assert_eq!(report.statistics.tracked, 18);
    assert_eq!(report.connections.len(), 3);
    for connection in &report.connections {
        let states = [connection.client.state, connection.server.state];
        assert_eq!(states, [State::TimeWait, State::Closed], "{connection:#?}");
        assert_eq!(connection.confidence, Confidence::Exact);
    }
}

#[test]
fn without_them_one_is_followed_and_the_others_are_counted() {
    let report = replay_broken(twins(), &options(Rules::AGENT));
    assert_eq!(report.statistics.ignored_by[Ignored::OtherNetwork as usize], 12, "{}", report.statistics);
    let [connection] = &report.connections[..] else { panic!("{:#?}", report.connections) };
    assert_eq!([connection.client.state, connection.server.state], [State::TimeWait, State::Closed]);
    assert_eq!((connection.client.segments, connection.server.segments), (4, 2));
}
