//! Frames for `BPF_PROG_TEST_RUN`.

#![allow(unreachable_pub, dead_code, reason = "several test programs include this file")]

use tcp_common::{End, Segment};

/// Ethernet, IPv4 and TCP headers of a segment between two fixed endpoints. The payload's length is in the IP header; its
/// octets, which no program reads, are left out.
pub fn frame(sender: End, segment: &Segment) -> Vec<u8> {
    frame_of(40_000, sender, segment)
}

/// The same with another port of end A.
pub fn frame_of(port_a: u16, sender: End, segment: &Segment) -> Vec<u8> {
    let a = ([10, 9, 0, 1], port_a);
    let b = ([10, 9, 0, 2], 80u16);
    let (source, destination) = match sender {
        End::A => (a, b),
        End::B => (b, a),
    };
    let mut options = Vec::new();
    if segment.has(Segment::HAS_WSCALE) {
        options.extend([3, 3, segment.wscale, 1]);
    }
    if segment.has(Segment::HAS_TIMESTAMP) {
        options.extend([1, 1, 8, 10]);
        options.extend(segment.tsval.to_be_bytes());
        options.extend(segment.tsecr.to_be_bytes());
    }
    let total = 40 + options.len() + segment.payload_len as usize;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(u16::try_from(total).expect("fits into IPv4").to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source.0);
    frame.extend(destination.0);
    frame.extend(source.1.to_be_bytes());
    frame.extend(destination.1.to_be_bytes());
    frame.extend(segment.seq.to_be_bytes());
    frame.extend(segment.ack.to_be_bytes());
    frame.extend([((20 + options.len() as u8) / 4) << 4, segment.flags.0]);
    frame.extend(segment.window.to_be_bytes());
    frame.extend([0, 0, 0, 0]);
    frame.extend(&options);
    frame.resize(frame.len().max(60), 0);
    frame
}
