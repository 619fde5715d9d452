//! The flow table of one address family, mapped into the agent's memory.
//!
//! [`tcp_common::table`] has the protocol. This module gives it the memory to work on.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::Ebpf;
use tcp_common::flow::Prediction;
use tcp_common::record::{Record, Slot};
use tcp_common::table::{self, DirectoryEntry, HomeSlot, Lookup, NO_SLOT, Storage, Tag, Victim};
use tcp_common::{Secret, TableKey};

use super::KernelError;
use super::mapped::Mapped;

/// The mapped slots, records and directory of one family.
pub(super) struct FamilyTable<K> {
    slots: Mapped<Slot<K>>,
    records: Mapped<Record>,
    directory: Mapped<u64>,
}

impl<K: TableKey> FamilyTable<K> {
    /// Maps the arrays with these names: slots, records, directory.
    pub(super) fn map(
        ebpf: &mut Ebpf,
        names: [&'static str; 3],
        slot_count: u32,
    ) -> Result<FamilyTable<K>, KernelError> {
        let [slots, records, directory] = names;
        Ok(FamilyTable {
            slots: Mapped::map(ebpf, slots, slot_count)?,
            records: Mapped::map(ebpf, records, slot_count)?,
            directory: Mapped::map(ebpf, directory, slot_count)?,
        })
    }

    pub(super) fn slot_count(&self) -> u32 {
        self.slots.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes() + self.records.bytes() + self.directory.bytes()
    }

    /// Counts the slots in each phase.
    pub(super) fn phases(&self) -> [u32; Tag::PHASES] {
        let mut phases = [0; Tag::PHASES];
        for index in 0..self.slot_count() {
            phases[self.load(index).phase() as usize % Tag::PHASES] += 1;
        }
        phases
    }

    /// Returns a consistent copy of a slot's flow, with its prediction flushed. Returns `None` if the slot is
    /// free.
    pub(super) fn read(&self, index: u32) -> Option<(K, Record)> {
        for _ in 0..READ_TRIES {
            let before = self.load(index);
            if before.phase() == Tag::FREE {
                return None;
            }
            if !before.is_unlocked() {
                std::hint::spin_loop();
                continue;
            }
            // SAFETY: `Mapped::at` returns pointers into the mapping. The bytes are plain integers, so any
            // value is valid, and a copy during which the tag changed is discarded below.
            let (mut slot, mut record) = unsafe {
                (ptr::read_volatile(self.slots.at(index)), ptr::read_volatile(self.records.at(index)))
            };
            fence(Ordering::Acquire);
            if self.load(index) == before {
                if before.phase() == Tag::PREDICTED {
                    slot.prediction.flush_into(&mut record.flow);
                }
                return Some((slot.key, record));
            }
        }
        None
    }

    /// Finds the slot of a flow, as the kernel programs do.
    pub(super) fn find(&self, key: &K, secret: &Secret) -> Option<u32> {
        let home = HomeSlot::of(key, secret, self.slot_count());
        let index = table::find(self, key, home, &mut DirectoryEntry(0));
        (index != NO_SLOT).then_some(index)
    }

    /// Locks a slot, unless it is free or locked.
    pub(super) fn try_lock(&self, index: u32) -> Option<LockedSlot<'_, K>> {
        Some(self.locked(index, table::try_lock(self, index, Tag::AGENT_LOCKED)?))
    }

