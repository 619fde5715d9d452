//! What the stages of a packet's way hand on.

use tcp_common::{
    Ignored, Outcome,
    flow::Prediction,
    record::Record,
    table::Victim,
    wire::{self, Link},
};

/// What is known of the packet at hand, one per CPU.
#[repr(C)]
pub struct Scratch {
    pub packet: wire::Packet,
    /// Where: interface index shifted by one, bit 0 set on egress.
    pub hook: u32,
    pub at_ns: u64,
    pub direction: Direction,
    pub link: Link,
    /// Slot of the flow, in the table of its family.
    pub slot: u32,
    /// Who must make room for it.
    pub victim: Victim,
    /// What came of asking for it.
    pub acquired: Acquired,
    /// What came of the segment, for an event of the incarnation before.
    pub outcome: Outcome,
    /// Flags of the event being written.
    pub flags: u32,
    /// The flow, and where it is seen, taken out of its place.
    pub record: Record,
    pub prediction: Prediction,
}

/// Which way a packet goes at the interface.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Direction {
    Ingress = 0,
    Egress = 1,
}

/// What came of asking for a flow.
#[derive(Clone, Copy)]
pub enum Acquired {
    /// Its slot is this CPU's until it is given back, and the flow is in `Scratch`.
    Locked,
    /// Somebody else holds it for too long.
    Contended,
    /// There is none, and why.
    Ignored(Ignored),
}
