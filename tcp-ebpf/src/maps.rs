//! The maps. Where the agent chooses a size at load, the size here is a placeholder.

use core::cell::UnsafeCell;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, lpm_trie::Key},
};
use tcp_common::{
    Endpoint, FlowKey, FlowKey4, TableKey,
    record::{
        Clocks, Counters, Event, ForeignSegment, MAX_WAITING, Record, ResetEnds, ResetReason, RingPositions,
        Settings, Slot, Slot4, Slot6, WaitingDatagram, WholeDatagram, tail_call,
    },
    wire::DatagramId,
};

use crate::{scratch::Scratch, verifier::opaque};

/// `BPF_F_MMAPABLE`: the agent maps the array into its memory.
const MMAPABLE: u32 = 1 << 10;

/// `BPF_F_NO_PREALLOC`: entries take memory when they are inserted.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Slots of the IPv4 table.
#[map]
pub(crate) static FLOWS_V4: Array<Slot4> = Array::with_max_entries(1024, MMAPABLE);

/// Slots of the IPv6 table.
#[map]
pub(crate) static FLOWS_V6: Array<Slot6> = Array::with_max_entries(1024, MMAPABLE);

/// Records of the IPv4 table, under the index of their slot.
#[map]
pub(crate) static RECORDS_V4: Array<Record> = Array::with_max_entries(1024, MMAPABLE);

/// Records of the IPv6 table, under the index of their slot.
#[map]
pub(crate) static RECORDS_V6: Array<Record> = Array::with_max_entries(1024, MMAPABLE);

/// Directory of the IPv4 table: one entry per home slot.
#[map]
pub(crate) static DIRECTORY_V4: Array<u64> = Array::with_max_entries(1024, MMAPABLE);

/// Directory of the IPv6 table: one entry per home slot.
#[map]
pub(crate) static DIRECTORY_V6: Array<u64> = Array::with_max_entries(1024, MMAPABLE);

/// The settings. A data section of the object becomes a map whose value the programs address without a lookup.
#[unsafe(link_section = ".data")]
static SETTINGS: AgentWritten = AgentWritten(UnsafeCell::new(Settings::NONE));

/// Settings that the agent alone writes.
struct AgentWritten(UnsafeCell<Settings>);

// SAFETY: the programs only read the settings. They are integers, each of which is read as it was before or after a write
// by the agent.
unsafe impl Sync for AgentWritten {}

/// Returns the current settings.
#[inline(always)]
pub(crate) fn settings() -> &'static Settings {
    // SAFETY: the address is that of `SETTINGS`, which is made of integers and never written by a program. `opaque` hides it
    // from the compiler, which would otherwise assume that the settings keep their initial values.
    unsafe { &*(opaque(SETTINGS.0.get() as usize) as *const Settings) }
}

/// Counters of each CPU.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Events of all rings: first those of CPU 0, then those of CPU 1, and so on.
#[map]
pub(crate) static EVENTS: Array<Event> = Array::with_max_entries(1, MMAPABLE);

/// How far the ring of each CPU has been written and read.
#[map]
pub(crate) static RINGS: Array<RingPositions> = Array::with_max_entries(1, MMAPABLE);

/// Scratch memory of each CPU.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The first bytes of a packet whose headers are not in its linear part, for each CPU.
#[map]
pub(crate) static HEADERS: PerCpuArray<[u8; COPIED]> = PerCpuArray::with_max_entries(1, 0);

/// How many bytes of such a packet are copied. The headers before TCP end at 1024, and TCP's has at most 60 bytes.
pub(crate) const COPIED: usize = 1088;

/// The programs behind the XDP entry program, indexed as in [`tcp_common::record::tail_call`].
#[map]
pub(crate) static CHAIN_XDP: ProgramArray = ProgramArray::with_max_entries(tail_call::LEN, 0);

/// The programs behind the TC entry programs, indexed as in [`tcp_common::record::tail_call`].
#[map]
pub(crate) static CHAIN_TC: ProgramArray = ProgramArray::with_max_entries(tail_call::LEN, 0);

/// Datagrams of which fragments wait for the rest. The agent removes those that have waited too long.
#[map]
pub(crate) static FRAGMENTS: HashMap<DatagramId, WaitingDatagram> =
    HashMap::with_max_entries(MAX_WAITING, BPF_F_NO_PREALLOC);

/// The latest datagrams that became whole.
#[map]
pub(crate) static WHOLE_DATAGRAMS: LruHashMap<DatagramId, WholeDatagram> =
    LruHashMap::with_max_entries(MAX_WAITING, 0);

/// Why this host has sent its latest RSTs.
#[map]
pub(crate) static RESET_REASONS: LruHashMap<ResetEnds, ResetReason> = LruHashMap::with_max_entries(1024, 0);

