//! The flow tables as the kernel programs see them. The protocol is `tcp_common::table`'s; here are the memory that it works
//! on, and what a packet asks of it.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::marker::PhantomData;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_common::{
    Ignored, Kind,
    flow::Prediction,
    record::{Counters, Record, Settings, Slot, reported},
    table::{self, DirectoryEntry, HomeSlot, Lookup, NO_SLOT, Storage, Tag},
};

use crate::{
    clock,
    maps::{MappedKey, settings},
    publish,
    scratch::{Acquired, Scratch},
    verifier::opaque,
};

/// The maps of one family.
pub struct BpfStorage<K> {
    slot_count: u32,
    key: PhantomData<K>,
}

impl<K: MappedKey> BpfStorage<K> {
    #[inline(always)]
    pub fn new(settings: &Settings) -> Self {
        BpfStorage { slot_count: K::slot_count(settings), key: PhantomData }
    }
}

impl<K> Clone for BpfStorage<K> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for BpfStorage<K> {}

impl<K: MappedKey> Storage for BpfStorage<K> {
    type Key = K;
    type Slot = *mut Slot<K>;

    /// With the pause between them some 2 us, several times what the machine takes for a segment.
    const LOCK_TRIES: u32 = 64;

    /// To read the clock is one instruction for the verifier, and takes some 30 ns.
    #[inline(always)]
    fn pause(self) {
        // SAFETY: takes nothing, returns a number.
        unsafe { bpf_ktime_get_ns() };
    }

    #[inline(always)]
    fn slot_count(self) -> u32 {
        self.slot_count
    }

    #[inline(always)]
    fn slot(self, index: u32) -> Option<*mut Slot<K>> {
        K::slot(index)
    }

    #[inline(always)]
    fn tag(self, slot: *mut Slot<K>) -> Tag {
        // SAFETY: a map value, 8-byte aligned; an atomic load does not exist on this target, a volatile one does the same
        // on x86, where loads are in order. Another machine needs an acquire here.
        Tag(unsafe { read_volatile(addr_of!((*slot).tag)) })
    }

    #[inline(always)]
    fn swap_tag(self, slot: *mut Slot<K>, from: Tag, to: Tag) -> bool {
        // SAFETY: as above.
        unsafe { swap(addr_of_mut!((*slot).tag), from.0, to.0) }
    }

    #[inline(always)]
    fn store_tag(self, slot: *mut Slot<K>, tag: Tag) {
        // SAFETY: as above; x86 stores are in order, another machine needs a release here.
        unsafe { write_volatile(addr_of_mut!((*slot).tag), tag.0) };
    }

    #[inline(always)]
    fn has_key(self, slot: *mut Slot<K>, key: &K) -> bool {
        // SAFETY: a map value; a torn key is found out by the tag.
        unsafe { *addr_of!((*slot).key) == *key }
    }

    #[inline(always)]
    fn set_key(self, slot: *mut Slot<K>, key: &K) {
        // SAFETY: a map value that this CPU holds.
        unsafe { (*slot).key = *key };
    }

    #[inline(always)]
    fn last_ns(self, slot: *mut Slot<K>) -> u64 {
        // SAFETY: a map value; a torn number can only misjudge.
        unsafe { read_volatile(addr_of!((*slot).prediction.last_ns)) }
    }

    #[inline(always)]
    fn directory_entry(self, home: u32) -> Option<DirectoryEntry> {
        // SAFETY: as in `tag`.
        K::directory_entry(home).map(|word| DirectoryEntry(unsafe { read_volatile(word) }))
    }

    #[inline(always)]
    fn swap_directory_entry(self, home: u32, from: DirectoryEntry, to: DirectoryEntry) -> bool {
        // SAFETY: as in `tag`.
        K::directory_entry(home).is_some_and(|word| unsafe { swap(word, from.0, to.0) })
    }

    #[inline(always)]
    fn add_to_directory_entry(self, home: u32, amount: u64) {
        if let Some(word) = K::directory_entry(home) {
            // SAFETY: as in `tag`.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) };
        }
    }
}

/// Compare-and-swap; a full barrier.
#[inline(always)]
unsafe fn swap(word: *mut u64, from: u64, to: u64) -> bool {
    // SAFETY: the caller's.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, from, to)
    };
    found == from
}

/// Finds the flow, or claims a slot for it where the packet may open one, takes it and copies it to `scratch`.
#[inline(always)]
pub fn get_or_insert<K: MappedKey>(scratch: &mut Scratch, settings: &Settings, counters: &mut Counters) {
    let key = K::of(&scratch.packet.key);
    scratch.acquired = if key.is_self_connect() {
        Acquired::Ignored(Ignored::SelfConnect)
    } else {
        lock_or_insert(&key, scratch, settings, counters)
    };
}

