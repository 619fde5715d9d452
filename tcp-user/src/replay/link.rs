//! Link types of captures: from a frame to the IP header, and from there to the one parser.

use tcp_common::Ignored;
use tcp_common::wire::{self, Captured, Link, Packet};

/// The headers before IP, as <https://www.tcpdump.org/linktypes.html> numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// LINKTYPE_ETHERNET.
    Ethernet,
    /// LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6: none.
    Ip,
    /// LINKTYPE_NULL and LINKTYPE_LOOP: an address family in the byte order of some host.
    Loopback,
    /// LINKTYPE_LINUX_SLL: what `tcpdump -i any` wrote for long.
    LinuxCooked,
    /// LINKTYPE_LINUX_SLL2: what it writes now.
    LinuxCooked2,
}

impl LinkType {
    /// The link type with this number, if it is one that can be read.
    pub const fn from_number(number: u16) -> Option<LinkType> {
        Some(match number {
            0 | 108 => LinkType::Loopback,
            1 => LinkType::Ethernet,
            // 12 and 14 are what BSDs call raw IP.
            12 | 14 | 101 | 228 | 229 => LinkType::Ip,
            113 => LinkType::LinuxCooked,
            276 => LinkType::LinuxCooked2,
            _ => return None,
        })
    }
}

/// A frame's segment, and at which place of the host it was seen: 0 where the link layer does not say. The same packet
/// passes several places of one host (bridge and port, in and out), and `tcpdump -i any` captures all of them.
pub(super) fn parse(link: LinkType, frame: Captured<'_>) -> Result<(Packet, u64), Ignored> {
    let (offset, place) = match link {
        LinkType::Ethernet => return Ok((wire::parse(&frame, Link::Ethernet, None)?, 0)),
        LinkType::Ip => return Ok((wire::parse(&frame, Link::Ip, None)?, 0)),
        LinkType::Loopback => {
            let family = *frame.bytes.first_chunk::<4>().ok_or(Ignored::Truncated)?;
            if !is_ip_family(u32::from_le_bytes(family)) && !is_ip_family(u32::from_be_bytes(family)) {
                return Err(Ignored::NotTcp);
            }
            return Ok((wire::parse(&behind(frame, 4), Link::Ip, None)?, 0));
        }
        LinkType::LinuxCooked => {
            let header = frame.bytes.first_chunk::<16>().ok_or(Ignored::Truncated)?;
            (14, 1 + u64::from(header[1]))
        }
        LinkType::LinuxCooked2 => {
            let header = frame.bytes.first_chunk::<20>().ok_or(Ignored::Truncated)?;
            let interface = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            return cooked(
                frame,
                [header[0], header[1]],
                20,
                u64::from(interface) << 8 | (1 + u64::from(header[10])),
            );
        }
    };
    cooked(frame, [frame.bytes[offset], frame.bytes[offset + 1]], offset + 2, place)
}

/// What follows a cooked header: VLAN tags, if any, and the IP header.
fn cooked(
    frame: Captured<'_>,
    protocol: [u8; 2],
    offset: usize,
    place: u64,
) -> Result<(Packet, u64), Ignored> {
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
    Ok((wire::parse(&behind(frame, offset), Link::Ip, vlan)?, place))
}

fn behind(frame: Captured<'_>, offset: usize) -> Captured<'_> {
    Captured {
        bytes: frame.bytes.get(offset..).unwrap_or_default(),
        wire_len: frame.wire_len.saturating_sub(offset),
    }
}

/// AF_INET, and AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
const fn is_ip_family(family: u32) -> bool {
    matches!(family, 2 | 10 | 24 | 28 | 30)
}

/// As many as the parser follows on Ethernet.
const MAX_TAGS: u32 = 2;
