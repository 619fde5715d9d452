//! Link-local addresses, which two links may have in common.

use super::*;

const ETH1: Interface = Interface { name: "eth1", ..Interface::ETHERNET };
const BR0: Interface = Interface { name: "br0", ..Interface::ETHERNET };

/// A connection between two link-local addresses, with this number in its sequence numbers and its frames.
fn connection(number: u32) -> Vec<Vec<u8>> {
    let (ack, fin, isn) = (Flags::ACK, Flags::FIN | Flags::ACK, number * 100_000_000);
    let segments = [
        (End::A, Flags::SYN, 0, 0),
        (End::B, Flags::SYN | ack, 0, 1),
        (End::A, ack, 1, 1),
        (End::A, fin, 1, 1),
        (End::B, fin, 1, 2),
        (End::A, ack, 2, 2),
    ];
    let frame = |(sender, flags, seq, acked)| {
        let segment = frames::segment(flags, isn + seq, if flags & ack != 0 { isn + acked } else { 0 }, 0);
        let mut frame = frames::frame_v6_of(40_000, sender, &segment);
        for address in [22, 38] {
            frame[address..address + 8].copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
        }
        frame
    };
    segments.map(frame).into()
}

/// Replays frames of these interfaces, a millisecond after each other.
fn replay_at(interfaces: &[Interface], frames: impl IntoIterator<Item = (usize, Vec<u8>)>) -> Replayed {
    let captured =
        |(number, (interface, frame))| (interface, Captured { at_ns: SECOND_NS + number as u64 * MS, frame });
    let frames: Vec<_> = frames.into_iter().enumerate().map(captured).collect();
    replay(pcapng(Order::Little, interfaces, &frames), Rules::AGENT)
}

fn assert_closed(replayed: &Replayed, scopes: &[&str]) {
    let found: Vec<_> = replayed.connections.iter().map(|one| one.scope.as_deref().unwrap_or("")).collect();
    assert_eq!(found, scopes);
    for connection in &replayed.connections {
        let states = [connection.client.state, connection.server.state];
        assert_eq!(states, [State::TimeWait, State::Closed], "{connection:#?}");
        assert_eq!((connection.confidence, connection.client.segments), (Confidence::Exact, 4));
    }
}

#[test]
fn equal_addresses_on_two_links_are_two_connections() {
    let in_step =
        connection(1).into_iter().zip(connection(2)).flat_map(|(one, other)| [(0, one), (1, other)]);
    let replayed = replay_at(&[Interface::ETHERNET, ETH1], in_step);
    assert_closed(&replayed, &["eth0", "eth1"]);
    assert_eq!(replayed.statistics.tracked, 12);
}

#[test]
fn a_connection_seen_on_a_bridge_and_its_port_is_one() {
    let seen_twice = connection(1).into_iter().flat_map(|frame| [(0, frame.clone()), (1, frame)]);
    let replayed = replay_at(&[Interface::ETHERNET, BR0], seen_twice);
    assert_closed(&replayed, &["eth0"]);
    assert_eq!(replayed.statistics.ignored_by[Ignored::Duplicate as usize], 6);
}

#[test]
fn a_link_stays_the_same_for_the_next_connection() {
    let first = connection(1).into_iter().flat_map(|frame| [(0, frame.clone()), (1, frame)]);
    // Begins on the bridge, as the host's own connections do.
    let mut next = connection(2);
    for frame in &mut next {
        frame[54..56].copy_from_slice(&50_000u16.to_be_bytes());
        frame[56..58].copy_from_slice(&50_001u16.to_be_bytes());
    }
    let next = [(1, next[0].clone()), (0, next[0].clone())];
    let replayed = replay_at(&[Interface::ETHERNET, BR0], first.chain(next));
    let scopes: Vec<_> = replayed.connections.iter().map(|one| one.scope.as_deref()).collect();
    assert_eq!(scopes, [Some("eth0"), Some("eth0")]);
}

#[test]
fn without_names_of_interfaces_there_is_no_scope() {
    let captured = |(number, frame)| Captured { at_ns: SECOND_NS + number as u64 * MS, frame };
    let frames: Vec<_> = connection(1).into_iter().enumerate().map(captured).collect();
    assert_closed(&replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT), &[""]);
}
