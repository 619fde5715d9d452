//! Equal addresses and ports in several VLANs.

use finwait::options::KeyBy;

use super::*;

/// Connections with equal addresses and ports in step with each other, each behind one of these stacks of VLAN tags.
fn in_step(stacks: &[&[u8]]) -> Vec<u8> {
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
        for (number, ids) in stacks.iter().enumerate() {
            let isn = number as u32 * 100_000_000;
            let segment = segment_of(flags, isn + seq, if flags & ack != 0 { isn + acked } else { 0 });
            let frame = frames::frame(sender, &segment);
            let tags: Vec<u8> = ids.iter().flat_map(|&id| [0x81, 0, 0, id]).collect();
            let frame = [&frame[..12], &tags, &frame[12..]].concat();
            captured.push(Captured { at_ns: SECOND_NS + captured.len() as u64 * MS, frame });
        }
    }
    pcap(Order::Little, Unit::Nano, 1, &captured)
}

#[test]
fn with_vlans_in_the_key_each_is_a_connection() {
    let inner: [&[u8]; 4] = [&[10, 20, 30], &[10, 20, 31], &[10, 20, 30, 40], &[10, 20]];
    for stacks in [&[&[][..], &[10], &[20]][..], &inner] {
        let options = Options { key: KeyBy::Vlan, ..options(Rules::AGENT) };
        let report = replay_broken(in_step(stacks), &options);
        assert_eq!(report.statistics.tracked, 6 * stacks.len() as u64);
        assert_eq!(report.connections.len(), stacks.len());
        for connection in &report.connections {
            let states = [connection.client.state, connection.server.state];
            assert_eq!(states, [State::TimeWait, State::Closed], "{connection:#?}");
            assert_eq!(connection.confidence, Confidence::Exact);
        }
    }
}

#[test]
fn without_them_one_is_followed_and_the_others_are_counted() {
    let report = replay_broken(in_step(&[&[], &[10], &[20]]), &options(Rules::AGENT));
    assert_eq!(report.statistics.ignored_by[Ignored::OtherNetwork as usize], 12, "{}", report.statistics);
    let [connection] = &report.connections[..] else { panic!("{:#?}", report.connections) };
    assert_eq!([connection.client.state, connection.server.state], [State::TimeWait, State::Closed]);
    assert_eq!((connection.client.segments, connection.server.segments), (4, 2));
}
