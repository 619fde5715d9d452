//! Ethernet with up to two VLAN tags (IEEE 802.1Q, 802.1ad, and the older 0x9100).

use super::{Bytes, Header as _};
use crate::ignored::Ignored;

/// The contents of the Ethernet header.
#[derive(Clone, Copy)]
pub(super) struct EthernetHeader {
    /// Offset of the IP header, in bytes.
    pub(super) ip_offset: usize,
    /// IP version by the EtherType; 0 without an Ethernet header.
    pub(super) version: u8,
    /// VLAN ids, outermost first.
    pub(super) vlans: [u16; 2],
    /// Number of VLAN tags.
    pub(super) vlan_count: u8,
}

impl EthernetHeader {
    pub(super) const WITHOUT_LINK: EthernetHeader =
        EthernetHeader { ip_offset: 0, version: 0, vlans: [0; 2], vlan_count: 0 };
}

#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(bytes: &B) -> Result<EthernetHeader, Ignored> {
    let mut ether_type = bytes.header::<2>(12).ok_or(Ignored::Truncated)?.be16(0);
    let mut frame = EthernetHeader { ip_offset: 14, ..EthernetHeader::WITHOUT_LINK };
    if is_tag(ether_type) {
        let tag = bytes.header::<4>(14).ok_or(Ignored::Truncated)?;
        frame.vlans[0] = tag.be16(0) & VLAN_ID;
        ether_type = tag.be16(2);
        frame.vlan_count = 1;
        frame.ip_offset = 18;
        if is_tag(ether_type) {
            let tag = bytes.header::<4>(18).ok_or(Ignored::Truncated)?;
            frame.vlans[1] = tag.be16(0) & VLAN_ID;
            ether_type = tag.be16(2);
            frame.vlan_count = 2;
            frame.ip_offset = 22;
        }
    }
    frame.version = match ether_type {
        IPV4 => 4,
        IPV6 => 6,
        other if is_tag(other) => return Err(Ignored::Unsupported),
        MPLS | MPLS_MULTICAST => return Err(Ignored::Mpls),
        PPPOE_SESSION => return Err(Ignored::Pppoe),
        _ => return Err(Ignored::NotTcp),
    };
    Ok(frame)
}

#[inline(always)]
pub(super) fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, 0x8100 | 0x88a8 | 0x9100)
}

pub(super) const VLAN_ID: u16 = 0x0fff;
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
const MPLS: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
const PPPOE_SESSION: u16 = 0x8864;
