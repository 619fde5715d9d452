//! IPv4 and IPv6 as carriers of other protocols.

use tcp_common::Ignored;

use super::{Layer, Walk};
use crate::view::Tunnel;

impl Walk<'_> {
    /// Removes an IP header and the header of the tunnel in it; `None` if TCP or ICMP follows, or would follow in
    /// the first fragment: then the IP header stays.
    pub(super) fn ip(&mut self) -> Result<Option<Layer>, Ignored> {
        let version = self.byte(0)? >> 4;
        let (protocol, header_len) = match version {
            4 => self.ipv4()?,
            6 => self.ipv6()?,
            // As for live packets: without an EtherType it may be anything.
            _ => return Err(Ignored::NotTcp),
        };
        let inner_ip = |walk: &mut Self, inner| {
            let tunnel = match (version, inner) {
                (4, 4) => Tunnel::Ipip,
                (4, _) => Tunnel::SixInFour,
                (_, 4) => Tunnel::FourInSix,
                _ => Tunnel::SixInSix,
            };
            walk.enter(tunnel, header_len)?;
            if walk.byte(0)? >> 4 == inner { Ok(Some(Layer::Ip)) } else { Err(Ignored::Malformed) }
        };
        match protocol {
            // ICMP errors quote a segment.
            TCP | ICMP | ICMPV6 => Ok(None),
            // RFC 2003, RFC 2473.
            4 => inner_ip(self, 4),
            // RFC 4213, RFC 2473.
            41 => inner_ip(self, 6),
            GRE => self.gre(header_len).map(Some),
            UDP => self.udp(header_len).map(Some),
            // RFC 4023.
            137 => {
                self.at += header_len;
                self.mpls().map(Some)
            }
            _ => Err(Ignored::NotTcp),
        }
    }

    /// The protocol in an IPv4 packet, and its offset.
    fn ipv4(&self) -> Result<(u8, usize), Ignored> {
        let header: [u8; 20] = self.bytes(0)?;
        let mut header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        let mut protocol = header[9];
        if protocol == TCP {
            return Ok((TCP, 0));
        }
        // A length of 0 is that of BIG TCP.
        if header_len < 20 || (total_len != 0 && total_len < header_len) {
            return Err(Ignored::Malformed);
        }
        if fragment_offset != 0 {
            // The header that follows is in the first fragment.
            return Err(Ignored::NotTcp);
        }
        if protocol == AUTHENTICATION {
            // RFC 4302 2.2: the length in 32-bit words, minus two.
            let [next, words] = self.bytes(header_len)?;
            protocol = next;
            header_len += (usize::from(words) + 2) * 4;
        }
        Ok((protocol, header_len))
    }

    /// The protocol in an IPv6 packet, and its offset after the extension headers (RFC 8200 4).
    fn ipv6(&self) -> Result<(u8, usize), Ignored> {
        let mut protocol = self.bytes::<40>(0)?[6];
        let mut at = 40;
        for _ in 0..MAX_EXTENSIONS {
            let len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => (usize::from(self.byte(at + 1)?) + 1) * 8,
                AUTHENTICATION => (usize::from(self.byte(at + 1)?) + 2) * 4,
                FRAGMENT if self.be16(at + 2)? & 0xfff8 == 0 => 8,
                // `tcp_common::wire` knows what a later fragment of TCP is.
                FRAGMENT => return if self.byte(at)? == TCP { Ok((TCP, 0)) } else { Err(Ignored::NotTcp) },
                other => return Ok((other, at)),
            };
            protocol = self.byte(at)?;
            at += len;
        }
        Err(Ignored::Unsupported)
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
/// Maximum number of extension headers.
const MAX_EXTENSIONS: u32 = 8;
