//! The flow tables of both families as one. Reading, expiring and listing flows needs no system calls.

use std::ops::{Deref, DerefMut, Range};
use std::ptr;

use tcp_common::record::{Counters, Event, Record, Sighting};
use tcp_common::table::{NO_SLOT, Tag};
use tcp_common::{Flow, FlowKey, FlowKey4, Outcome, Rules, Secret, TableKey};

use super::family_table::{FamilyTable, LockedSlot};

/// The mapped flow tables. Slots are numbered through: first those of IPv4, then those of IPv6.
pub struct Table {
    v4: FamilyTable<FlowKey4>,
    v6: FamilyTable<FlowKey>,
    rated: [u32; 2],
    secret: Secret,
}

/// A consistent copy of one flow in the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Index of the slot.
    pub index: u32,
    /// The flow's key.
    pub key: FlowKey,
    /// The hook to report for the flow, as [`Record::hook`] returns it.
    pub hook: u32,
    /// VLAN tags of each end's packets, as in [`Sightings::tags`](tcp_common::record::Sightings::tags).
    pub tags: [u32; 2],
    /// The flow.
    pub flow: Flow,
}

/// Returns the eviction class of an unlocked flow in this phase: 0 half-open, which is evicted first; 1 live,
/// which is never evicted; 2 closed or in TIME-WAIT.
pub const fn class(phase: u64) -> Option<usize> {
    match phase {
        Tag::HALF_OPEN => Some(0),
        Tag::LIVE | Tag::PREDICTED => Some(1),
        Tag::TIME_WAIT | Tag::CLOSED => Some(2),
        _ => None,
    }
}

/// A flow whose slot the agent has locked. Dropping the guard unlocks the slot.
pub struct SlotGuard<'a> {
    locked: LockedFlow<'a>,
    remove: bool,
}

enum LockedFlow<'a> {
    V4(LockedSlot<'a, FlowKey4>),
    V6(LockedSlot<'a, FlowKey>),
}

impl Table {
    pub(super) fn new(
        v4: FamilyTable<FlowKey4>,
        v6: FamilyTable<FlowKey>,
        rated: [u32; 2],
        secret: Secret,
    ) -> Table {
        Table { v4, v6, rated, secret }
    }

    /// Returns the number of slots of both families.
    pub fn slot_count(&self) -> u32 {
        self.v4.slot_count() + self.v6.slot_count()
    }

    /// Returns the size of the mapped memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    /// Counts the slots of each family in each [`Tag`] phase.
    pub fn phases(&self) -> [[u32; Tag::PHASES]; 2] {
        [self.v4.phases(), self.v6.phases()]
    }

    /// Returns the slot that an event names. Finds the flow by its key if the event names none.
    pub fn index_of(&self, event: &Event) -> Option<u32> {
        let first = if event.key.family == 4 { 0 } else { self.v4.slot_count() };
        if event.slot == NO_SLOT { self.find(&event.key) } else { Some(first + event.slot) }
    }

    /// Finds the slot of a flow, as the kernel programs do.
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        if key.family == 4 {
            self.v4.find(&FlowKey4::of(key), &self.secret)
        } else {
            Some(self.v4.slot_count() + self.v6.find(key, &self.secret)?)
        }
    }

    /// Returns a consistent copy of every flow, read one after the other.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.slot_count()).filter_map(|index| self.read(index))
    }

    /// Returns the number of flows that each family always has room for: IPv4, IPv6.
    pub fn capacities(&self) -> [u32; 2] {
        self.rated
    }

    /// Returns the family of a slot: 0 for IPv4, 1 for IPv6.
    pub fn family(&self, index: u32) -> usize {
        usize::from(index >= self.v4.slot_count())
    }

    /// Appends the slots of all flows whose home slots are in `homes`, each with its tag. Every flow has one
    /// home slot.
    pub fn list(&self, homes: Range<u32>, found: &mut Vec<(u32, Tag)>) {
        let in_v4 = self.v4.slot_count();
        self.v4.list(homes.start.min(in_v4)..homes.end.min(in_v4), found);
        let first = found.len();
        self.v6.list(homes.start.max(in_v4) - in_v4..homes.end.max(in_v4) - in_v4, found);
        found[first..].iter_mut().for_each(|(index, _)| *index += in_v4);
    }

    /// Loads a slot and its record into this CPU's cache. The cache misses of several calls overlap.
    pub fn prefetch(&self, index: u32) {
        match index.checked_sub(self.v4.slot_count()) {
            None => self.v4.prefetch(index),
            Some(in_v6) => self.v6.prefetch(in_v6),
        }
    }

    /// Returns the tag of a slot. It changes with every change of the flow, except for predicted segments.
    pub fn tag(&self, index: u32) -> Tag {
        match index.checked_sub(self.v4.slot_count()) {
            None => self.v4.load(index),
            Some(in_v6) => self.v6.load(in_v6),
        }
    }

    /// Returns a consistent copy of a slot's flow, or `None` if the slot is free.
    pub fn read(&self, index: u32) -> Option<Entry> {
        match index.checked_sub(self.v4.slot_count()) {
            None => self.v4.read(index).map(|(key, record)| entry(index, key.flow_key(), &record)),
            Some(in_v6) => self.v6.read(in_v6).map(|(key, record)| entry(index, key, &record)),
        }
    }

    /// Locks a slot, unless it is free or locked.
    pub fn try_lock(&self, index: u32) -> Option<SlotGuard<'_>> {
        let locked = match index.checked_sub(self.v4.slot_count()) {
            None => LockedFlow::V4(self.v4.try_lock(index)?),
            Some(in_v6) => LockedFlow::V6(self.v6.try_lock(in_v6)?),
        };
        Some(SlotGuard { locked, remove: false })
    }

    /// Locks the flow of an event in the slot where it was found. Waits a few milliseconds at most.
    ///
    /// Returns `None` if the flow is no longer there.
    pub fn lock(&self, index: u32, event: &Event) -> Option<SlotGuard<'_>> {
        let locked = match index.checked_sub(self.v4.slot_count()) {
            None => LockedFlow::V4(self.v4.lock(index, &FlowKey4::of(&event.key))?),
            Some(in_v6) => LockedFlow::V6(self.v6.lock(in_v6, &event.key)?),
        };
        Some(SlotGuard { locked, remove: false })
    }

    /// Inserts an empty flow and locks its slot. Evicts nothing.
    ///
    /// Returns `None` if the flow exists, or no slot is free.
    pub fn insert(&self, key: &FlowKey) -> Option<SlotGuard<'_>> {
        let locked = if key.family == 4 {
            LockedFlow::V4(self.v4.insert(&FlowKey4::of(key), &self.secret)?)
        } else {
            LockedFlow::V6(self.v6.insert(key, &self.secret)?)
        };
        Some(SlotGuard { locked, remove: false })
    }

    /// Removes every flow. For tests, while no program runs.
    pub fn clear(&self) {
        self.v4.clear();
        self.v6.clear();
    }
}

