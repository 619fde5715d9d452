//! The Ethernet header and up to two VLAN tags (IEEE 802.3 3.2.6, IEEE 802.1Q 9.3).

use super::Bytes;
use super::ip::Network;
use crate::Ignored;

/// What the link header says.
pub(super) struct Frame {
    pub(super) tags: Tags,
    pub(super) network: Network,
    /// Where the IP header starts.
    pub(super) network_offset: usize,
}

/// VLAN ids, the outermost first.
pub(super) struct Tags {
    pub(super) ids: [u16; 2],
    pub(super) count: u8,
}

/// A frame with an Ethernet header.
#[inline(always)]
pub(super) fn read<B: Bytes + ?Sized>(bytes: &B, stripped_vlan: Option<u16>) -> Result<Frame, Ignored> {
    let mut tags = Tags::stripped(stripped_vlan);
    let mut ether_type = u16::from_be_bytes(bytes.read(12).ok_or(Ignored::Truncated)?);
    let mut offset = 14;
    // Written out: as a loop over tags the offset would cost the verifier more than it costs the reader here.
    if is_tag(ether_type) {
        ether_type = step_over_tag(bytes, &mut offset, &mut tags)?;
        if is_tag(ether_type) {
            ether_type = step_over_tag(bytes, &mut offset, &mut tags)?;
        }
    }
    let network = match ether_type {
        ETHER_TYPE_IPV4 => Network::V4,
        ETHER_TYPE_IPV6 => Network::V6,
        other if is_tag(other) => return Err(Ignored::Unsupported),
        _ => return Err(Ignored::NotTcp),
    };
    Ok(Frame { tags, network, network_offset: offset })
}

/// A frame that starts with its IP header, whose first half octet is the version.
#[inline(always)]
pub(super) fn none<B: Bytes + ?Sized>(bytes: &B, stripped_vlan: Option<u16>) -> Result<Frame, Ignored> {
    let [first] = bytes.read(0).ok_or(Ignored::Truncated)?;
    let network = match first >> 4 {
        4 => Network::V4,
        6 => Network::V6,
        _ => return Err(Ignored::NotTcp),
    };
    Ok(Frame { tags: Tags::stripped(stripped_vlan), network, network_offset: 0 })
}

/// Reads the tag at `offset` and moves behind it; the result is the type of what follows.
#[inline(always)]
fn step_over_tag<B: Bytes + ?Sized>(bytes: &B, offset: &mut usize, tags: &mut Tags) -> Result<u16, Ignored> {
    let [tci_high, tci_low, type_high, type_low] = bytes.read(*offset).ok_or(Ignored::Truncated)?;
    tags.push(u16::from_be_bytes([tci_high, tci_low]))?;
    *offset += 4;
    Ok(u16::from_be_bytes([type_high, type_low]))
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, TAG_CUSTOMER | TAG_SERVICE | TAG_SERVICE_OLD)
}

impl Tags {
    #[inline(always)]
    const fn stripped(tci: Option<u16>) -> Tags {
        match tci {
            Some(tci) => Tags { ids: [tci & VLAN_ID, 0], count: 1 },
            None => Tags { ids: [0, 0], count: 0 },
        }
    }

    /// The low 12 bits are the id, the rest priority and drop eligibility.
    #[inline(always)]
    const fn push(&mut self, tci: u16) -> Result<(), Ignored> {
        match self.count {
            0 => self.ids[0] = tci & VLAN_ID,
            1 => self.ids[1] = tci & VLAN_ID,
            _ => return Err(Ignored::Unsupported),
        }
        self.count += 1;
        Ok(())
    }
}

const VLAN_ID: u16 = 0x0fff;
const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer tag.
const TAG_CUSTOMER: u16 = 0x8100;
/// IEEE 802.1ad service tag.
const TAG_SERVICE: u16 = 0x88a8;
/// Service tag from before the standard, still configured on old switches.
const TAG_SERVICE_OLD: u16 = 0x9100;
