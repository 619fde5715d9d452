//! A table of a few slots whose every access the model checker may delay, reorder or precede by others,
//! within the C11 memory model.

#![allow(unreachable_pub, reason = "a module of a test")]

use std::collections::HashMap;
use std::sync::Mutex;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use tcp_common::table::{DirectoryEntry, HomeSlot, MIN_SLOTS, Storage, Tag};
use tcp_common::{Endpoint, FlowKey, FlowKey4, Secret, TableKey as _};

/// A slot. Only the holder of its lock reads or writes the flow: the checker enforces that.
struct Slot {
    tag: AtomicU64,
    key: [AtomicU64; 2],
    /// Predicted segments that are not in the flow yet.
    predicted: AtomicU64,
    flow: UnsafeCell<Flow>,
}

/// Stands for a flow: its key, the segments applied to it, and the phase in which it was unlocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub owner: u32,
    pub segments: u64,
    pub phase: u64,
}

/// The table, and the counts of flows that left it. The counts are not part of the model.
pub struct Table {
    slots: HashMap<u32, Slot>,
    directory: HashMap<u32, AtomicU64>,
    /// Segments of removed flows, by key.
    pub gone: Mutex<HashMap<u32, u64>>,
}

/// The numbers of `count` keys with the same home slot, and that slot.
pub fn neighbours(count: usize) -> (Vec<u32>, HomeSlot) {
    let home = home_of(0);
    ((0..).filter(|&number| home_of(number) == home).take(count).collect(), home)
}

pub fn home_of(number: u32) -> HomeSlot {
    HomeSlot::of(&key(number), &Secret([[0x5eed_0ff1, 0x0a7a_b1e5]; 5]), MIN_SLOTS)
}

pub fn key(number: u32) -> FlowKey4 {
    let [a, b, c, d] = number.to_be_bytes();
    let client = Endpoint::v4([10, 8, a, b], u16::from_be_bytes([c, d]));
    FlowKey4::of(&FlowKey::new(client, Endpoint::v4([10, 9, 0, 2], 80), 0, 4).0)
}

impl Table {
    /// A table of these slots only, with the directory entries of these home slots.
    pub fn new(slots: &[u32], homes: &[HomeSlot]) -> Table {
        let slot = |_| Slot {
            tag: AtomicU64::new(0),
            key: [AtomicU64::new(0), AtomicU64::new(0)],
            predicted: AtomicU64::new(0),
            flow: UnsafeCell::new(Flow::default()),
        };
        Table {
            slots: slots.iter().map(|&index| (index, slot(index))).collect(),
            directory: homes.iter().map(|home| (home.index, AtomicU64::new(0))).collect(),
            gone: Mutex::default(),
        }
    }

    /// Accesses the flow; the caller holds the lock of the slot.
    pub fn change<R>(&self, index: u32, change: impl FnOnce(&mut Flow) -> R) -> R {
        // SAFETY: the model checker reports any other access at the same time.
        self.slots[&index].flow.with_mut(|flow| change(unsafe { &mut *flow }))
    }

    /// The number of predicted segments; meaningless while the slot is locked.
    pub fn predicted(&self, index: u32) -> u64 {
        self.slots[&index].predicted.load(Relaxed)
    }

    /// Counts a predicted segment; the caller holds the lock of the slot.
    pub fn predict(&self, index: u32) {
        let predicted = &self.slots[&index].predicted;
        predicted.store(predicted.load(Relaxed) + 1, Relaxed);
    }

    /// Adds the predicted segments to the flow; the caller holds the lock of the slot.
    pub fn flush(&self, index: u32) {
        let predicted = &self.slots[&index].predicted;
        let count = predicted.load(Relaxed);
        predicted.store(0, Relaxed);
        self.change(index, |flow| flow.segments += count);
    }

    /// Records that the flow left the table; the caller holds the lock of its slot.
    pub fn record_removed(&self, index: u32) {
        let flow = self.change(index, |flow| *flow);
        *self.gone.lock().expect("no panic").entry(flow.owner).or_default() += flow.segments;
    }

    /// Every slot and its tag.
    pub fn tags(&self) -> Vec<(u32, Tag)> {
        let mut tags: Vec<_> =
            self.slots.iter().map(|(&index, slot)| (index, Tag(slot.tag.load(Acquire)))).collect();
        tags.sort_by_key(|&(index, _)| index);
        tags
    }

    /// Whether the directory lists a flow at this slot, reached from its home slot by `probe`.
    pub fn lists(&self, index: u32, probe: u32) -> bool {
        let home = HomeSlot::of_slot(index, probe, MIN_SLOTS);
        self.directory.get(&home.index).is_some_and(|entry| DirectoryEntry(entry.load(Acquire)).has(probe))
    }

    /// The number of flows in the directory.
    pub fn listed(&self) -> u32 {
        self.directory.values().map(|entry| DirectoryEntry(entry.load(Acquire)).probes().count_ones()).sum()
    }
}

impl Storage for &Table {
    type Key = FlowKey4;
    type Slot = u32;

    /// Two attempts, so that a segment is deferred only after one retry.
    const LOCK_TRIES: u32 = 2;

    fn pause(self) {}

    fn slot_count(self) -> u32 {
        MIN_SLOTS
    }

    fn slot(self, index: u32) -> Option<u32> {
        self.slots.contains_key(&index).then_some(index)
    }

    fn tag(self, index: u32) -> Tag {
        Tag(self.slots[&index].tag.load(Acquire))
    }

    fn swap_tag(self, index: u32, from: Tag, to: Tag) -> bool {
        self.slots[&index].tag.compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    fn store_tag(self, index: u32, tag: Tag) {
        self.slots[&index].tag.store(tag.0, Release);
    }

    fn has_key(self, index: u32, key: &FlowKey4) -> bool {
        let [addresses, ports] = &self.slots[&index].key;
        addresses.load(Relaxed) == key.addresses && ports.load(Relaxed) == key.ports
    }

    fn set_key(self, index: u32, key: &FlowKey4) {
        let [addresses, ports] = &self.slots[&index].key;
        addresses.store(key.addresses, Relaxed);
        ports.store(key.ports, Relaxed);
    }

    fn last_ns(self, _: u32) -> u64 {
        0
    }

    fn directory_entry(self, home: u32) -> Option<DirectoryEntry> {
        self.directory.get(&home).map(|entry| DirectoryEntry(entry.load(Acquire)))
    }

    fn swap_directory_entry(self, home: u32, from: DirectoryEntry, to: DirectoryEntry) -> bool {
        self.directory[&home].compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    fn add_to_directory_entry(self, home: u32, amount: u64) {
        self.directory[&home].fetch_add(amount, AcqRel);
    }
}
