//! Headers between IP and TCP: authentication, segment routing.

use super::*;

fn read(frames: &[Captured]) -> Replayed {
    replay(pcap(Order::Little, Unit::Nano, 1, frames), Rules::AGENT)
}

/// Puts a header before TCP and corrects protocol number and length. `ip_len` is the length of the IP header.
fn insert(frame: &mut Vec<u8>, ip_len: usize, protocol: u8, header: &[u8]) {
    let (protocol_at, length_at) = if ip_len == 40 { (20, 18) } else { (23, 16) };
    let len = u16::from_be_bytes([frame[length_at], frame[length_at + 1]]) + header.len() as u16;
    frame[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes());
    frame[protocol_at] = protocol;
    frame.splice(14 + ip_len..14 + ip_len, header.iter().copied());
}

/// The connection of [`connection_of`] over IPv6.
fn connection_v6() -> Vec<Captured> {
    let segments = [
        (End::A, segment_of(Flags::SYN, 1_000, 0)),
        (End::B, segment_of(Flags::SYN | Flags::ACK, 5_000, 1_001)),
        (End::A, segment_of(Flags::FIN | Flags::ACK, 1_001, 5_001)),
        (End::B, segment_of(Flags::FIN | Flags::ACK, 5_001, 1_002)),
        (End::A, segment_of(Flags::ACK, 1_002, 5_002)),
    ];
    let captured = |(index, (sender, segment)): (usize, (End, Segment))| Captured {
        at_ns: SECOND_NS + index as u64 * 10 * MS,
        frame: frames::frame_v6_of(41_000, sender, &segment),
    };
    segments.into_iter().enumerate().map(captured).collect()
}

#[test]
fn a_connection_with_authentication_headers_is_followed() {
    let mut header = [0; 24];
    header[..2].copy_from_slice(&[6, 4]);
    for (frames, ip_len, wanted) in [(connection_of(41_000, SECOND_NS), 20, 6), (connection_v6(), 40, 5)] {
        let mut protected = frames.clone();
        protected.iter_mut().for_each(|captured| insert(&mut captured.frame, ip_len, 51, &header));
        let replayed = read(&protected);
        assert_eq!(replayed.statistics.tracked, wanted, "{}", replayed.statistics);
        assert_eq!(replayed.connections, read(&frames).connections);
    }
}

/// The client sends by way of a segment; the server answers without one.
#[test]
fn segment_routing_in_one_direction_makes_no_second_connection() {
    let frames = connection_v6();
    let mut routed = frames.clone();
    for captured in routed.iter_mut().filter(|captured| captured.frame[37] == 1) {
        let server: [u8; 16] = captured.frame[38..54].try_into().expect("an address");
        let mut segment = server;
        segment[7] = 0x99;
        captured.frame[38..54].copy_from_slice(&segment);
        let header = [&[6, 4, 4, 1, 1, 0, 0, 0][..], &server, &segment].concat();
        insert(&mut captured.frame, 40, 43, &header);
    }
    assert_ne!(routed[0].frame, frames[0].frame);
    let replayed = read(&routed);
    assert_eq!(replayed.connections, read(&frames).connections);
    assert_eq!(replayed.connections[0].close_word(), "fin_3seg");
}
