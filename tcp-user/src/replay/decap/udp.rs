//! Tunnels in UDP, known by their ports: VXLAN, GENEVE, GTP-U, Teredo.

use tcp_common::Ignored;

use super::{Layer, Walk};
use crate::view::Tunnel;

impl Walk<'_> {
    /// Removes what precedes a UDP header, the UDP header and that of the tunnel in it.
    pub(super) fn udp(&mut self, udp_at: usize) -> Result<Layer, Ignored> {
        let (source, destination) = (self.be16(udp_at)?, self.be16(udp_at + 2)?);
        let at = udp_at + 8;
        match (source, destination) {
            (_, 4789 | 8472) => self.vxlan(at),
            (_, 6081) => self.geneve(at),
            (_, 2152) => self.gtp_u(at),
            (3544, _) | (_, 3544) => self.teredo(at),
            _ => Err(Ignored::NotTcp),
        }
    }

    /// VXLAN (RFC 7348 5): the bit of a valid network id is set.
    fn vxlan(&mut self, at: usize) -> Result<Layer, Ignored> {
        if self.byte(at)? & 0x08 == 0 {
            return Err(Ignored::NotTcp);
        }
        self.enter(Tunnel::Vxlan, at + 8)?;
        Ok(Layer::Ethernet)
    }

    /// GENEVE (RFC 8926 3.4): version 0, options in 32-bit words.
    fn geneve(&mut self, at: usize) -> Result<Layer, Ignored> {
        let (first, protocol) = (self.byte(at)?, self.be16(at + 2)?);
        if first >> 6 != 0 {
            return Err(Ignored::NotTcp);
        }
        self.enter(Tunnel::Geneve, at + 8 + usize::from(first & 0x3f) * 4)?;
        Ok(Layer::EtherType(protocol))
    }

    /// GTP-U (3GPP TS 29.281 5.1): version 1 and the message type of user data.
    fn gtp_u(&mut self, at: usize) -> Result<Layer, Ignored> {
        let [flags, message_type] = self.bytes(at)?;
        if flags & 0xf0 != GTP_VERSION_1 || message_type != GTP_USER_DATA {
            return Err(Ignored::NotTcp);
        }
        let mut header_len = 8;
        if flags & GTP_OPTIONAL_FIELDS != 0 {
            // Sequence number, N-PDU number and the type of the first extension header.
            header_len += 4;
            // That type stands last, as it does in each extension header.
            while flags & GTP_EXTENSION != 0 && self.byte(at + header_len - 1)? != 0 {
                match usize::from(self.byte(at + header_len)?) * 4 {
                    0 => return Err(Ignored::Malformed),
                    len => header_len += len,
                }
            }
        }
        self.enter(Tunnel::GtpU, at + header_len)?;
        Ok(Layer::Ip)
    }

    /// Teredo (RFC 4380 5.1.1): IPv6, perhaps after the indications of authentication and origin.
    fn teredo(&mut self, at: usize) -> Result<Layer, Ignored> {
        let mut len = 0;
        if self.be16(at)? == 1 {
            let [client_len, value_len] = self.bytes(at + 2)?;
            // Lengths, client, value, a nonce of 8 bytes and the confirmation.
            len += 4 + usize::from(client_len) + usize::from(value_len) + 9;
        }
        if self.be16(at + len)? == 0 {
            len += 8;
        }
        if self.byte(at + len)? >> 4 != 6 {
            return Err(Ignored::NotTcp);
        }
        self.enter(Tunnel::Teredo, at + len)?;
        Ok(Layer::Ip)
    }
}

const GTP_VERSION_1: u8 = 0x30;
const GTP_USER_DATA: u8 = 0xff;
/// Flags of the extension headers, the sequence number and the N-PDU number: with any, all three are present.
const GTP_OPTIONAL_FIELDS: u8 = 0x07;
const GTP_EXTENSION: u8 = 0x04;
