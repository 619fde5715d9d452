//! Datagrams of which some fragments were seen.

use crate::ignored::Ignored;
use crate::wire::{Packet, Position};

/// The fragments of one datagram that were seen so far.
///
/// The first has the TCP header, the last one shows where the datagram ends. Of those between, the positions and the
/// number of bytes are kept: only a datagram of which nothing is missing reaches its receiver.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WaitingDatagram {
    /// When the fragment was seen that came first, ns on the kernel's monotonic clock.
    pub at_ns: u64,
    /// Number of fragments that wait: the first, the last, or both.
    pub waiting: u32,
    /// Bytes of the datagram that were seen.
    received: u32,
    /// Where the datagram ends, in bytes; 0 until the last fragment was seen.
    end: u32,
    /// Number of fragments between the first and the last one.
    middle_count: u32,
    /// Positions of the first of these, in units of 8 bytes: a copy, as another interface shows it, is not counted again.
    middles: [u16; MAX_MIDDLES],
    /// The packet of the first fragment, if it was seen.
    pub packet: Packet,
}

impl WaitingDatagram {
    /// No datagram.
    pub const EMPTY: WaitingDatagram = WaitingDatagram {
        at_ns: 0,
        waiting: 0,
        received: 0,
        end: 0,
        middle_count: 0,
        middles: [0; MAX_MIDDLES],
        packet: Packet::EMPTY,
    };

    /// Begins with another datagram, of which nothing was seen before this time, in ns.
    #[inline(always)]
    pub fn begin(&mut self, at_ns: u64) {
        self.at_ns = at_ns;
        (self.waiting, self.received, self.end, self.middle_count) = (0, 0, 0, 0);
        self.packet.datagram.fragment.position = Position::Whole;
    }

    /// Adds a fragment. Returns whether it waits; one between the first and the last one does not.
    ///
    /// # Errors
    ///
    /// [`Ignored::Duplicate`] if the first or the last fragment was seen before.
    #[inline(always)]
    pub fn add(&mut self, packet: &Packet) -> Result<bool, Ignored> {
        let fragment = packet.datagram.fragment;
        let is_seen = match fragment.position {
            Position::Whole | Position::First => {
                !matches!(self.packet.datagram.fragment.position, Position::Whole)
            }
            Position::Middle => {
                self.add_middle(fragment.offset, packet.datagram.tcp_len);
                return Ok(false);
            }
            Position::Last => self.end != 0,
        };
        if is_seen {
            return Err(Ignored::Duplicate);
        }
        self.waiting += 1;
        if matches!(fragment.position, Position::Last) {
            self.end = fragment.offset.wrapping_add(packet.datagram.tcp_len);
            self.received = self.received.wrapping_add(packet.datagram.tcp_len);
        } else {
            self.packet = *packet;
            // From the beginning of the datagram to its end.
            self.received = self.received.wrapping_add(fragment.offset.wrapping_add(packet.datagram.tcp_len));
        }
        Ok(true)
    }

    #[inline(always)]
    fn add_middle(&mut self, offset: u32, len: u32) {
        let position = (offset >> 3) as u16;
        let mut is_copy = false;
        for (number, known) in self.middles.iter_mut().enumerate() {
            let number = number as u32;
            is_copy |= number < self.middle_count && *known == position;
            if number == self.middle_count && !is_copy {
                *known = position;
            }
        }
        if !is_copy {
            self.middle_count = self.middle_count.wrapping_add(1);
            self.received = self.received.wrapping_add(len);
        }
    }

    /// Whether every byte of the datagram was seen.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.waiting == 2 && self.received >= self.end
    }

    /// Makes [`packet`](Self::packet) that of the whole datagram.
    ///
    /// # Errors
    ///
    /// If the datagram ends before the first fragment does.
    #[inline(always)]
    pub fn complete(&mut self) -> Result<(), Ignored> {
        self.packet.complete(self.end)
    }

    /// Whether it has waited too long.
    #[inline(always)]
    pub const fn has_expired(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.at_ns) >= FRAGMENT_NS
    }
}

/// A datagram that became whole. Its fragments that come later are copies.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WholeDatagram {
    /// When it became whole, ns on the kernel's monotonic clock.
    at_ns: u64,
    ports: u32,
    seq: u32,
}

impl WholeDatagram {
    /// The datagram whose first fragment this is.
    #[inline(always)]
    pub const fn new(first: &Packet, at_ns: u64) -> WholeDatagram {
        WholeDatagram { at_ns, ports: ports(first), seq: first.segment.seq }
    }

    /// Whether fragments that come at this time can be copies.
    #[inline(always)]
    pub const fn is_recent(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.at_ns) < FRAGMENT_NS
    }

    /// Whether a fragment with its identification can be one of its own. Identifications return soon: a first
    /// fragment must be of the same segment, while others do not show their segment.
    #[inline(always)]
    pub const fn includes(&self, fragment: &Packet, now_ns: u64) -> bool {
        let shows_segment = matches!(fragment.datagram.fragment.position, Position::First);
        self.is_recent(now_ns)
            && (!shows_segment || (self.ports == ports(fragment) && self.seq == fragment.segment.seq))
    }
}

#[inline(always)]
const fn ports(packet: &Packet) -> u32 {
    (packet.key.port_a as u32) << 16 | packet.key.port_b as u32
}

/// How long a fragment waits for the rest of its datagram, ns. Shorter than a host waits (30 s, `ip_frag_time`), since the
/// fragments of one datagram leave together, and IPv4 identifications return.
pub const FRAGMENT_NS: u64 = 2_000_000_000;

/// Maximum number of datagrams that wait.
pub const MAX_WAITING: u32 = 1_024;

/// Number of fragments whose copies are recognised: as many as a frame of 9,000 bytes has between the first and the last
/// one on a link of 1,500, and more.
const MAX_MIDDLES: usize = 8;
