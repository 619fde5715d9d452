//! Link types of captures: from a frame to the IP header, and from there to the one parser.

use tcp_common::Ignored;
use tcp_common::wire::{self, Captured, FirstHeader, Packet};

/// The headers before IP, by the link types of <https://www.tcpdump.org/linktypes.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// LINKTYPE_ETHERNET.
    Ethernet,
    /// LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6: none.
    Ip,
    /// LINKTYPE_NULL and LINKTYPE_LOOP: an address family in the byte order of some host.
    Loopback,
    /// LINKTYPE_LINUX_SLL, written by older versions of `tcpdump -i any`.
    LinuxCooked,
    /// LINKTYPE_LINUX_SLL2, written by `tcpdump -i any` today.
    LinuxCooked2,
    /// LINKTYPE_PPP and LINKTYPE_PPP_HDLC: PPP, with its HDLC-like framing or without (RFC 1661, RFC 1662).
    Ppp,
}

impl LinkType {
    /// The link type with this number; `None` if finwait does not read it.
    pub const fn from_number(number: u16) -> Option<LinkType> {
        Some(match number {
            0 | 108 => LinkType::Loopback,
            1 => LinkType::Ethernet,
            9 | 50 => LinkType::Ppp,
            // 12 and 14 are what BSDs call raw IP.
            12 | 14 | 101 | 228 | 229 => LinkType::Ip,
            113 => LinkType::LinuxCooked,
            276 => LinkType::LinuxCooked2,
            _ => return None,
        })
    }
}

/// A frame without the header of its link type: the input of the parser.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bare<'a> {
    /// The bytes from the Ethernet or the IP header on.
    pub(super) packet: Captured<'a>,
    pub(super) link: FirstHeader,
    /// Id of a VLAN tag in the header that was removed.
    pub(super) vlan: Option<u16>,
    /// Where in the host the frame was captured; 0 if the link layer does not say. The same packet passes
    /// several points of one host (bridge and port, in and out), and `tcpdump -i any` captures all of them.
    pub(super) capture_point: u64,
}

impl Bare<'_> {
    /// Parses the headers.
    pub(super) fn parse(&self) -> Result<Packet, Ignored> {
        wire::parse(&self.packet, self.link, self.vlan)
    }
}

/// Removes what is before the Ethernet or IP header.
pub(super) fn strip(link: LinkType, frame: Captured<'_>) -> Result<Bare<'_>, Ignored> {
    let bytes = frame.bytes;
    match link {
        LinkType::Ethernet => {
            Ok(Bare { packet: frame, link: FirstHeader::Ethernet, vlan: None, capture_point: 0 })
        }
        LinkType::Ip => Ok(ip(frame, 0)),
        LinkType::Loopback => {
            let family = *bytes.first_chunk::<4>().ok_or(Ignored::Truncated)?;
            let known = is_ip_family(u32::from_le_bytes(family)) || is_ip_family(u32::from_be_bytes(family));
            if known { Ok(ip(frame, 4)) } else { Err(Ignored::NotTcp) }
        }
        LinkType::LinuxCooked => {
            let header = bytes.first_chunk::<16>().ok_or(Ignored::Truncated)?;
            cooked(frame, [header[14], header[15]], 16, 1 + u64::from(header[1]))
        }
        LinkType::LinuxCooked2 => {
            let header = bytes.first_chunk::<20>().ok_or(Ignored::Truncated)?;
            let interface = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let capture_point = u64::from(interface) << 8 | (1 + u64::from(header[10]));
            cooked(frame, [header[0], header[1]], 20, capture_point)
        }
        LinkType::Ppp => {
            // Address and control may be omitted, and so may the first byte of the protocol, which is even,
            // if it is 0.
            let offset = if bytes.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
            match bytes.get(offset..).unwrap_or_default() {
                [PPP_IPV4 | PPP_IPV6, ..] => Ok(ip(frame, offset + 1)),
                [0, PPP_IPV4 | PPP_IPV6, ..] => Ok(ip(frame, offset + 2)),
                [] | [0] => Err(Ignored::Truncated),
                _ => Err(Ignored::NotTcp),
            }
        }
    }
}

/// Reads what follows a cooked header: VLAN tags, if any, and the IP header.
fn cooked(
    frame: Captured<'_>,
    protocol: [u8; 2],
    offset: usize,
    capture_point: u64,
) -> Result<Bare<'_>, Ignored> {
    let (mut protocol, mut offset, mut vlan) = (u16::from_be_bytes(protocol), offset, None);
    let mut tags = 0;
    while matches!(protocol, 0x8100 | 0x88a8 | 0x9100) {
        if tags == MAX_TAGS {
            return Err(Ignored::Unsupported);
        }
        let tag =
            frame.bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Ignored::Truncated)?;
        vlan = vlan.or(Some(u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff));
        protocol = u16::from_be_bytes([tag[2], tag[3]]);
        offset += 4;
        tags += 1;
    }
    if !matches!(protocol, 0x0800 | 0x86dd) {
        return Err(Ignored::NotTcp);
    }
    Ok(Bare { vlan, capture_point, ..ip(frame, offset) })
}

fn ip(frame: Captured<'_>, offset: usize) -> Bare<'_> {
    let packet = Captured {
        bytes: frame.bytes.get(offset..).unwrap_or_default(),
        wire_len: frame.wire_len.saturating_sub(offset),
    };
    Bare { packet, link: FirstHeader::Ip, vlan: None, capture_point: 0 }
}

/// Whether this is AF_INET, or AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD or macOS.
const fn is_ip_family(family: u32) -> bool {
    matches!(family, 2 | 10 | 24 | 28 | 30)
}

/// Maximum number of VLAN tags, as for Ethernet.
const MAX_TAGS: u32 = 2;
/// Second bytes of the PPP protocol numbers of IPv4 (RFC 1332) and IPv6 (RFC 5072).
const PPP_IPV4: u8 = 0x21;
const PPP_IPV6: u8 = 0x57;
