//! The flow tables as the kernel programs see them: the memory for [`tcp_common::table`]'s protocol, and what a packet
//! needs of it.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::marker::PhantomData;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_common::{
    flow::Prediction,
    record::{Counters, Record, Settings, Slot},
    table::{self, DirectoryEntry, HomeSlot, Lookup, NO_SLOT, Storage, Tag},
};

use crate::{
    clock,
    maps::{MappedKey, settings},
    publish,
    scratch::Scratch,
    verifier::opaque,
};

/// The maps of one family's table.
pub(crate) struct BpfStorage<K> {
    slot_count: u32,
    key: PhantomData<K>,
}

impl<K: MappedKey> BpfStorage<K> {
    /// Returns the maps of a key's family.
    #[inline(always)]
    pub(crate) fn new(settings: &Settings) -> Self {
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

    /// With the pauses some 2 us, several times what the machine needs for a segment.
    const LOCK_TRIES: u32 = 64;

    /// Reads the clock, which takes some 30 ns and is one instruction for the verifier.
    #[inline(always)]
    fn pause(self) {
        // SAFETY: the helper has no arguments and only returns a number.
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
        // SAFETY: `slot` is a map value, and the tag is 8-byte aligned. The target has no atomic load. A volatile load is
        // one instruction, and an acquire load on x86-64; another architecture needs more.
        Tag(unsafe { read_volatile(addr_of!((*slot).tag)) })
    }

    #[inline(always)]
    fn swap_tag(self, slot: *mut Slot<K>, from: Tag, to: Tag) -> bool {
        // SAFETY: `slot` is a map value, and the tag is 8-byte aligned.
        unsafe { swap(addr_of_mut!((*slot).tag), from.0, to.0) }
    }

    #[inline(always)]
    fn store_tag(self, slot: *mut Slot<K>, tag: Tag) {
        // SAFETY: `slot` is a map value, and the tag is 8-byte aligned. The target has no atomic store. A volatile store
        // is one instruction, and a release store on x86-64; another architecture needs more.
        unsafe { write_volatile(addr_of_mut!((*slot).tag), tag.0) };
    }

    #[inline(always)]
    fn has_key(self, slot: *mut Slot<K>, key: &K) -> bool {
        // SAFETY: `slot` is a map value, and a key is plain integers. The protocol compares the tag again before it relies
        // on a key that may be torn.
        unsafe { *addr_of!((*slot).key) == *key }
    }

    #[inline(always)]
    fn set_key(self, slot: *mut Slot<K>, key: &K) {
        // SAFETY: `slot` is a map value that this program has locked, so nothing else writes the key.
        unsafe { (*slot).key = *key };
    }

    #[inline(always)]
    fn last_ns(self, slot: *mut Slot<K>) -> u64 {
        // SAFETY: `slot` is a map value, and the field is an integer. A stale value only affects which flow is evicted.
        unsafe { read_volatile(addr_of!((*slot).prediction.last_ns)) }
    }

    #[inline(always)]
    fn directory_entry(self, home: u32) -> Option<DirectoryEntry> {
        // SAFETY: a map value, 8-byte aligned. A volatile load is an acquire load on x86-64, as for `tag`.
        K::directory_entry(home).map(|entry| DirectoryEntry(unsafe { read_volatile(entry) }))
    }

    #[inline(always)]
    fn swap_directory_entry(self, home: u32, from: DirectoryEntry, to: DirectoryEntry) -> bool {
        // SAFETY: a map value, 8-byte aligned.
        K::directory_entry(home).is_some_and(|entry| unsafe { swap(entry, from.0, to.0) })
    }

    #[inline(always)]
    fn add_to_directory_entry(self, home: u32, amount: u64) {
        if let Some(entry) = K::directory_entry(home) {
            // SAFETY: a map value, 8-byte aligned, which all sides change by atomic instructions only.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(entry, amount) };
        }
    }
}

/// Compare-and-swap, a full barrier. Returns whether `word` was `from` and is now `to`.
///
/// # Safety
///
/// `word` must point to an aligned map value.
#[inline(always)]
unsafe fn swap(word: *mut u64, from: u64, to: u64) -> bool {
    // SAFETY: the caller guarantees that `word` is valid and aligned.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, from, to)
    };
    found == from
}

/// The result of [`get_or_insert`].
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Acquired {
    /// The flow's slot is locked, and its record and prediction are in the scratch memory.
    Locked,
    /// Another thread kept the flow locked. The slot is in the scratch memory, [`NO_SLOT`] if it is unknown.
    Contended,
    /// Both ends are the same endpoint.
    SelfConnect,
    /// There is no flow, and the packet begins none.
    NoFlow,
    /// There is no room for a new flow.
    TableFull,
}

