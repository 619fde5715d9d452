//! Frames of many connections.

use tcp_common::{End, Flags};

/// One of many connections, which differ in the address and port of end A.
#[derive(Clone, Copy)]
pub(crate) struct Conversation {
    /// Whether the connection uses IPv6, otherwise IPv4.
    pub(crate) ipv6: bool,
    /// Number of the connection.
    pub(crate) number: u32,
}

/// Sequence number, acknowledgment number and payload length of a segment.
pub(crate) type Numbers = (u32, u32, u16);

impl Conversation {
    /// The handshake and acknowledged data in one direction: afterwards both ends are confirmed as
    /// ESTABLISHED.
    pub(crate) fn opening(self) -> [Vec<u8>; 5] {
        OPENING.map(|(sender, flags, numbers)| self.frame(sender, flags, numbers))
    }

    /// An ACK that A may repeat any number of times afterwards.
    pub(crate) fn ack(self) -> Vec<u8> {
        let (sender, flags, numbers) = ACK;
        self.frame(sender, flags, numbers)
    }

    /// The headers of one segment. The payload is in the length field only, since no program reads it.
    pub(crate) fn frame(self, sender: End, flags: u8, (seq, ack, payload): Numbers) -> Vec<u8> {
        let port_a = FIRST_PORT + (self.number & ((1 << PORT_BITS) - 1)) as u16;
        let (from, to) = if sender == End::A { (0, 1) } else { (1, 0) };
        let mut frame = vec![0; 12];
        if self.ipv6 {
            let mut addresses = [[0u8; 16]; 2];
            addresses[0][..2].copy_from_slice(&[0xfd, 0]);
            addresses[1] = addresses[0];
            addresses[0][8..12].copy_from_slice(&(self.number >> PORT_BITS).to_be_bytes());
            (addresses[0][15], addresses[1][15]) = (1, 2);
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((20 + payload).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend(addresses[from].iter().chain(&addresses[to]));
        } else {
            let [.., net, high] = (self.number >> PORT_BITS).to_be_bytes();
            let addresses = [[10, 9 + net, high, 1], [10, 9, 0, 2]];
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((40 + payload).to_be_bytes());
            // The identification field balances the address, so that the first 8 million connections have one
            // checksum.
            frame.extend([!high, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(addresses[from].iter().chain(&addresses[to]));
            let sum = checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let ports = [port_a, 80];
        frame.extend(ports[from].to_be_bytes());
        frame.extend(ports[to].to_be_bytes());
        frame.extend(seq.to_be_bytes());
        frame.extend(ack.to_be_bytes());
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// The sender of a segment, its flags and its numbers.
pub(crate) type Segment = (End, u8, Numbers);

/// The segments of [`Conversation::opening`]. The first three are the handshake.
pub(crate) const OPENING: [Segment; 5] = [
    (End::A, Flags::SYN, (1000, 0, 0)),
    (End::B, Flags::SYN | Flags::ACK, (5000, 1001, 0)),
    (End::A, Flags::ACK, (1001, 5001, 0)),
    (End::A, Flags::ACK, (1001, 5001, 100)),
    (End::B, Flags::ACK, (5001, 1101, 0)),
];
/// The segment of [`Conversation::ack`].
pub(crate) const ACK: Segment = (End::A, Flags::ACK, (1101, 5001, 0));

/// Bits of a connection's number that go into its port. The others go into its address.
pub(crate) const PORT_BITS: i32 = 15;
/// Address and port of connection 0.
pub(crate) const FIRST_PORT: u16 = 1024;

/// Checksum (RFC 1071) of an IPv4 header whose own field is zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
