//! The maps. Sizes here are placeholders where the agent chooses the size at load.

use core::cell::UnsafeCell;

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, ProgramArray},
};
use tcp_common::{
    FlowKey, FlowKey4, TableKey,
    record::{Clocks, Counters, Event, Record, RingPositions, Settings, Slot, Slot4, Slot6},
};

use crate::{scratch::Scratch, verifier::opaque};

/// `BPF_F_MMAPABLE`: the agent reads, expires and lists the tables without system calls.
const MMAPABLE: u32 = 1 << 10;

#[map]
pub static FLOWS_V4: Array<Slot4> = Array::with_max_entries(1024, MMAPABLE);

#[map]
pub static FLOWS_V6: Array<Slot6> = Array::with_max_entries(1024, MMAPABLE);

/// The rest of each slot.
#[map]
pub static RECORDS_V4: Array<Record> = Array::with_max_entries(1024, MMAPABLE);

#[map]
pub static RECORDS_V6: Array<Record> = Array::with_max_entries(1024, MMAPABLE);

/// Where the flows of each home are, a word for each slot of the table.
#[map]
pub static DIRECTORY_V4: Array<u64> = Array::with_max_entries(1024, MMAPABLE);

#[map]
pub static DIRECTORY_V6: Array<u64> = Array::with_max_entries(1024, MMAPABLE);

/// What the agent tells the programs: a section of the object is a map of the kernel's, which needs no looking up.
#[unsafe(link_section = ".data")]
static SETTINGS: Written = Written(UnsafeCell::new(Settings::NONE));

/// Written by the agent alone.
struct Written(UnsafeCell<Settings>);

// SAFETY: plain numbers; who reads one while it is being written gets the old one or the new one.
unsafe impl Sync for Written {}

/// The settings as they are.
#[inline(always)]
pub fn settings() -> &'static Settings {
    // SAFETY: plain numbers. An address of which the compiler knows nothing: it would see that no program writes there.
    unsafe { &*(opaque(SETTINGS.0.get() as usize) as *const Settings) }
}

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// The rings of events, one CPU's behind the other's.
#[map]
pub static EVENTS: Array<Event> = Array::with_max_entries(1, MMAPABLE);

/// How far they have been written and read.
#[map]
pub static RINGS: Array<RingPositions> = Array::with_max_entries(1, MMAPABLE);

/// What is known of the packet at hand: 512 bytes of stack are not enough for it and the machine.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The beginning of a packet whose headers are not in its linear part.
#[map]
pub static HEADERS: PerCpuArray<[u8; COPIED]> = PerCpuArray::with_max_entries(1, 0);

/// The parser reads nothing beyond: headers before TCP end at 1024, the TCP header has 60 octets at most.
pub const COPIED: usize = 1088;

/// The program behind the XDP program: the whole machine.
#[map]
pub static MACHINE_XDP: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The programs behind the TC programs: the machine; what reads a copy of the headers; the machine on what that has read.
#[map]
pub static MACHINE_TC: ProgramArray = ProgramArray::with_max_entries(3, 0);

/// What `finwait_clocks` has read.
#[map]
pub static CLOCKS: Array<Clocks> = Array::with_max_entries(1, MMAPABLE);

/// A key that has a table.
pub trait MappedKey: TableKey {
    /// The slot's storage.
    fn slot(index: u32) -> Option<*mut Slot<Self>>;
    /// The rest of its slot.
    fn record(index: u32) -> Option<*mut Record>;
    /// The directory's word of a home.
    fn directory_entry(home: u32) -> Option<*mut u64>;
    /// Number of slots.
    fn slot_count(settings: &Settings) -> u32;
    /// The record that holds the flow as it was before this packet.
    fn stored_record(index: u32) -> Option<&'static Record> {
        // SAFETY: a map value that this CPU owns.
        Self::record(index).map(|record| unsafe { &*record })
    }
}

impl MappedKey for FlowKey4 {
    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot<FlowKey4>> {
        FLOWS_V4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn record(index: u32) -> Option<*mut Record> {
        RECORDS_V4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn directory_entry(home: u32) -> Option<*mut u64> {
        DIRECTORY_V4.get_ptr_mut(home)
    }

    #[inline(always)]
    fn slot_count(settings: &Settings) -> u32 {
        settings.slots_v4
    }
}

impl MappedKey for FlowKey {
    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot<FlowKey>> {
        FLOWS_V6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn record(index: u32) -> Option<*mut Record> {
        RECORDS_V6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn directory_entry(home: u32) -> Option<*mut u64> {
        DIRECTORY_V6.get_ptr_mut(home)
    }

    #[inline(always)]
    fn slot_count(settings: &Settings) -> u32 {
        settings.slots_v6
    }
}