/// Locks the packet's flow and copies it to the scratch memory. A new flow is inserted only if `inserts`.
#[inline(always)]
pub(crate) fn get_or_insert<K: MappedKey>(
    inserts: bool,
    scratch: &mut Scratch,
    settings: &Settings,
    counters: &mut Counters,
) -> Acquired {
    let key = K::of(&scratch.packet.key);
    if key.is_self_connect() {
        return Acquired::SelfConnect;
    }
    let storage = BpfStorage::<K>::new(settings);
    let home = HomeSlot::of(&key, &settings.secret, storage.slot_count);
    prefetch::<K>(home.index);
    let mut retries = 0;
    let lookup = table::get_or_insert(
        storage,
        &key,
        home,
        inserts,
        || make_room(storage, home, scratch, counters),
        || retries += 1,
    );
    counters.insert_retries += retries;
    match lookup {
        Lookup::Found(index, before) => load::<K>(index, before.phase() == Tag::PREDICTED, scratch, settings),
        Lookup::Inserted(index) => load_empty(index, scratch, settings),
        Lookup::Locked(index) => {
            scratch.slot = index;
            Acquired::Contended
        }
        Lookup::Contended => {
            scratch.slot = NO_SLOT;
            Acquired::Contended
        }
        Lookup::Absent => Acquired::NoFlow,
        Lookup::NoRoom => Acquired::TableFull,
    }
}

/// Stores the flow from the scratch memory in its slot, and unlocks the slot.
#[inline(always)]
pub(crate) fn store_and_unlock<K: MappedKey>(phase: u64, scratch: &Scratch, settings: &Settings) {
    let (Some(slot), Some(record)) = (K::slot(scratch.slot), K::record(scratch.slot)) else { return };
    // SAFETY: map values of a slot that this program has locked, so nothing else accesses them.
    unsafe {
        copy_record(&scratch.record, &mut *record);
        (*slot).prediction = scratch.prediction;
    }
    table::unlock(BpfStorage::<K>::new(settings), slot, phase);
}

/// Loads all cache lines of a slot at once. BPF has no prefetch instruction, but nothing waits for these loads.
#[inline(always)]
fn prefetch<K: MappedKey>(index: u32) {
    let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return };
    let lines: *const [[u64; 8]; 4] = record.cast();
    // SAFETY: map values of at least this size. The values are not used.
    unsafe {
        read_volatile(addr_of!((*slot).tag));
        read_volatile(addr_of!((*lines)[0][0]));
        read_volatile(addr_of!((*lines)[1][0]));
        read_volatile(addr_of!((*lines)[2][0]));
        read_volatile(addr_of!((*lines)[3][0]));
    }
}

/// Begins with an empty flow. The slot's old content is obsolete and is not read.
#[inline(always)]
fn load_empty(index: u32, scratch: &mut Scratch, settings: &Settings) -> Acquired {
    scratch.slot = index;
    scratch.at_ns = clock::now_ns(settings);
    scratch.record = Record::EMPTY;
    scratch.prediction = Prediction::EMPTY;
    Acquired::Locked
}

/// Copies a locked flow to the scratch memory, with its prediction flushed if `predicted`. The slot keeps the flow as it
/// was before the packet until [`store_and_unlock`].
///
/// Reads the clock only now. So the segments of one flow have times in the order in which they locked it, on all CPUs.
#[inline(always)]
fn load<K: MappedKey>(index: u32, predicted: bool, scratch: &mut Scratch, settings: &Settings) -> Acquired {
    scratch.slot = index;
    scratch.at_ns = clock::now_ns(settings);
    let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return Acquired::Contended };
    // SAFETY: map values of a slot that this program has locked, so nothing else accesses them.
    let (slot, record) = unsafe { (&mut *slot, &mut *record) };
    if predicted {
        slot.prediction.flush_into(&mut record.flow);
    }
    copy_record(record, &mut scratch.record);
    scratch.prediction = slot.prediction;
    Acquired::Locked
}

/// Copies a record word by word. By itself the compiler loads all of it before it stores any, by way of the stack, and
/// then the 512 bytes of stack are not enough.
#[inline(always)]
fn copy_record(from: &Record, to: &mut Record) {
    const WORDS: usize = size_of::<Record>() / size_of::<u64>();
    const { assert!(WORDS * size_of::<u64>() == size_of::<Record>() && align_of::<Record>() == align_of::<u64>()) };
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), core::ptr::from_mut(to).cast::<u64>());
    for word in 0..WORDS {
        // SAFETY: a word of each record. A record has no padding, so all its words are initialized.
        unsafe { write_volatile(to.add(word), read_volatile(from.add(word))) };
    }
}

/// Locks a slot for a new flow. Counts the evicted flow, and publishes it if anything of it is still to be reported: its
/// close, or the end of its TIME-WAIT.
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
    // A flood of SYNs must not crowd out the events of other flows.
    if phase != Tag::HALF_OPEN {
        let index = home.slot_at(probe);
        let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return NO_SLOT };
        // SAFETY: map values of a slot that this program has locked, so nothing else writes them.
        let (slot, record) = unsafe { (&*slot, &*record) };
        if phase == Tag::TIME_WAIT || record.flow.unreported() != 0 {
            publish::evicted(clock::now_ns(settings()), index, &slot.key.flow_key(), record, counters);
        }
    }
    probe
}