/// Puts the flow back and lets go of the slot.
#[inline(always)]
pub fn store_and_unlock<K: MappedKey>(phase: u64, scratch: &Scratch, settings: &Settings) {
    let (Some(slot), Some(record)) = (K::slot(scratch.slot), K::record(scratch.slot)) else { return };
    // SAFETY: the slot is this CPU's.
    unsafe {
        *record = scratch.record;
        (*slot).prediction = scratch.prediction;
    }
    table::unlock(BpfStorage::<K>::new(settings), slot, phase);
}

#[inline(always)]
fn lock_or_insert<K: MappedKey>(
    key: &K,
    scratch: &mut Scratch,
    settings: &Settings,
    counters: &mut Counters,
) -> Acquired {
    let storage = BpfStorage::<K>::new(settings);
    let home = HomeSlot::of(key, &settings.secret, storage.slot_count());
    prefetch::<K>(home.index);
    let inserts = !matches!(scratch.packet.segment.kind(), Kind::Rst);
    let mut retries = 0;
    let lookup = table::get_or_insert(
        storage,
        key,
        home,
        inserts,
        || make_room(storage, home, scratch, counters),
        || retries += 1,
    );
    counters.insert_retries += retries;
    match lookup {
        Lookup::Found(index, before) => load::<K>(index, before.phase() == Tag::PREDICTED, scratch, settings),
        Lookup::Inserted(index) => start_empty(index, scratch, settings),
        Lookup::Locked(index) => {
            scratch.slot = index;
            Acquired::Contended
        }
        Lookup::Contended => {
            scratch.slot = NO_SLOT;
            Acquired::Contended
        }
        Lookup::Absent => Acquired::Ignored(Ignored::NoFlow),
        Lookup::NoRoom => Acquired::Ignored(Ignored::TableFull),
    }
}

/// Asks memory for all lines of a slot at once, in which the flow will most likely be: there is no instruction for that,
/// but a load that nothing waits for is one.
#[inline(always)]
fn prefetch<K: MappedKey>(index: u32) {
    let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return };
    let lines: *const [[u64; 8]; 4] = record.cast();
    // SAFETY: a map value; what is read is not used.
    unsafe {
        read_volatile(addr_of!((*slot).tag));
        read_volatile(addr_of!((*lines)[0][0]));
        read_volatile(addr_of!((*lines)[1][0]));
        read_volatile(addr_of!((*lines)[2][0]));
        read_volatile(addr_of!((*lines)[3][0]));
    }
}

/// Begins with an empty flow. What the slot held is nobody's any more, and need not be read.
#[inline(always)]
fn start_empty(index: u32, scratch: &mut Scratch, settings: &Settings) -> Acquired {
    scratch.slot = index;
    scratch.at_ns = clock::now_ns(settings);
    scratch.record = Record::EMPTY;
    scratch.prediction = Prediction::EMPTY;
    Acquired::Locked
}

/// Copies what the slot holds, with what was predicted written back. It stays there as it was before the packet, until
/// [`store_and_unlock`]. The segment has its time only now: those of one flow have theirs in the order in which they are taken, on
/// whichever CPU.
#[inline(always)]
fn load<K: MappedKey>(index: u32, settle: bool, scratch: &mut Scratch, settings: &Settings) -> Acquired {
    scratch.slot = index;
    scratch.at_ns = clock::now_ns(settings);
    let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return Acquired::Contended };
    // SAFETY: the slot is this CPU's.
    let (slot, record) = unsafe { (&mut *slot, &mut *record) };
    if settle {
        slot.prediction.flush_into(&mut record.flow);
    }
    scratch.record = *record;
    scratch.prediction = slot.prediction;
    Acquired::Locked
}

/// A slot for a newcomer; the flow that must go for it is counted, and told of unless that was done before.
#[inline(never)]
fn make_room<K: MappedKey>(
    storage: BpfStorage<K>,
    home: HomeSlot,
    scratch: &mut Scratch,
    counters: &mut Counters,
) -> u32 {
    let probe = table::make_room(storage, home, &mut scratch.victim);
    if probe == NO_SLOT || scratch.victim.probe == NO_SLOT {
        return probe;
    }
    let phase = scratch.victim.tag.phase();
    // The compiler may know the number's range from the tag; the verifier of Linux 6.1 does not.
    if let Some(count) = counters.evicted.get_mut(opaque(phase.wrapping_sub(Tag::CLOSED) as usize)) {
        *count += 1;
    }
    // A flood of SYNs must not drown the events of others.
    if phase != Tag::HALF_OPEN {
        let index = home.slot_at(probe);
        let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return NO_SLOT };
        // SAFETY: the slot is this CPU's.
        let (slot, record) = unsafe { (&*slot, &*record) };
        if !record.flow.is_reported(reported::CLOSE) {
            scratch.at_ns = clock::now_ns(settings());
            publish::evicted(&slot.key.flow_key(), record, scratch, counters);
        }
    }
    probe
}
