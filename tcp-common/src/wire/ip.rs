//! IPv4 (RFC 791) with options and fragments, IPv6 (RFC 8200) with extension headers.

use core::hint::black_box;

use super::ethernet::EthernetHeader;
use super::{Bytes, Datagram, Fragment, Header as _};
use crate::ignored::Ignored;
use crate::key::v4_mapped;

/// Reads the IP headers of a packet with TCP.
///
/// # Errors
///
/// [`Ignored::Fragment`] for a later fragment and [`Ignored::Icmp`] for an ICMP message, whose headers were read as well.
/// The result is one byte, since a function of a kernel program returns no more than a register.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(
    bytes: &B,
    frame: &EthernetHeader,
    out: &mut Datagram,
) -> Result<(), Ignored> {
    let version = bytes.header::<1>(frame.ip_offset).ok_or(Ignored::Truncated)?.u8(0) >> 4;
    if frame.version != 0 && frame.version != version {
        return Err(Ignored::Malformed);
    }
    out.ip_offset = frame.ip_offset as u32;
    match version {
        4 => parse_v4(bytes, frame.ip_offset, out),
        6 => parse_v6(bytes, frame.ip_offset, out),
        _ => Err(if frame.version == 0 { Ignored::NotTcp } else { Ignored::Malformed }),
    }
}

#[inline(always)]
fn parse_v4<B: Bytes + ?Sized>(bytes: &B, offset: usize, out: &mut Datagram) -> Result<(), Ignored> {
    let h = bytes.header::<20>(offset).ok_or(Ignored::Truncated)?;
    let mut header_len = ((h.u8(0) & 0x0f) as usize) << 2;
    if header_len < 20 {
        return Err(Ignored::Malformed);
    }
    let field = h.be16(6) as u32;
    out.fragment = Fragment::new(h.be16(4) as u32, (field & 0x1fff) << 3, field & 0x2000 != 0);
    out.family = 4;
    out.source = v4_mapped(h.be32(12));
    out.destination = v4_mapped(h.be32(16));
    out.ip_options = (header_len - 20) as u16;
    let total_len = match h.be16(2) as usize {
        // BIG TCP: the length does not fit into the field, that of the packet is used.
        0 => bytes.wire_len().saturating_sub(offset),
        total_len => total_len,
    };
    let protocol = h.u8(9);
    if field & 0x1fff != 0 {
        // It has no further header, and no ports of UDP.
        out.tcp_offset = (offset + header_len) as u32;
        out.tcp_len = total_len.saturating_sub(header_len) as u32;
        return Err(match protocol {
            TCP | AUTHENTICATION if total_len >= header_len => Ignored::Fragment,
            TCP | AUTHENTICATION => Ignored::Malformed,
            UDP => Ignored::NotTcp,
            other => encapsulation(bytes, 4, other, offset),
        });
    }
    match protocol {
        TCP => {}
        AUTHENTICATION => {
            let authentication = bytes.header::<2>(offset + header_len).ok_or(Ignored::Truncated)?;
            if authentication.u8(0) != TCP {
                return Err(Ignored::NotTcp);
            }
            let len = authentication_len(authentication.u8(1));
            out.fragment.offset = len as u32;
            header_len += len;
        }
        ICMP if field & 0x2000 == 0 => {
            out.tcp_offset = (offset + header_len) as u32;
            return Err(Ignored::Icmp);
        }
        other => return Err(encapsulation(bytes, 4, other, offset + header_len)),
    }
    if total_len < header_len {
        return Err(Ignored::Malformed);
    }
    out.tcp_offset = (offset + header_len) as u32;
    out.tcp_len = (total_len - header_len) as u32;
    Ok(())
}

/// The reason for which a packet without TCP is ignored: what it carries instead.
#[inline(always)]
fn encapsulation<B: Bytes + ?Sized>(bytes: &B, version: u8, protocol: u8, at: usize) -> Ignored {
    match (protocol, version) {
        (GRE, _) => Ignored::Gre,
        (IPV4, 4) => Ignored::Ipip,
        (IPV4, _) => Ignored::FourInSix,
        (IPV6, 4) => Ignored::SixInFour,
        (IPV6, _) => Ignored::SixInSix,
        (MPLS, _) => Ignored::Mpls,
        (UDP, _) => match bytes.header::<4>(at).map(|udp| udp.be16(2)) {
            Some(4789 | 8472) => Ignored::Vxlan,
            Some(6081) => Ignored::Geneve,
            Some(2152) => Ignored::GtpU,
            _ => Ignored::NotTcp,
        },
        _ => Ignored::NotTcp,
    }
}

