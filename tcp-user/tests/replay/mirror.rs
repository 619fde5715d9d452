//! Packets that a mirror port shows twice, and retransmissions, which are others.

use super::*;

const START_NS: u64 = 100 * SECOND_NS;

/// A frame with this IP identification.
fn identified(mut captured: Captured, identification: u16) -> Captured {
    captured.frame[18..20].copy_from_slice(&identification.to_be_bytes());
    captured
}

/// The copy of a frame that a mirror shows after a router has forwarded the packet.
fn routed(captured: &Captured, after_ns: u64) -> Captured {
    let mut frame = captured.frame.clone();
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 1]);
    frame[22] -= 1;
    frame[24..26].copy_from_slice(&[0x12, 0x34]);
    Captured { at_ns: captured.at_ns + after_ns, frame }
}

/// A connection with an identification for each packet, as Linux has it.
fn connection() -> Vec<Captured> {
    let frames = connection_of(41_000, START_NS);
    frames.into_iter().zip(100..).map(|(captured, id)| identified(captured, id)).collect()
}

fn data(payload: &[u8]) -> Vec<u8> {
    let segment =
        Segment { payload_len: payload.len() as u32, ..segment_of(Flags::PSH | Flags::ACK, 1_001, 5_001) };
    // The frame may be padded: the payload stands after 54 bytes.
    let header = with_port(frames::frame(End::A, &segment), End::A, 41_000);
    [&header[..54], payload].concat()
}

fn read(frames: &[Captured]) -> Replayed {
    let mut frames = frames.to_vec();
    frames.sort_by_key(|captured| captured.at_ns);
    replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT)
}

fn segments(replayed: &Replayed) -> (u64, u64) {
    let connection = &replayed.connections[0];
    (connection.client.segments, replayed.statistics.ignored_by[Ignored::Duplicate as usize])
}

/// The connection without the rest of its TIME-WAIT, which ends later than the capture.
fn reported(replayed: &Replayed) -> String {
    let mut connections = replayed.connections.clone();
    connections.iter_mut().filter_map(|c| c.time_wait.as_mut()).for_each(|wait| wait.expires_in_ms = 0);
    format!("{connections:?}")
}

#[test]
fn a_packet_shown_twice_counts_once() {
    let wanted = reported(&read(&connection()));
    for after_ns in [0, 1, 300_000, 7 * MS, 99 * MS] {
        let copies: Vec<_> = connection().iter().map(|captured| routed(captured, after_ns)).collect();
        let replayed = read(&[connection(), copies].concat());
        assert_eq!(replayed.statistics.ignored().collect::<Vec<_>>(), [("duplicate", 6)], "{after_ns}");
        assert_eq!(reported(&replayed), wanted, "{after_ns}");
    }
    let thrice: Vec<_> = connection().into_iter().flat_map(|captured| vec![captured; 3]).collect();
    assert_eq!(segments(&read(&thrice)), (4, 12));
}

#[test]
fn a_copy_of_the_last_fin_does_not_restart_time_wait() {
    let mut frames = connection();
    let fin = frames[4].clone();
    // Shown again after the ACK of the client.
    frames.push(routed(&fin, 60 * MS));
    let replayed = read(&frames);
    let time_wait = replayed.connections[0].time_wait.as_ref().expect("TIME-WAIT");
    assert_eq!((time_wait.restarts, segments(&replayed)), (0, (4, 1)));
    // The retransmission has another identification.
    frames[6] = identified(frames[6].clone(), 7);
    let replayed = read(&frames);
    let time_wait = replayed.connections[0].time_wait.as_ref().expect("TIME-WAIT");
    assert_eq!((time_wait.restarts, segments(&replayed)), (1, (4, 0)));
}

#[test]
fn nothing_is_concluded_from_identifications_that_are_not_unique() {
    for identification in [0, 1] {
        let frames: Vec<_> =
            connection().into_iter().map(|captured| identified(captured, identification)).collect();
        // The FIN of the client again: it is a retransmission.
        let again = Captured { at_ns: frames[3].at_ns + 5 * MS, frame: frames[3].frame.clone() };
        let replayed = read(&[frames, vec![again]].concat());
        assert_eq!(segments(&replayed), (5, 0), "{identification}");
    }
}

#[test]
fn the_same_identification_much_later_is_that_of_another_packet() {
    let mut frames = connection();
    frames.push(routed(&frames[3].clone(), 201 * MS));
    assert_eq!(segments(&read(&frames)), (5, 0));
}

#[test]
fn other_bytes_are_another_packet() {
    let mut frames = connection();
    frames.truncate(3);
    let at =
        |index: u64, frame: Vec<u8>| identified(Captured { at_ns: START_NS + (30 + index) * MS, frame }, 9);
    frames.push(at(0, data(b"one")));
    frames.push(at(1, data(b"one")));
    assert_eq!(segments(&read(&frames)), (3, 1));
    frames[4] = at(1, data(b"two"));
    assert_eq!(segments(&read(&frames)), (4, 0));
    // The sender reuses the identification, so the next one is no copy either.
    frames.push(at(2, data(b"two")));
    assert_eq!(segments(&read(&frames)), (5, 0));
}

#[test]
fn ipv6_has_no_identification() {
    let syn = segment_of(Flags::SYN, 1_000, 0);
    let frame = |at_ns| Captured { at_ns, frame: frames::frame_v6_of(41_000, End::A, &syn) };
    assert_eq!(segments(&read(&[frame(START_NS), frame(START_NS)])), (2, 0));
}

#[test]
fn a_copy_inside_a_tunnel_is_recognised() {
    let tunnelled = |captured: &Captured| {
        let ip = &captured.frame[14..];
        let mut outer = vec![0x45, 0];
        outer.extend((20 + ip.len() as u16).to_be_bytes());
        outer.extend([0, 0, 0, 0, 64, 4, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2]);
        Captured { at_ns: captured.at_ns, frame: [&captured.frame[..14], &outer, ip].concat() }
    };
    let frames: Vec<_> = connection().iter().flat_map(|c| [c.clone(), tunnelled(c)]).collect();
    assert_eq!(segments(&read(&frames)), (4, 6));
}
