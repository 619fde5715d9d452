//! Fragments of a datagram (RFC 791 3.2, RFC 8200 4.5). The first has the TCP header, the last one shows how
//! long the segment is.

use super::{Datagram, Packet};
use crate::ignored::Ignored;
use crate::key::AddressNumber;

/// Which part of a datagram a packet is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification of the datagram (IPv4: 16 bits).
    pub id: u32,
    /// Position of the byte at [`Datagram::tcp_offset`] in the payload of the whole datagram, in bytes.
    pub offset: u32,
    /// Which fragment it is.
    pub position: Position,
}

/// Which fragment of its datagram a packet is.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// The packet is the whole datagram.
    Whole = 0,
    /// The first fragment.
    First = 1,
    /// Neither the first nor the last.
    Middle = 2,
    /// The last fragment.
    Last = 3,
}

impl Fragment {
    /// A datagram that is not fragmented.
    pub const WHOLE: Fragment = Fragment { id: 0, offset: 0, position: Position::Whole };

    /// Reads the fields of a header; `offset` in bytes.
    #[inline(always)]
    pub(super) const fn new(id: u32, offset: u32, more: bool) -> Fragment {
        let position = match (offset, more) {
            (0, false) => Position::Whole,
            (0, true) => Position::First,
            (_, true) => Position::Middle,
            (_, false) => Position::Last,
        };
        Fragment { id, offset, position }
    }

    /// Whether it has no TCP header.
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        matches!(self.position, Position::Middle | Position::Last)
    }
}

/// What the fragments of a datagram have in common. Fixed layout without padding: it is the key of a map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DatagramId {
    source: AddressNumber,
    destination: AddressNumber,
    id: u32,
    family: u32,
}

const _: () = assert!(size_of::<DatagramId>() == 40);

impl Datagram {
    /// What the fragments of this datagram have in common.
    #[inline(always)]
    pub const fn id(&self) -> DatagramId {
        DatagramId {
            source: self.source,
            destination: self.destination,
            id: self.fragment.id,
            family: self.family as u32,
        }
    }
}

impl Packet {
    /// Makes the first fragment's packet that of the whole datagram, which ends at this position.
    ///
    /// # Errors
    ///
    /// If the datagram ends before the first fragment does.
    #[inline(always)]
    pub fn complete(&mut self, end: u32) -> Result<(), Ignored> {
        let first = &mut self.datagram;
        let tcp_len = end.wrapping_sub(first.fragment.offset);
        if end < first.fragment.offset || tcp_len < first.tcp_len {
            return Err(Ignored::Malformed);
        }
        self.segment.payload_len += tcp_len - first.tcp_len;
        first.tcp_len = tcp_len;
        first.fragment.position = Position::Whole;
        Ok(())
    }
}
