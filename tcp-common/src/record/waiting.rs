//! Fragments that wait for the rest of their datagram.

use crate::wire::Packet;

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

/// How long a fragment waits for the rest of its datagram, ns. Shorter than a host waits (30 s, `ip_frag_time`), since the
/// fragments of one datagram leave together, and IPv4 identifications return.
pub const FRAGMENT_NS: u64 = 2_000_000_000;

/// Maximum number of datagrams that wait.
pub const MAX_WAITING: u32 = 1_024;
