//! Link types of captures: from a frame to the parser of `tcp_common::wire`, or first through `decap`.

use tcp_common::Ignored;
use tcp_common::wire::{self, Captured, Content, FirstHeader, Packet};

use super::decap::{self, Inner, Layer};

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
    /// LINKTYPE_C_HDLC: address, control and an EtherType (RFC 1547 4.3.1).
    CiscoHdlc,
    /// LINKTYPE_NFLOG, written by `tcpdump -i nflog` and ulogd: a netlink message around the IP packet.
    Nflog,
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
            104 => LinkType::CiscoHdlc,
            113 => LinkType::LinuxCooked,
            239 => LinkType::Nflog,
            276 => LinkType::LinuxCooked2,
            _ => return None,
        })
    }
}

/// A frame without the header of its link type: the input of the parser.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bare<'a> {
    /// The bytes after the headers that were removed.
    pub(super) packet: Captured<'a>,
    pub(super) link: FirstHeader,
    /// Id of the outermost VLAN tag in the headers that were removed.
    pub(super) vlan: Option<u16>,
    /// All VLAN tags in the headers that were removed, in the form of [`Bare::stack`].
    pub(super) removed_tags: u128,
    /// Where in the host the frame was captured; 0 if the link layer does not say. The same packet passes
    /// several points of one host (bridge and port, in and out), and `tcpdump -i any` captures all of them.
    pub(super) capture_point: u64,
}

impl Bare<'_> {
    /// A number for all VLAN tags of a packet, the same for the same tags; 0 if it has none, or only those of VLAN 0,
    /// which have a priority alone.
    pub(super) fn stack(&self, packet: &Packet) -> u128 {
        let ids = packet.vlans.into_iter().take(packet.vlan_count.into());
        if packet.tags == 0 && self.removed_tags == 0 { 0 } else { ids.fold(self.removed_tags, push_tag) }
    }

    /// Index of the interface in its host; 0 if the link layer does not say.
    pub(super) fn interface(&self) -> u64 {
        self.capture_point >> 8
    }

    /// Parses the headers.
    fn parse(&self) -> Result<(Packet, Content), Ignored> {
        let mut packet = Packet::EMPTY;
        let content = wire::parse_into(&self.packet, self.link, self.vlan, &mut packet)?;
        if content == Content::BehindOptions {
            wire::check_options(&self.packet, &packet.datagram)?;
            return Ok((packet, Content::Segment));
        }
        Ok((packet, content))
    }
}

/// Adds a tag to a stack. Different stacks of up to ten tags have different numbers.
pub(super) fn push_tag(stack: u128, id: u16) -> u128 {
    stack.wrapping_mul(0x1001).wrapping_add(u128::from(id) + 1)
}

/// Finds and parses the segment, fragment or ICMP message of a frame; with `decap`, also inside tunnels.
pub(super) fn parse(
    link: LinkType,
    frame: Captured<'_>,
    decap: bool,
) -> Result<(Inner<'_>, Packet, Content), Ignored> {
    let (bare, layer) = strip(link, frame)?;
    if matches!(layer, Layer::Ethernet | Layer::Ip) {
        match bare.parse() {
            Ok((packet, content)) => return Ok((Inner { bare, tunnel: None }, packet, content)),
            // A segment may be in a tunnel, or behind headers that the live parser does not follow.
            Err(reason) if decap && (reason.is_not_tcp() || reason == Ignored::Unsupported) => {}
            Err(reason) => return Err(reason),
        }
    }
    let inner = decap::find(bare, layer, decap)?;
    inner.bare.parse().map(|(packet, content)| (inner, packet, content))
}

/// Removes the header of the link type. Returns what follows as well.
fn strip(link: LinkType, frame: Captured<'_>) -> Result<(Bare<'_>, Layer), Ignored> {
    let bytes = frame.bytes;
    match link {
        LinkType::Ethernet => Ok((Bare { link: FirstHeader::Ethernet, ..after(frame, 0) }, Layer::Ethernet)),
        LinkType::Ip => Ok((after(frame, 0), Layer::Ip)),
        LinkType::Loopback => {
            let family = *bytes.first_chunk::<4>().ok_or(Ignored::Truncated)?;
            let known = is_ip_family(u32::from_le_bytes(family)) || is_ip_family(u32::from_be_bytes(family));
            if known { Ok((after(frame, 4), Layer::Ip)) } else { Err(Ignored::NotTcp) }
        }
        LinkType::LinuxCooked => {
            let header = bytes.first_chunk::<16>().ok_or(Ignored::Truncated)?;
            let capture_point = 1 + u64::from(header[1]);
            Ok((Bare { capture_point, ..after(frame, 16) }, protocol([header[14], header[15]])))
        }
        LinkType::LinuxCooked2 => {
            let header = bytes.first_chunk::<20>().ok_or(Ignored::Truncated)?;
            let interface = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let capture_point = u64::from(interface) << 8 | (1 + u64::from(header[10]));
            Ok((Bare { capture_point, ..after(frame, 20) }, protocol([header[0], header[1]])))
        }
        LinkType::Ppp => Ok((after(frame, 0), Layer::Ppp)),
        LinkType::CiscoHdlc => {
            let header = bytes.first_chunk::<4>().ok_or(Ignored::Truncated)?;
            Ok((after(frame, 4), protocol([header[2], header[3]])))
        }
        LinkType::Nflog => Ok((after(frame, nflog_payload(bytes)?), Layer::Ip)),
    }
}

/// What follows a header with an EtherType.
fn protocol(ether_type: [u8; 2]) -> Layer {
    match u16::from_be_bytes(ether_type) {
        0x0800 | 0x86dd => Layer::Ip,
        other => Layer::EtherType(other),
    }
}

fn after(frame: Captured<'_>, offset: usize) -> Bare<'_> {
    let packet = Captured {
        bytes: frame.bytes.get(offset..).unwrap_or_default(),
        wire_len: frame.wire_len.saturating_sub(offset),
    };
    Bare { packet, link: FirstHeader::Ip, vlan: None, removed_tags: 0, capture_point: 0 }
}

/// Offset of the packet in an NFLOG message: a header of four bytes, then attributes in the byte order of the
/// host that captured it, each padded to four bytes. A type is below 256, which shows the order.
fn nflog_payload(bytes: &[u8]) -> Result<usize, Ignored> {
    let mut at = 4;
    loop {
        let header = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Ignored::Truncated)?;
        let (len, kind) = match *header {
            [a, b, kind, 0] => (u16::from_le_bytes([a, b]), kind),
            [a, b, 0, kind] => (u16::from_be_bytes([a, b]), kind),
            _ => return Err(Ignored::Malformed),
        };
        if len < 4 {
            return Err(Ignored::Malformed);
        }
        if kind == NFULA_PAYLOAD {
            return Ok(at + 4);
        }
        at += usize::from(len).next_multiple_of(4);
    }
}

/// Whether this is AF_INET, or AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD or macOS.
const fn is_ip_family(family: u32) -> bool {
    matches!(family, 2 | 10 | 24 | 28 | 30)
}

/// Number of the attribute with the packet (`linux/netfilter/nfnetlink_log.h`).
const NFULA_PAYLOAD: u8 = 9;