    /// Locks the slot of this flow. Waits a few milliseconds at most. Returns `None` if the flow is no longer
    /// there.
    pub(super) fn lock(&self, index: u32, key: &K) -> Option<LockedSlot<'_, K>> {
        for _ in 0..LOCK_ROUNDS {
            let before = table::lock(self, index, key, Tag::AGENT_LOCKED);
            if before.phase() != Tag::KERNEL_LOCKED {
                return before.is_unlocked().then(|| self.locked(index, before));
            }
            // On a PREEMPT_RT kernel, the program that has locked the slot may be preempted.
            std::thread::yield_now();
        }
        None
    }

    /// Inserts an empty flow and locks its slot. Returns `None` if the flow exists, or no slot is free.
    pub(super) fn insert(&self, key: &K, secret: &Secret) -> Option<LockedSlot<'_, K>> {
        let home = HomeSlot::of(key, secret, self.slot_count());
        let room = || table::reserve_free(self, home, &mut { Victim::NONE });
        match table::get_or_insert(self, key, home, true, room, || {}) {
            Lookup::Inserted(index) => {
                let locked = self.locked(index, Tag(Tag::KERNEL_LOCKED));
                locked.slot.prediction = Prediction::EMPTY;
                *locked.record = Record::EMPTY;
                Some(locked)
            }
            Lookup::Found(index, before) => {
                self.locked(index, before).release(false);
                None
            }
            Lookup::Locked(_) | Lookup::Absent | Lookup::NoRoom | Lookup::Contended => None,
        }
    }

    /// Returns access to a slot that the caller has just locked, with its prediction flushed.
    fn locked(&self, index: u32, before: Tag) -> LockedSlot<'_, K> {
        // SAFETY: `Mapped::at` returns pointers into the mapping. The caller has locked the slot, so nothing
        // else accesses it mutably before `LockedSlot::release`.
        let (slot, record) = unsafe { (&mut *self.slots.at(index), &mut *self.records.at(index)) };
        if before.phase() == Tag::PREDICTED {
            slot.prediction.flush_into(&mut record.flow);
        }
        LockedSlot { table: self, index, slot, record }
    }

    /// Removes every flow. For tests, while no program runs.
    pub(super) fn clear(&self) {
        for index in 0..self.slot_count() {
            if table::try_lock(self, index, Tag::AGENT_LOCKED).is_some() {
                table::remove(self, index);
            }
        }
    }

    pub(super) fn load(&self, index: u32) -> Tag {
        Storage::tag(self, index)
    }

    /// Appends the slots of all flows whose home slots are in `homes`, each with its tag.
    pub(super) fn list(&self, homes: Range<u32>, found: &mut Vec<(u32, Tag)>) {
        let first = found.len();
        for home in homes {
            let entry = DirectoryEntry(self.entry_of(home).load(Ordering::Relaxed));
            found.extend(entry.slots(home, self.slot_count()).map(|index| (index, Tag(0))));
        }
        // In a loop of their own, so that the cache misses overlap.
        for (index, tag) in &mut found[first..] {
            *tag = Tag(self.tag_of(*index).load(Ordering::Relaxed));
        }
        fence(Ordering::Acquire);
    }

    /// Loads every cache line of a slot and its record, so that later accesses hit the cache.
    pub(super) fn prefetch(&self, index: u32) {
        let (slot, record) = (self.slots.at(index).cast::<u8>(), self.records.at(index).cast::<u8>());
        let lines = (0..size_of::<Slot<K>>()).step_by(LINE).map(|at| slot.wrapping_add(at));
        for line in lines.chain((0..size_of::<Record>()).step_by(LINE).map(|at| record.wrapping_add(at))) {
            // SAFETY: `line` is inside the slot or the record, both of which are mapped. The value is not
            // used.
            unsafe { ptr::read_volatile(line) };
        }
    }

    fn tag_of(&self, index: u32) -> &AtomicU64 {
        // SAFETY: the tag is the first field of a mapped slot and 8-byte aligned. Kernel programs and agent
        // change it by 64-bit stores and atomic instructions only.
        unsafe { AtomicU64::from_ptr(self.slots.at(index).cast::<u64>()) }
    }

    fn entry_of(&self, home: u32) -> &AtomicU64 {
        // SAFETY: a mapped, 8-byte aligned integer. Kernel programs and agent change it by atomic
        // instructions only.
        unsafe { AtomicU64::from_ptr(self.directory.at(home)) }
    }
}

impl<K: TableKey> Storage for &FamilyTable<K> {
    type Key = K;
    type Slot = u32;

    const LOCK_TRIES: u32 = 10_000;

    fn pause(self) {
        std::hint::spin_loop();
    }

    fn slot_count(self) -> u32 {
        self.slots.len
    }

    fn slot(self, index: u32) -> Option<u32> {
        (index < self.slots.len).then_some(index)
    }

    fn tag(self, index: u32) -> Tag {
        Tag(self.tag_of(index).load(Ordering::Acquire))
    }

    fn swap_tag(self, index: u32, from: Tag, to: Tag) -> bool {
        self.tag_of(index).compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn store_tag(self, index: u32, tag: Tag) {
        self.tag_of(index).store(tag.0, Ordering::Release);
    }

    fn has_key(self, index: u32, key: &K) -> bool {
        // SAFETY: a pointer into the mapping, to plain integers. The protocol compares the tag again before
        // it relies on a key that may be torn.
        unsafe { ptr::read_volatile(&raw const (*self.slots.at(index)).key) == *key }
    }

    fn set_key(self, index: u32, key: &K) {
        // SAFETY: a pointer into the mapping. The caller has locked the slot, so nothing else writes the key.
        unsafe { (&raw mut (*self.slots.at(index)).key).write(*key) };
    }

    fn last_ns(self, index: u32) -> u64 {
        // SAFETY: a pointer into the mapping, to an aligned integer. A stale value only affects which flow is
        // evicted.
        unsafe { ptr::read_volatile(&raw const (*self.slots.at(index)).prediction.last_ns) }
    }

    fn directory_entry(self, home: u32) -> Option<DirectoryEntry> {
        (home < self.directory.len).then(|| DirectoryEntry(self.entry_of(home).load(Ordering::Acquire)))
    }

    fn swap_directory_entry(self, home: u32, from: DirectoryEntry, to: DirectoryEntry) -> bool {
        self.entry_of(home).compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn add_to_directory_entry(self, home: u32, amount: u64) {
        self.entry_of(home).fetch_add(amount, Ordering::SeqCst);
    }
}

/// A slot that the agent has locked.
pub(super) struct LockedSlot<'a, K> {
    table: &'a FamilyTable<K>,
    index: u32,
    pub(super) slot: &'a mut Slot<K>,
    pub(super) record: &'a mut Record,
}

impl<K: TableKey> LockedSlot<'_, K> {
    /// Unlocks the slot, or removes its flow. Returns the new tag.
    pub(super) fn release(&mut self, remove: bool) -> Tag {
        let phase =
            if remove { Tag::FREE } else { table::phase_of(&mut self.slot.prediction, &self.record.flow) };
        let tag = self.table.load(self.index).next(phase);
        if remove {
            table::remove(self.table, self.index);
        } else {
            table::unlock(self.table, self.index, phase);
        }
        tag
    }
}

/// Size of a cache line, in bytes.
const LINE: usize = 64;
/// Tries to copy a slot. A kernel program keeps a slot locked for well under a microsecond.
const READ_TRIES: u32 = 10_000;
/// How often [`FamilyTable::lock`] yields the CPU and tries [`Storage::LOCK_TRIES`] times again.
const LOCK_ROUNDS: u32 = 100;
