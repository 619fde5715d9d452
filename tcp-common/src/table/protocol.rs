//! The operations on the table. The order of the memory accesses in each of them is part of the protocol.

use super::{DirectoryEntry, EVICT_AFTER, HomeSlot, MAX_BUCKET_SCAN, MAX_PROBES, NO_SLOT, Storage, Tag};

/// Returns the slot of a flow, or [`NO_SLOT`].
///
/// `seen` is set to the directory entry that was read. As long as the entry does not change, a flow that was not
/// found is not in the table.
#[inline(always)]
pub fn find<S: Storage>(storage: S, key: &S::Key, home: HomeSlot, seen: &mut DirectoryEntry) -> u32 {
    let Some(entry) = storage.directory_entry(home.index) else { return NO_SLOT };
    *seen = entry;
    let mut probes = entry.probes();
    for _ in 0..MAX_BUCKET_SCAN {
        if probes == 0 {
            break;
        }
        let index = home.slot_at(probes.trailing_zeros());
        probes &= probes - 1;
        if let Some(slot) = storage.slot(index)
            && storage.has_key(slot, key)
        {
            return index;
        }
    }
    NO_SLOT
}

/// The result of [`predicted_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictedLookup<S> {
    /// The flow is in this slot and `PREDICTED`. The tag was loaded before the key was compared.
    Found(S, Tag),
    /// The flow is in another slot or not in the table.
    Elsewhere,
    /// The flow is in this slot and in another phase.
    NotPredicted,
}

/// Finds a `PREDICTED` flow in one slot. Reads nothing but the slot's own cache line.
#[inline(always)]
pub fn predicted_at<S: Storage>(storage: S, key: &S::Key, index: u32) -> PredictedLookup<S::Slot> {
    let Some(slot) = storage.slot(index) else { return PredictedLookup::NotPredicted };
    let tag = storage.tag(slot);
    if !storage.has_key(slot, key) {
        return PredictedLookup::Elsewhere;
    }
    match tag.phase() {
        Tag::PREDICTED => PredictedLookup::Found(slot, tag),
        Tag::FREE | Tag::KERNEL_LOCKED | Tag::AGENT_LOCKED => PredictedLookup::Elsewhere,
        _ => PredictedLookup::NotPredicted,
    }
}

/// Locks the slot of a flow, in a bounded number of tries. `locked` is the phase of the locked slot.
///
/// Returns the tag of the unlocked slot. Returns a `FREE` tag if the flow is no longer in this slot, and a
/// `KERNEL_LOCKED` one if another thread kept the slot locked.
#[inline(always)]
pub fn lock<S: Storage>(storage: S, slot: S::Slot, key: &S::Key, locked: u64) -> Tag {
    let mut before = Tag(Tag::KERNEL_LOCKED);
    for _ in 0..S::LOCK_TRIES {
        let tag = storage.tag(slot);
        if tag.phase() == Tag::FREE {
            return tag;
        }
        if tag.is_unlocked() && storage.swap_tag(slot, tag, tag.next(locked)) {
            before = tag;
            break;
        }
        storage.pause();
    }
    if before.is_unlocked() && !storage.has_key(slot, key) {
        // The slot was reused for another flow.
        storage.store_tag(slot, before.next(locked).next(before.phase()));
        return Tag(Tag::FREE);
    }
    before
}

/// Locks a slot for whichever flow it holds, unless it is free or locked. Returns the tag of the unlocked slot.
#[inline(always)]
pub fn try_lock<S: Storage>(storage: S, slot: S::Slot, locked: u64) -> Option<Tag> {
    let tag = storage.tag(slot);
    (tag.is_unlocked() && storage.swap_tag(slot, tag, tag.next(locked))).then_some(tag)
}

/// Unlocks a slot that the caller has locked. `phase` is the flow's new phase.
#[inline(always)]
pub fn unlock<S: Storage>(storage: S, slot: S::Slot, phase: u64) {
    storage.store_tag(slot, storage.tag(slot).next(phase));
}

/// The result of [`get_or_insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The flow is in this slot, which the caller has locked. The tag is that of the unlocked slot.
    Found(u32, Tag),
    /// An empty flow was inserted into this slot, which the caller has locked.
    Inserted(u32),
    /// The flow is in this slot, and another thread kept it locked.
    Locked(u32),
    /// The flow is not in the table, and the caller did not want to insert it.
    Absent,
    /// The flow is not in the table, and no slot is free or evictable.
    NoRoom,
    /// Other threads inserted or removed flows of the same home slot during each try.
    Contended,
}

/// Locks the flow of a key. Inserts an empty flow if there is none and `inserts` is true.
///
/// `room` calls [`make_room`] and handles the evicted flow. `retry` is called if an insertion failed because the
/// directory entry had changed. The function tries twice. It has no loop because of the verifier of Linux 6.1
/// (see `reserve_if_free`).
#[inline(always)]
pub fn get_or_insert<S: Storage>(
    storage: S,
    key: &S::Key,
    home: HomeSlot,
    inserts: bool,
    mut room: impl FnMut() -> u32,
    mut retry: impl FnMut(),
) -> Lookup {
    match try_get_or_insert(storage, key, home, inserts, &mut room, &mut retry) {
        Lookup::Contended => try_get_or_insert(storage, key, home, inserts, &mut room, &mut retry),
        lookup => lookup,
    }
}

