//! The TCP checksum (RFC 9293 3.1) of a captured segment.

use tcp_common::End;
use tcp_common::wire::Packet;

/// The verdict on a segment's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Correct.
    Right,
    /// Wrong.
    Wrong,
    /// The sum of the pseudo header alone (CHECKSUM_PARTIAL of Linux). The segment was captured at its
    /// sender before the NIC filled the sum in, or after the receiver's stack merged several segments.
    Offloaded,
    /// Not computable: the segment was not captured whole, or its headers hide the address that was summed.
    Unknown,
}

/// Verifies the TCP checksum of a packet; `bytes` are those it was parsed from. Returns the sum of the
/// segment's captured bytes as well.
pub(super) fn verify(bytes: &[u8], packet: &Packet) -> (Checksum, u64) {
    let (start, len) = (packet.datagram.tcp_offset as usize, packet.datagram.tcp_len as usize);
    let captured = bytes.get(start..).unwrap_or_default();
    let captured = captured.get(..len).unwrap_or(captured);
    let sum = sum(captured);
    let verdict = if captured.len() < len { Checksum::Unknown } else { judge(bytes, captured, packet, sum) };
    (verdict, sum)
}

/// The verdict on a whole segment with this sum.
fn judge(bytes: &[u8], segment: &[u8], packet: &Packet, sum: u64) -> Checksum {
    let pseudo = pseudo_header(packet);
    if fold(pseudo + sum) == 0xffff {
        return Checksum::Right;
    }
    let field = u16::from_ne_bytes([segment[16], segment[17]]);
    if field == fold(pseudo) {
        return Checksum::Offloaded;
    }
    let before = bytes.get(..packet.datagram.tcp_offset as usize).unwrap_or_default();
    if packet.key.family == 6 && !is_plain_ipv6(before) {
        return Checksum::Unknown;
    }
    Checksum::Wrong
}

/// The sum of addresses, protocol and length (RFC 9293 3.1, RFC 8200 8.1). An IPv4 address is mapped into
/// IPv6 by a prefix that adds one 0xffff, which is zero in ones' complement.
fn pseudo_header(packet: &Packet) -> u64 {
    let len = u64::from(packet.datagram.tcp_len);
    // In the byte order of the segment, as in `sum`.
    let folded = u16::from_ne_bytes(fold(len + u64::from(PROTOCOL)).to_be_bytes());
    let address = |end| sum(&packet.key.endpoint(end).octets());
    address(End::A) + address(End::B) + u64::from(folded)
}

/// Whether the IPv6 header stands right before the segment. Behind a routing header the address that was
/// summed is not the one in the IPv6 header.
fn is_plain_ipv6(before: &[u8]) -> bool {
    before.last_chunk::<40>().is_some_and(|header| header[0] >> 4 == 6 && header[6] == PROTOCOL)
}

/// Sum of 16-bit words in the order of the bytes: the checksum does not depend on byte order (RFC 1071 2
/// (B)), and 32-bit words sum to the same (RFC 1071 2 (C)).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>()
        + u64::from(u32::from_ne_bytes(last))
}

/// Folds a sum to 16 bits in ones' complement.
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Protocol number of TCP.
const PROTOCOL: u8 = 6;