/// The readings of `finwait_clocks`.
#[map]
pub(crate) static CLOCKS: Array<Clocks> = Array::with_max_entries(1, MMAPABLE);

/// The prefixes that this host delivers locally; IPv4 as `::ffff:a.b.c.d`. The agent writes it.
#[map]
static LOCAL_PREFIXES: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(65_536, 0);

/// The layer-3 interface of link-local addresses, by interface index (lower half) and outer VLAN id (upper half), where it
/// is not the interface itself. The agent writes it.
#[map]
static SCOPES: HashMap<u64, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// The domains of VLAN tags, by [`Packet::tags`](tcp_common::wire::Packet::tags).
#[map]
static VLAN_DOMAINS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_VLAN_DOMAINS, BPF_F_NO_PREALLOC);

/// How many domains were given out.
#[map]
static VLAN_DOMAIN_COUNT: Array<u32> = Array::with_max_entries(1, 0);

/// A domain is what a key has room for; 0 is that of frames without a tag.
const MAX_VLAN_DOMAINS: u32 = u16::MAX as u32;

/// Returns the domain of a combination of VLAN tags, a new one if it was not seen before; `None` if there is none left.
#[inline(always)]
pub(crate) fn vlan_domain(tags: u32) -> Option<u16> {
    // SAFETY: the value is an integer that does not change.
    let known = || unsafe { VLAN_DOMAINS.get(tags) }.map(|domain| *domain as u16);
    if let Some(domain) = known() {
        return Some(domain);
    }
    let count = VLAN_DOMAIN_COUNT.get_ptr_mut(0)?;
    // SAFETY: a map value, aligned, which is changed by atomic instructions only.
    let domain = unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(count, 1) }.wrapping_add(1);
    if domain > MAX_VLAN_DOMAINS {
        // SAFETY: as before.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(count, u32::MAX) };
        return known();
    }
    // Another CPU may have been first.
    let _ = VLAN_DOMAINS.insert(tags, domain, BPF_NOEXIST.into());
    known()
}

/// The latest segment of another network, for each CPU.
#[map]
pub(crate) static FOREIGN_SEGMENTS: PerCpuArray<ForeignSegment> = PerCpuArray::with_max_entries(1, 0);

/// Whether packets of an interface have reached the program in the last place since the agent last looked, by interface
/// index: 0 or 1. The agent inserts what it watches and sets the values back to 0.
#[map]
static REACHED: HashMap<u32, u32> = HashMap::with_max_entries(MAX_REACHED, BPF_F_NO_PREALLOC);

/// Interfaces on which finwait's program may be in the last place behind others.
const MAX_REACHED: u32 = 4096;

/// Notes that a packet of this interface has reached the program in the last place.
#[inline(always)]
pub(crate) fn note_reached(interface: u32) {
    if let Some(reached) = REACHED.get_ptr_mut(interface) {
        // SAFETY: a map value, aligned. Every program writes the same value, and only where it is not there yet: the line
        // stays shared between the CPUs.
        unsafe {
            if read_volatile(reached) == 0 {
                write_volatile(reached, 1);
            }
        }
    }
}

/// Whether an address belongs to this host.
#[inline(always)]
pub(crate) fn is_local(endpoint: &Endpoint) -> bool {
    LOCAL_PREFIXES.get(Key::new(128, endpoint.octets())).is_some()
}

/// Returns the scope of link-local addresses in a packet that was seen at this interface with this outer VLAN id: the index
/// of the layer-3 interface, of which a key has room for the lower half.
#[inline(always)]
pub(crate) fn scope_of(interface: u32, vlan: u16) -> u16 {
    // SAFETY: the value is an integer, read as it was before or after a write by the agent.
    let scope = |vlan: u16| unsafe { SCOPES.get(interface as u64 | (vlan as u64) << 32) };
    scope(vlan).or_else(|| scope(0)).copied().unwrap_or(interface) as u16
}

/// A key with the maps of its family's table.
pub(crate) trait MappedKey: TableKey {
    /// Returns the slot with this index.
    fn slot(index: u32) -> Option<*mut Slot<Self>>;
    /// Returns the record of the slot with this index.
    fn record(index: u32) -> Option<*mut Record>;
    /// Returns the directory entry of a home slot.
    fn directory_entry(home: u32) -> Option<*mut u64>;
    /// Returns the number of slots.
    fn slot_count(settings: &Settings) -> u32;
    /// Returns the record of a slot that the current program has locked.
    fn stored_record(index: u32) -> Option<&'static Record> {
        // SAFETY: a map value. The program has locked the slot, so nothing else writes the record.
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