fn entry(index: u32, key: FlowKey, record: &Record) -> Entry {
    Entry { index, key, hook: record.hook(), tags: record.sightings.tags, flow: record.flow }
}

impl LockedFlow<'_> {
    fn release(&mut self, remove: bool) -> Tag {
        match self {
            LockedFlow::V4(locked) => locked.release(remove),
            LockedFlow::V6(locked) => locked.release(remove),
        }
    }
}

impl SlotGuard<'_> {
    /// Returns the flow's key.
    pub fn key(&self) -> FlowKey {
        match &self.locked {
            LockedFlow::V4(locked) => locked.slot.key.flow_key(),
            LockedFlow::V6(locked) => locked.slot.key,
        }
    }

    /// Applies a segment as the kernel programs do, see [`Record::observe`]. `None` if it does not count.
    pub fn observe(&mut self, seen: &Sighting<'_>, rules: &Rules) -> Option<Outcome> {
        let (record, prediction) = match &mut self.locked {
            LockedFlow::V4(locked) => (&mut *locked.record, &mut locked.slot.prediction),
            LockedFlow::V6(locked) => (&mut *locked.record, &mut locked.slot.prediction),
        };
        record.observe(prediction, seen, rules).ok()
    }

    /// Returns the hook to report for the flow, as [`Record::hook`] does.
    pub fn hook(&self) -> u32 {
        self.record().hook()
    }

    /// Returns the VLAN tags of each end's packets, as in [`Sightings::tags`](tcp_common::record::Sightings::tags).
    pub fn tags(&self) -> [u32; 2] {
        self.record().sightings.tags
    }

    fn record(&self) -> &Record {
        match &self.locked {
            LockedFlow::V4(locked) => locked.record,
            LockedFlow::V6(locked) => locked.record,
        }
    }

    /// Unlocks the slot, as dropping the guard does. Returns the new tag.
    pub fn unlock(mut self) -> Tag {
        let tag = self.locked.release(false);
        // Its drop would unlock the slot again. Nothing else in it needs to be dropped.
        std::mem::forget(self);
        tag
    }

    /// Removes the flow and frees the slot.
    pub fn remove(mut self) {
        self.remove = true;
    }
}

impl Deref for SlotGuard<'_> {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        &self.record().flow
    }
}

impl DerefMut for SlotGuard<'_> {
    fn deref_mut(&mut self) -> &mut Flow {
        match &mut self.locked {
            LockedFlow::V4(locked) => &mut locked.record.flow,
            LockedFlow::V6(locked) => &mut locked.record.flow,
        }
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        self.locked.release(self.remove);
    }
}

/// Sums counters field by field. All their fields are made of `u64`.
pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Counters>) -> Counters {
    const WORDS: usize = size_of::<Counters>() / size_of::<u64>();
    let mut total = [0u64; WORDS];
    for counters in all {
        // SAFETY: `Counters` is `#[repr(C)]` and all its fields are made of `u64`, so it has the layout of
        // this array.
        let words: &[u64; WORDS] = unsafe { &*ptr::from_ref(counters).cast() };
        for (sum, word) in total.iter_mut().zip(words) {
            *sum += word;
        }
    }
    // SAFETY: `Counters` has the layout of this array, and any content is valid.
    unsafe { ptr::read(total.as_ptr().cast::<Counters>()) }
}
