//! Headers between the link layer and IP: Ethernet, VLAN tags, LLC/SNAP, MPLS, PPPoE, PPP.

use tcp_common::Ignored;

use super::{Layer, Walk};
use crate::replay::link::push_tag;
use crate::view::Tunnel;

impl Walk<'_> {
    /// Removes an Ethernet header (IEEE 802.3).
    pub(super) fn ethernet(&mut self) -> Result<Layer, Ignored> {
        let ether_type = self.be16(12)?;
        self.at += 14;
        (self.vlan, self.stack, self.tags) = (None, 0, 0);
        Ok(Layer::EtherType(ether_type))
    }

    /// Removes the header of this EtherType.
    pub(super) fn ether_type(&mut self, ether_type: u16) -> Result<Layer, Ignored> {
        match ether_type {
            IPV4 | IPV6 => {
                let version = self.byte(0)? >> 4;
                let expected = if ether_type == IPV4 { 4 } else { 6 };
                if version == expected { Ok(Layer::Ip) } else { Err(Ignored::Malformed) }
            }
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                if !self.is_enabled && self.tags == MAX_TAGS {
                    return Err(Ignored::Unsupported);
                }
                let (control, next) = (self.be16(0)?, self.be16(2)?);
                let id = control & 0x0fff;
                self.vlan = self.vlan.or(Some(id));
                self.stack = push_tag(self.stack, id);
                self.tags += 1;
                self.at += 4;
                Ok(Layer::EtherType(next))
            }
            // Unicast and multicast (RFC 3032, RFC 5332).
            0x8847 | 0x8848 => self.mpls(),
            0x8864 => self.pppoe(),
            // In GRE, GENEVE and others.
            0x6558 => Ok(Layer::Ethernet),
            0..=MAX_802_3_LEN => self.llc(),
            _ => Err(Ignored::NotTcp),
        }
    }

    /// Removes an LLC header (IEEE 802.2): IP itself (RFC 948), or SNAP with an EtherType (RFC 1042).
    fn llc(&mut self) -> Result<Layer, Ignored> {
        if !self.is_enabled {
            return Err(Ignored::NotTcp);
        }
        match self.bytes(0)? {
            [6, 6, 3] => {
                self.at += 3;
                Ok(Layer::Ip)
            }
            // RFC 1042, and its use for bridges (IEEE 802.1H).
            [0xaa, 0xaa, 3] if matches!(self.bytes(3)?, [0, 0, 0] | [0, 0, 0xf8]) => {
                let ether_type = self.be16(6)?;
                self.at += 8;
                // No length stands here.
                if ether_type > MAX_802_3_LEN {
                    Ok(Layer::EtherType(ether_type))
                } else {
                    Err(Ignored::NotTcp)
                }
            }
            _ => Err(Ignored::NotTcp),
        }
    }

    /// Removes a stack of MPLS labels (RFC 3032). What follows is known by its first nibble (RFC 4928): IP,
    /// or Ethernet in a pseudowire with a control word or without (RFC 4448).
    pub(super) fn mpls(&mut self) -> Result<Layer, Ignored> {
        let mut labels_len = 4;
        while self.be32(labels_len - 4)? & BOTTOM_OF_STACK == 0 {
            labels_len += 4;
        }
        self.enter(Tunnel::Mpls, labels_len)?;
        let nibble = self.byte(0)? >> 4;
        if matches!(nibble, 4 | 6) {
            return Ok(Layer::Ip);
        }
        // An address may begin with a nibble of 0 as well: the EtherType after the control word decides.
        let ether_type = self.be16(4 + 12)?;
        let is_known =
            matches!(ether_type, IPV4 | IPV6 | 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8864);
        if nibble == 0
            && (is_known || ether_type <= MAX_802_3_LEN && matches!(self.be16(4 + 14)?, 0xaaaa | 0x0606))
        {
            self.at += 4;
        }
        Ok(Layer::Ethernet)
    }

    /// Removes the header of a PPPoE session (RFC 2516 4).
    fn pppoe(&mut self) -> Result<Layer, Ignored> {
        match self.bytes(0)? {
            // Version and type 1, the code of session data.
            [0x11, 0] => {
                self.enter(Tunnel::Pppoe, 6)?;
                Ok(Layer::Ppp)
            }
            [0x11, _] => Err(Ignored::NotTcp),
            _ => Err(Ignored::Malformed),
        }
    }

    /// Removes the protocol number of PPP (RFC 1661 2). Address and control may precede it (RFC 1662 3.1),
    /// and its first byte may be omitted if it is 0: the second one is odd.
    pub(super) fn ppp(&mut self) -> Result<Layer, Ignored> {
        let mut first = self.byte(0)?;
        if first == 0xff && self.bytes(0)? == [0xff, 0x03] {
            self.at += 2;
            first = self.byte(0)?;
        }
        let (protocol, len) = if first & 1 == 1 { (u16::from(first), 1) } else { (self.be16(0)?, 2) };
        self.at += len;
        match protocol {
            // RFC 1332, RFC 5072.
            0x0021 | 0x0057 => Ok(Layer::Ip),
            // RFC 3032 4.3.
            0x0281 | 0x0283 => self.mpls(),
            _ => Err(Ignored::NotTcp),
        }
    }
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Maximum value of the type field that is a length (IEEE 802.3).
const MAX_802_3_LEN: u16 = 1_500;
/// Bit of the last label of a stack.
const BOTTOM_OF_STACK: u32 = 0x100;
/// Maximum number of VLAN tags without decapsulation, as for live packets.
const MAX_TAGS: u32 = 2;
