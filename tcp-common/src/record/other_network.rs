//! A segment of another network, for `finwait status`.

use crate::key::FlowKey;

/// The latest segment on a CPU that was ignored as [`OtherNetwork`](crate::Ignored::OtherNetwork), and where the flow
/// with its addresses and ports was seen. Fixed layout without padding; any content is valid.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignSegment {
    /// When it was seen, ns on the kernel's monotonic clock; 0 if there was none.
    pub at_ns: u64,
    /// The key that both have.
    pub key: FlowKey,
    /// Where the flow's direction was first seen, and where the segment was: interface index shifted left by one,
    /// bit 0 set on egress.
    pub hooks: [u32; 2],
    /// VLAN tags of the flow's direction and of the segment, as in [`Packet::tags`](crate::wire::Packet::tags).
    pub tags: [u32; 2],
}

const _: () = assert!(size_of::<ForeignSegment>() == 64);
