//! Memory that the steps of a packet's path share: 512 bytes of stack are not enough for them.

use tcp_common::{
    Outcome,
    flow::Prediction,
    record::{Record, Verdict, WaitingDatagram},
    table::Victim,
    wire::{self, FirstHeader},
};

use crate::table::Acquired;

/// What is known of the current packet. Every CPU has one, see [`crate::per_cpu`].
#[repr(C)]
pub(crate) struct Scratch {
    /// The parsed packet.
    pub(crate) packet: wire::Packet,
    /// Where it was seen: interface index shifted left by one, bit 0 set on egress.
    pub(crate) hook: u32,
    /// When its flow was locked, ns.
    pub(crate) at_ns: u64,
    /// Direction at the interface.
    pub(crate) direction: Direction,
    /// Link layer of the interface.
    pub(crate) link: FirstHeader,
    /// Whether the host forwards the packet, and it leaves.
    pub(crate) is_forwarded: bool,
    /// Whether the packet's flow was locked.
    pub(crate) acquired: Acquired,
    /// Whether the packet counts.
    pub(crate) verdict: Verdict,
    /// What its segment did.
    pub(crate) outcome: Outcome,
    /// How many fragments have waited for the current packet: 0 or 1.
    pub(crate) waited: u32,
    /// Memory for a datagram of which fragments wait.
    pub(crate) waiting: WaitingDatagram,
    /// Slot of the locked flow, in the table of its family.
    pub(crate) slot: u32,
    /// The flow that was evicted for the packet's flow.
    pub(crate) victim: Victim,
    /// Copy of the locked flow's record. The machine works on this copy, so that its code is needed only once for both
    /// families.
    pub(crate) record: Record,
    /// Copy of the locked flow's prediction.
    pub(crate) prediction: Prediction,
}

/// Direction of a packet at an interface.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Direction {
    /// The interface received the packet.
    Ingress = 0,
    /// The interface sends the packet.
    Egress = 1,
}
