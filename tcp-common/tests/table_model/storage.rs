//! A table of a few slots, each access of which the model checker may delay, reorder or let others come before, as the
//! C11 memory model allows.

#![allow(unreachable_pub, reason = "a module of a test")]

use std::collections::HashMap;
use std::sync::Mutex;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use tcp_common::table::{DirectoryEntry, HomeSlot, MIN_SLOTS, Storage, Tag};
use tcp_common::{Endpoint, FlowKey, FlowKey4, Secret, TableKey as _};

/// A slot. The flow is written and read by who holds it, and by nobody else: the checker sees to that.
struct Slot {
    tag: AtomicU64,
    key: [AtomicU64; 2],
    /// Predicted segments that are not in the flow yet.
    predicted: AtomicU64,
    flow: UnsafeCell<Flow>,
}

/// What stands for a flow: whose it is, how many segments it was given, and in which phase it was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub owner: u32,
    pub segments: u64,
    pub phase: u64,
}

/// The table, and what became of flows that left it. The book is no part of what is checked.
pub struct Table {
    slots: HashMap<u32, Slot>,
    directory: HashMap<u32, AtomicU64>,
    /// Segments of flows that are gone, by key.
    pub gone: Mutex<HashMap<u32, u64>>,
}

/// Numbers of keys whose home is the same slot, so many of them, and that home.
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
    /// With these slots and no others, and the directory of these homes.
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

    /// The flow, for who holds the slot.
    pub fn change<R>(&self, index: u32, change: impl FnOnce(&mut Flow) -> R) -> R {
        // SAFETY: that nobody else has it is what the checker checks.
        self.slots[&index].flow.with_mut(|flow| change(unsafe { &mut *flow }))
    }

    /// How many predicted segments there are; means nothing while somebody holds the slot.
    pub fn predicted(&self, index: u32) -> u64 {
        self.slots[&index].predicted.load(Relaxed)
    }

    /// Takes a predicted segment, for who holds the slot.
    pub fn predict(&self, index: u32) {
        let predicted = &self.slots[&index].predicted;
        predicted.store(predicted.load(Relaxed) + 1, Relaxed);
    }

    /// Writes what was predicted back to the flow, for who holds the slot.
    pub fn settle(&self, index: u32) {
        let predicted = &self.slots[&index].predicted;
        let count = predicted.load(Relaxed);
        predicted.store(0, Relaxed);
        self.change(index, |flow| flow.segments += count);
    }

    /// Notes that a flow is no longer in the table, for who holds its slot.
    pub fn note_gone(&self, index: u32) {
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

    /// Whether a home's entry lists a flow at this slot.
    pub fn lists(&self, index: u32, probe: u32) -> bool {
        let home = HomeSlot::of_slot(index, probe, MIN_SLOTS);
        self.directory.get(&home.index).is_some_and(|entry| DirectoryEntry(entry.load(Acquire)).has(probe))
    }

    /// How many flows are listed.
    pub fn listed(&self) -> u32 {
        self.directory.values().map(|entry| DirectoryEntry(entry.load(Acquire)).probes().count_ones()).sum()
    }
}

impl Storage for &Table {
    type Key = FlowKey4;
    type Slot = u32;

    /// Twice: once is too soon, and then it is deferred.
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
