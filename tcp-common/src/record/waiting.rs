//! Fragments that wait for the rest of their datagram.

use crate::wire::{Packet, Position};

/// The first or the last fragment of a datagram, whichever was seen first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WaitingFragment {
    /// When it was seen, ns on the kernel's monotonic clock.
    pub at_ns: u64,
    /// What was read of it. The programs alone read it.
    pub packet: Packet,
}

impl WaitingFragment {
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
    /// fragment must be of the same segment, while a last one does not show its segment.
    #[inline(always)]
    pub const fn includes(&self, fragment: &Packet, now_ns: u64) -> bool {
        let is_last = matches!(fragment.datagram.fragment.position, Position::Last);
        self.is_recent(now_ns)
            && (is_last || (self.ports == ports(fragment) && self.seq == fragment.segment.seq))
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