#[inline(never)]
fn parse_v6<B: Bytes + ?Sized>(bytes: &B, offset: usize, out: &mut Datagram) -> Result<(), Ignored> {
    let h = bytes.header::<40>(offset).ok_or(Ignored::Truncated)?;
    out.family = 6;
    out.fragment = Fragment::WHOLE;
    out.ip_options = 0;
    out.source = [h.be64(8), h.be64(16)];
    out.destination = [h.be64(24), h.be64(32)];
    let mut at = offset + 40;
    let payload_end = match h.be16(4) as usize {
        // BIG TCP, or a jumbogram (RFC 2675).
        0 => bytes.wire_len(),
        payload_len => at + payload_len,
    };
    let mut next = h.u8(6);
    // Where the part of the packet begins that was divided into fragments.
    let mut fragmented = at;
    for _ in 0..MAX_EXTENSIONS {
        // Through memory: the verifier then has one state a header, not one for each path to it.
        (at, next, fragmented) = (black_box(at), black_box(next), black_box(fragmented));
        if next == TCP {
            break;
        }
        if next == ROUTING {
            route(bytes, at, out)?;
        }
        let units = match next {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => {
                let extension = bytes.header::<2>(at).ok_or(Ignored::Truncated)?;
                next = extension.u8(0);
                (extension.u8(1) as usize + 1) << 3
            }
            AUTHENTICATION => {
                let extension = bytes.header::<2>(at).ok_or(Ignored::Truncated)?;
                next = extension.u8(0);
                authentication_len(extension.u8(1))
            }
            FRAGMENT => {
                let header = bytes.header::<8>(at).ok_or(Ignored::Truncated)?;
                let field = header.be16(2) as u32;
                next = header.u8(0);
                // A datagram of one fragment is whole (RFC 6946).
                if field & 0xfff9 != 0 {
                    out.fragment = Fragment::new(header.be32(4), field & 0xfff8, field & 1 != 0);
                    fragmented = at + 8;
                }
                if out.fragment.is_later() {
                    // The header that follows is in the first fragment (RFC 8200 4.5), perhaps after others.
                    let is_tcp = next == TCP || is_extension(next);
                    out.tcp_offset = fragmented as u32;
                    out.tcp_len = payload_end.saturating_sub(fragmented) as u32;
                    return Err(if is_tcp { Ignored::Fragment } else { Ignored::NotTcp });
                }
                8
            }
            ICMPV6 if fragmented == offset + 40 => {
                out.tcp_offset = at as u32;
                return Err(Ignored::Icmp);
            }
            other => return Err(encapsulation(bytes, 6, other, at)),
        };
        at += units;
        if at > MAX_OFFSET {
            return Err(Ignored::Unsupported);
        }
    }
    if next != TCP {
        return Err(if is_extension(next) { Ignored::Unsupported } else { Ignored::NotTcp });
    }
    if payload_end < at {
        return Err(Ignored::Malformed);
    }
    out.tcp_offset = at as u32;
    out.tcp_len = (payload_end - at) as u32;
    out.fragment.offset = (at - fragmented) as u32;
    Ok(())
}

/// Takes the final destination from a routing header on the way there: the checksum of TCP is computed with
/// it (RFC 8200 8.1), and the other end's packets come from it. It is the first segment of a segment routing
/// header (RFC 8754 2), and the only one of that of Mobile IPv6 (RFC 6275 6.4). Hosts drop the type 0 (RFC
/// 5095).
#[inline(always)]
fn route<B: Bytes + ?Sized>(bytes: &B, at: usize, out: &mut Datagram) -> Result<(), Ignored> {
    let routing = bytes.header::<4>(at).ok_or(Ignored::Truncated)?;
    let (len, kind, segments_left) = (routing.u8(1), routing.u8(2), routing.u8(3));
    if segments_left == 0 || !matches!(kind, SEGMENT_ROUTING | HOME_ADDRESS) {
        return Ok(());
    }
    if len < 2 {
        return Err(Ignored::Malformed);
    }
    let segment = bytes.header::<24>(at).ok_or(Ignored::Truncated)?;
    out.destination = [segment.be64(8), segment.be64(16)];
    Ok(())
}

/// Length of an authentication header, in bytes; its field counts 32-bit words, minus two (RFC 4302 2.2).
#[inline(always)]
const fn authentication_len(field: u8) -> usize {
    (field as usize + 2) << 2
}

/// Whether this is a header that [`parse_v6`] skips.
#[inline(always)]
const fn is_extension(header: u8) -> bool {
    matches!(header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY)
}

pub(super) const TCP: u8 = 6;
const ICMP: u8 = 1;
const IPV4: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
/// RFC 4023.
const MPLS: u8 = 137;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
/// Types of a routing header.
const HOME_ADDRESS: u8 = 2;
const SEGMENT_ROUTING: u8 = 4;
const MAX_EXTENSIONS: u32 = 6;
/// Maximum offset of the TCP header, in bytes. No host accepts more.
const MAX_OFFSET: usize = 1024;
