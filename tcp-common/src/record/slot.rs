//! A slot of the flow table, and the record that belongs to it.

use crate::flow::{Flow, Prediction};
use crate::key::{FlowKey, FlowKey4};

use super::Sightings;

/// A slot: what finds a flow and what predicted segments change.
///
/// A slot is one cache line in IPv4, and never more than two in IPv6, which the alignment ensures. The rest of the flow is
/// its [`Record`], in an array of its own under the same index. So packets of established connections touch a fifth of the
/// table's memory.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug)]
pub struct Slot<K> {
    /// A [`Tag`](crate::table::Tag).
    pub tag: u64,
    /// Key of the flow.
    pub key: K,
    /// What is expected of the next segments, and at which hook each direction is seen.
    pub prediction: Prediction,
}

/// The rest of a slot's flow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The hooks that have seen the flow.
    pub sightings: Sightings,
    /// For later use, always 0. docs/LAYOUT.md says for what.
    pub reserved: [u64; 3],
    /// The flow. If the slot is `PREDICTED`, its [`Prediction`] is ahead of it.
    pub flow: Flow,
}

/// A slot of the IPv4 table.
pub type Slot4 = Slot<FlowKey4>;
/// A slot of the IPv6 table.
pub type Slot6 = Slot<FlowKey>;

const _: () = assert!(size_of::<Slot4>() == 64 && size_of::<Slot6>() == 96 && size_of::<Record>() == 296);

impl Record {
    /// The record of a new flow.
    pub const EMPTY: Record = Record { sightings: Sightings::NONE, reserved: [0; 3], flow: Flow::EMPTY };

    /// Returns the hook to report for the flow.
    #[inline(always)]
    pub fn hook(&self) -> u32 {
        let [a, b] = self.sightings.hooks;
        if a > b { a } else { b }
    }
}

/// Returns a hook in the short form of a [`Prediction`]. Hooks of interfaces whose indices are equal modulo 2^14 have the
/// same short form, so that copies of a packet at both are not recognized.
#[inline(always)]
pub const fn short_hook(hook: u32) -> u16 {
    (hook << 1 | 1) as u16
}