#[inline(always)]
fn try_get_or_insert<S: Storage>(
    storage: S,
    key: &S::Key,
    home: HomeSlot,
    inserts: bool,
    room: &mut impl FnMut() -> u32,
    retry: &mut impl FnMut(),
) -> Lookup {
    let mut seen = DirectoryEntry(0);
    let index = find(storage, key, home, &mut seen);
    if index != NO_SLOT {
        let Some(slot) = storage.slot(index) else { return Lookup::Absent };
        let before = lock(storage, slot, key, Tag::KERNEL_LOCKED);
        return match before.phase() {
            // Removed since it was found.
            Tag::FREE => Lookup::Contended,
            Tag::KERNEL_LOCKED => Lookup::Locked(index),
            _ => Lookup::Found(index, before),
        };
    }
    if !inserts {
        return Lookup::Absent;
    }
    let probe = room();
    if probe == NO_SLOT {
        return Lookup::NoRoom;
    }
    if insert(storage, key, home, probe, seen) {
        return Lookup::Inserted(home.slot_at(probe));
    }
    retry();
    Lookup::Contended
}

/// The flow to evict for a new one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Victim {
    /// Tag of its slot.
    pub tag: Tag,
    last_ns: u64,
    /// Probe of the new flow that leads to the slot, or [`NO_SLOT`] if no flow is to be evicted.
    pub probe: u32,
}

impl Victim {
    /// No victim.
    pub const NONE: Victim = Victim { probe: NO_SLOT, tag: Tag(Tag::LIVE), last_ns: 0 };

    /// Replaces the victim by a less valuable one. Not inlined, because the verifier would follow every order in
    /// which candidates may be met.
    #[inline(never)]
    fn consider(&mut self, tag: Tag, last_ns: u64, probe: u32) {
        let (worth, least) = (tag.phase(), self.tag.phase());
        if worth < least || (worth == least && last_ns < self.last_ns) {
            *self = Victim { probe, tag, last_ns };
        }
    }
}

/// Locks a slot for a new flow: a free one, or that of an evicted flow. No other thread can find the slot.
///
/// Returns the probe, or [`NO_SLOT`]. If `victim` is set, its record stays in the slot until it is overwritten.
#[inline(always)]
pub fn make_room<S: Storage>(storage: S, home: HomeSlot, victim: &mut Victim) -> u32 {
    *victim = Victim::NONE;
    let probe = reserve_free(storage, home, victim);
    if probe != NO_SLOT {
        *victim = Victim::NONE;
        return probe;
    }
    if victim.probe != NO_SLOT && evict(storage, home, victim) { victim.probe } else { NO_SLOT }
}

/// Locks a free slot for a new flow. Returns the probe, or [`NO_SLOT`].
///
/// If there is no free slot, `victim` is the least valuable flow that may be evicted: a closed one before a
/// half-open one before one in TIME-WAIT, and among equals the one that has been silent longest.
#[inline(always)]
pub fn reserve_free<S: Storage>(storage: S, home: HomeSlot, victim: &mut Victim) -> u32 {
    for probe in 0..MAX_PROBES {
        if reserve_if_free(storage, home, probe, victim) {
            return probe;
        }
        if probe + 1 >= EVICT_AFTER && victim.probe != NO_SLOT {
            break;
        }
    }
    NO_SLOT
}

/// Locks the slot at this probe if it is free, otherwise considers its flow as a victim.
///
/// Not inlined, because of the verifier of Linux 6.1. It requires that a loop jumps back, and the compiler may lay
/// out a longer body so that its end falls through to its beginning.
#[inline(never)]
fn reserve_if_free<S: Storage>(storage: S, home: HomeSlot, probe: u32, victim: &mut Victim) -> bool {
    let Some(slot) = storage.slot(home.slot_at(probe)) else { return false };
    let tag = storage.tag(slot);
    if tag.phase() == Tag::FREE {
        return storage.swap_tag(slot, tag, tag.locked_at(probe));
    }
    if tag.is_evictable() {
        victim.consider(tag, storage.last_ns(slot), probe);
    }
    false
}

/// Locks the victim's slot for a new flow and removes the victim from the directory.
#[inline(always)]
fn evict<S: Storage>(storage: S, home: HomeSlot, victim: &Victim) -> bool {
    let index = home.slot_at(victim.probe);
    let Some(slot) = storage.slot(index) else { return false };
    if !storage.swap_tag(slot, victim.tag, victim.tag.locked_at(victim.probe)) {
        return false;
    }
    remove_from_directory(storage, index, victim.tag.probe());
    true
}

/// Adds a flow, whose slot the caller has locked, to the directory. Frees the slot again if the directory entry is
/// no longer `seen`.
#[inline(never)]
fn insert<S: Storage>(storage: S, key: &S::Key, home: HomeSlot, probe: u32, seen: DirectoryEntry) -> bool {
    let Some(slot) = storage.slot(home.slot_at(probe)) else { return false };
    storage.set_key(slot, key);
    if seen.probes().count_ones() < MAX_BUCKET_SCAN
        && storage.swap_directory_entry(home.index, seen, seen.with(probe))
    {
        return true;
    }
    unlock(storage, slot, Tag::FREE);
    false
}

/// Removes the flow of a slot that the caller has locked, and frees the slot.
#[inline(always)]
pub fn remove<S: Storage>(storage: S, index: u32) {
    let Some(slot) = storage.slot(index) else { return };
    remove_from_directory(storage, index, storage.tag(slot).probe());
    unlock(storage, slot, Tag::FREE);
}

#[inline(always)]
fn remove_from_directory<S: Storage>(storage: S, index: u32, probe: u32) {
    let home = HomeSlot::of_slot(index, probe, storage.slot_count());
    storage.add_to_directory_entry(home.index, DirectoryEntry::without(probe));
}
