//! GRE (RFC 2784, RFC 2890), its version 1 of PPTP (RFC 2637), and ERSPAN in it.

use tcp_common::Ignored;

use super::{Layer, Walk};
use crate::view::Tunnel;

impl Walk<'_> {
    /// Removes what precedes a GRE header, the GRE header, and the ERSPAN header if there is one.
    pub(super) fn gre(&mut self, gre_at: usize) -> Result<Layer, Ignored> {
        let (flags, protocol) = (self.be16(gre_at)?, self.be16(gre_at + 2)?);
        let has = |flag: u16, len: usize| if flags & flag != 0 { len } else { 0 };
        let optional_len = match flags & VERSION {
            // The routing of RFC 1701 has no fixed length, and RFC 2784 has it discarded.
            0 if flags & ROUTING != 0 => return Err(Ignored::Unsupported),
            0 => has(CHECKSUM, 4) + has(KEY, 4) + has(SEQUENCE, 4),
            1 => has(KEY, 4) + has(SEQUENCE, 4) + has(ACKNOWLEDGMENT, 4),
            _ => return Err(Ignored::NotTcp),
        };
        let header_len = gre_at + 4 + optional_len;
        match (flags & VERSION, protocol) {
            (1, PPP) => {
                self.enter(Tunnel::Gre, header_len)?;
                Ok(Layer::Ppp)
            }
            (1, _) => Err(Ignored::NotTcp),
            // Type I has no header, type II follows a sequence number (draft-foschiano-erspan).
            (_, ERSPAN) => {
                self.enter(Tunnel::Erspan, header_len + has(SEQUENCE, 8))?;
                Ok(Layer::Ethernet)
            }
            (_, ERSPAN_III) => self.erspan_iii(header_len),
            _ => {
                self.enter(Tunnel::Gre, header_len)?;
                Ok(Layer::EtherType(protocol))
            }
        }
    }

    /// Removes the header of ERSPAN type III, which may have a subheader.
    fn erspan_iii(&mut self, gre_len: usize) -> Result<Layer, Ignored> {
        let last = self.be16(gre_len + 10)?;
        let subheader_len = if last & 1 == 1 { 8 } else { 0 };
        self.enter(Tunnel::Erspan, gre_len + 12 + subheader_len)?;
        // The type of the mirrored frame.
        match last >> 10 & 0x1f {
            0 => Ok(Layer::Ethernet),
            2 => Ok(Layer::Ip),
            _ => Err(Ignored::NotTcp),
        }
    }
}

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Of version 1.
const ACKNOWLEDGMENT: u16 = 0x0080;
const VERSION: u16 = 0x0007;
/// Protocol types that are not EtherTypes of other headers.
const PPP: u16 = 0x880b;
const ERSPAN: u16 = 0x88be;
const ERSPAN_III: u16 = 0x22eb;
