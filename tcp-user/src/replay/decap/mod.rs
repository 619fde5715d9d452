//! What is inside other protocols: from the first byte of a frame to the IP header of a TCP segment.
//!
//! Only frames in which [`tcp_common::wire`] finds no segment come here. A [`Walk`] removes one header after
//! the other. Each header has a module with the others of its layer: `link`, `ip`, `gre`, `udp`.

mod gre;
mod ip;
mod link;
mod udp;

use tcp_common::Ignored;
use tcp_common::wire::{Captured, FirstHeader};

use super::link::Bare;
use crate::view::Tunnel;

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// What this EtherType says, or an 802.3 frame of this length (RFC 7042 appendix B).
    EtherType(u16),
    /// The protocol number of PPP.
    Ppp,
    /// An IPv4 or IPv6 header, by its version.
    Ip,
}

/// The headers that were removed from a frame, and the rest of it.
struct Walk<'a> {
    frame: Captured<'a>,
    /// Offset of the next header, in bytes.
    at: usize,
    /// First tag after the last Ethernet header.
    vlan: Option<u16>,
    /// All tags after the last Ethernet header, in the form of [`Bare::stack`].
    stack: u128,
    /// The outermost tunnel.
    tunnel: Option<Tunnel>,
    /// Number of tunnels.
    depth: u32,
    capture_point: u64,
    /// Whether to look into tunnels and behind more than two VLAN tags.
    is_enabled: bool,
    /// Number of VLAN tags after the last Ethernet header.
    tags: u32,
}

/// An IP packet with TCP inside, and the outermost tunnel that carries it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner<'a> {
    pub(super) bare: Bare<'a>,
    pub(super) tunnel: Option<Tunnel>,
}

/// Finds the IP packet that has TCP inside. `bare` is a frame without the header of its link type, `layer`
/// what it begins with. Unless decapsulation `is_enabled`, only two VLAN tags are removed.
pub(super) fn find(bare: Bare<'_>, layer: Layer, is_enabled: bool) -> Result<Inner<'_>, Ignored> {
    let Bare { packet: frame, vlan, removed_tags: stack, capture_point, .. } = bare;
    let mut walk =
        Walk { frame, at: 0, vlan, stack, tunnel: None, depth: 0, capture_point, is_enabled, tags: 0 };
    let mut layer = layer;
    // Every header is at least a byte long, and the frame ends.
    loop {
        layer = match layer {
            Layer::Ethernet => walk.ethernet()?,
            Layer::EtherType(number) => walk.ether_type(number)?,
            Layer::Ppp => walk.ppp()?,
            Layer::Ip => match walk.ip()? {
                Some(layer) => layer,
                None => return Ok(walk.inner()),
            },
        };
    }
}

impl<'a> Walk<'a> {
    /// `N` bytes at this offset from the next header.
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], Ignored> {
        let bytes = self.frame.bytes.get(self.at + offset..).and_then(|rest| rest.first_chunk::<N>());
        bytes.copied().ok_or(Ignored::Truncated)
    }

    fn be16(&self, offset: usize) -> Result<u16, Ignored> {
        self.bytes(offset).map(u16::from_be_bytes)
    }

    fn be32(&self, offset: usize) -> Result<u32, Ignored> {
        self.bytes(offset).map(u32::from_be_bytes)
    }

    /// The byte at this offset from the next header.
    fn byte(&self, offset: usize) -> Result<u8, Ignored> {
        self.bytes::<1>(offset).map(|[byte]| byte)
    }

    /// Removes the header of a tunnel, which has this length, and what precedes it.
    fn enter(&mut self, tunnel: Tunnel, header_len: usize) -> Result<(), Ignored> {
        if !self.is_enabled {
            return Err(Ignored::NotTcp);
        }
        if self.depth == MAX_TUNNELS {
            return Err(Ignored::Unsupported);
        }
        self.depth += 1;
        self.tunnel = self.tunnel.or(Some(tunnel));
        self.at += header_len;
        Ok(())
    }

    fn inner(&self) -> Inner<'a> {
        let packet = Captured {
            bytes: self.frame.bytes.get(self.at..).unwrap_or_default(),
            wire_len: self.frame.wire_len.saturating_sub(self.at),
        };
        let Walk { vlan, stack: removed_tags, capture_point, .. } = *self;
        let bare = Bare { packet, link: FirstHeader::Ip, vlan, removed_tags, capture_point };
        Inner { bare, tunnel: self.tunnel }
    }
}

/// Maximum number of tunnels in each other.
const MAX_TUNNELS: u32 = 8;
