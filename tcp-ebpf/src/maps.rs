//! The maps. Sizes here are placeholders where the agent chooses the size at load.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use tcp_common::record::{Counters, Settings, Slot};

use crate::observe::Work;

/// `BPF_F_MMAPABLE`: the agent reads, expires and lists the table without system calls.
const MMAPABLE: u32 = 1 << 10;

#[map]
pub static FLOWS: Array<Slot> = Array::with_max_entries(1024, MMAPABLE);

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, MMAPABLE);

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// A copy of the flow as it was before a segment that may begin the next incarnation.
#[map]
pub static BEFORE: PerCpuArray<tcp_common::Flow> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// What is known of the packet at hand: 512 bytes of stack are not enough for it and the machine.
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Octets of a packet that are not in its linear part.
#[map]
pub static SPARE: PerCpuArray<[u8; 32]> = PerCpuArray::with_max_entries(1, 0);
