//! ICMP errors (RFC 792, RFC 4443) that quote a TCP segment.

use super::{Bytes, Header as _, Packet, ip};
use crate::ignored::Ignored;
use crate::key::{Endpoint, v4_mapped};

/// An error that ends a connection attempt (RFC 1122 4.2.3.9; Linux: `tcp_v4_err`, `tcp_v6_err`), in five
/// bits:
///
/// | number | IPv4 | IPv6 |
/// | --- | --- | --- |
/// | 1 + code, code below 16 | destination unreachable (3) | destination unreachable (1) |
/// | 17 + code, code below 2 | time exceeded (11) | time exceeded (3) |
/// | 19 + code, code below 4 | parameter problem (12) | parameter problem (4) |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError(u8);

impl IcmpError {
    /// Number of bits that every error fits in.
    pub const BITS: u32 = 5;

    /// The error with this number; `None` for 0.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<IcmpError> {
        if number == 0 { None } else { Some(IcmpError(number)) }
    }

    /// Its number, never 0.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Reads type and code; `None` if such a message ends no connection attempt.
    #[inline(always)]
    pub const fn new(family: u16, kind: u8, code: u8) -> Option<IcmpError> {
        let number = match (family, kind) {
            // Fragmentation needed is about the size of a packet.
            (4, 3) if code == 4 => return None,
            (4, 3) | (6, 1) if code < 16 => 1 + code,
            (4, 11) | (6, 3) if code < 2 => 17 + code,
            (4, 12) | (6, 4) if code < 4 => 19 + code,
            _ => return None,
        };
        Some(IcmpError(number))
    }

    /// Type and code of the message.
    pub const fn type_and_code(self, family: u16) -> (u8, u8) {
        let is_v4 = family == 4;
        match self.0 {
            number @ ..17 => (if is_v4 { 3 } else { 1 }, number.saturating_sub(1)),
            number @ 17..19 => (if is_v4 { 11 } else { 3 }, number - 17),
            number => (if is_v4 { 12 } else { 4 }, number - 19),
        }
    }

    /// Whether a host or a firewall refused the connection: port or protocol unreachable, or prohibited. All
    /// other errors say that the network does not reach the host.
    #[inline(always)]
    pub const fn refuses(self, family: u16) -> bool {
        match family {
            4 => matches!(self.0, 3 | 4 | 10 | 11 | 14),
            _ => matches!(self.0, 2 | 5 | 6 | 7),
        }
    }
}

/// Reads an ICMP message at [`Datagram::tcp_offset`](super::Datagram::tcp_offset). Sets `key` to the flow of
/// the quoted segment, `sender` to the end that sent it, and the segment's sequence number.
///
/// # Errors
///
/// [`Ignored::NotTcp`] if it is no error about a TCP segment, [`Ignored::Icmp`] if such an error ends no
/// connection attempt.
#[inline(always)]
pub fn parse_icmp<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<IcmpError, Ignored> {
    let (family, at) = (packet.datagram.family, packet.datagram.tcp_offset as usize);
    let message = bytes.header::<2>(at).ok_or(Ignored::Truncated)?;
    let (kind, code) = (message.u8(0), message.u8(1));
    let is_error = match family {
        4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // RFC 4443 2.1.
        _ => kind < 128,
    };
    if !is_error {
        return Err(Ignored::NotTcp);
    }
    let quoted = at + 8;
    let (source, destination, tcp) = if family == 4 {
        let h = bytes.header::<20>(quoted).ok_or(Ignored::Truncated)?;
        let header_len = ((h.u8(0) & 0x0f) as usize) << 2;
        if h.u8(0) >> 4 != 4 || h.u8(9) != ip::TCP || h.be16(6) & 0x1fff != 0 {
            return Err(Ignored::NotTcp);
        }
        (v4_mapped(h.be32(12)), v4_mapped(h.be32(16)), quoted + header_len)
    } else {
        let h = bytes.header::<40>(quoted).ok_or(Ignored::Truncated)?;
        if h.u8(0) >> 4 != 6 || h.u8(6) != ip::TCP {
            return Err(Ignored::NotTcp);
        }
        ([h.be64(8), h.be64(16)], [h.be64(24), h.be64(32)], quoted + 40)
    };
    // RFC 792 requires no more of the segment than this.
    let segment = bytes.header::<8>(tcp).ok_or(Ignored::Truncated)?;
    let source = Endpoint { address: source, port: segment.be16(0) };
    let destination = Endpoint { address: destination, port: segment.be16(2) };
    packet.sender = packet.key.set(&source, &destination, family);
    packet.segment = crate::segment::Segment { seq: segment.be32(4), ..Packet::EMPTY.segment };
    IcmpError::new(family, kind, code).ok_or(Ignored::Icmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_keeps_its_type_and_code() {
        let mut numbers = std::collections::BTreeSet::new();
        for (family, kinds) in [(4, [3, 11, 12]), (6, [1, 3, 4])] {
            numbers.clear();
            for kind in 0..=u8::MAX {
                for code in 0..=u8::MAX {
                    let Some(error) = IcmpError::new(family, kind, code) else { continue };
                    assert!(kinds.contains(&kind));
                    assert_eq!(error.type_and_code(family), (kind, code));
                    assert_eq!(IcmpError::from_number(error.number()), Some(error));
                    assert!(u32::from(error.number()) < 1 << IcmpError::BITS);
                    assert!(numbers.insert(error.number()));
                }
            }
            assert_eq!(numbers.len(), if family == 4 { 21 } else { 22 });
        }
    }

    #[test]
    fn a_host_or_firewall_refuses_by_port_protocol_and_prohibited() {
        let refuses = |family, kind| {
            move |code: &u8| IcmpError::new(family, kind, *code).is_some_and(|error| error.refuses(family))
        };
        assert_eq!((0..=255).filter(refuses(4, 3)).collect::<Vec<_>>(), [2, 3, 9, 10, 13]);
        assert_eq!((0..=255).filter(refuses(6, 1)).collect::<Vec<_>>(), [1, 4, 5, 6]);
        for (family, kind) in [(4, 11), (4, 12), (6, 3), (6, 4)] {
            assert_eq!((0..=255).filter(refuses(family, kind)).count(), 0);
        }
    }
}
