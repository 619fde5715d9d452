//! Frames of very many connections.

use tcp_common::{End, Flags};

/// One connection of many, told apart by the address and port of its end A.
#[derive(Clone, Copy)]
pub(crate) struct Conversation {
    /// IPv6, else IPv4.
    pub(crate) ipv6: bool,
    /// Which.
    pub(crate) number: u32,
}

/// Sequence numbers and payload of a segment from A; those from B are given the same way.
pub(crate) type Numbers = (u32, u32, u16);

impl Conversation {
    /// Handshake, and data one way acknowledged: after it both ends are proved to be ESTABLISHED.
    pub(crate) fn opening(self) -> [Vec<u8>; 5] {
        OPENING.map(|(sender, flags, numbers)| self.frame(sender, flags, numbers))
    }

    /// The ACK that A may repeat for ever after that.
    pub(crate) fn ack(self) -> Vec<u8> {
        let (sender, flags, numbers) = ACK;
        self.frame(sender, flags, numbers)
    }

    /// Headers of one segment; the payload is in the length only, no program reads it.
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
            // The identification balances the address: the checksum is the same for each of the first 8 million.
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

/// Who sends it, its flags and numbers.
pub(crate) type Segment = (End, u8, Numbers);

/// [`Conversation::opening`]; the first three are the handshake.
pub(crate) const OPENING: [Segment; 5] = [
    (End::A, Flags::SYN, (1000, 0, 0)),
    (End::B, Flags::SYN | Flags::ACK, (5000, 1001, 0)),
    (End::A, Flags::ACK, (1001, 5001, 0)),
    (End::A, Flags::ACK, (1001, 5001, 100)),
    (End::B, Flags::ACK, (5001, 1101, 0)),
];
/// [`Conversation::ack`]
pub(crate) const ACK: Segment = (End::A, Flags::ACK, (1101, 5001, 0));

/// So many bits of a connection's number are in its port, the others in its address.
pub(crate) const PORT_BITS: i32 = 15;
/// Of the connection of number 0.
pub(crate) const FIRST_PORT: u16 = 1024;

/// RFC 1071, of an IPv4 header whose own field is zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
