//! The flow table: how kernel programs and agent find, lock, insert, evict and remove flows at the same time.
//!
//! `docs/FLOW_TABLE.md` describes the protocol. It is written once, over [`Storage`], and runs on three kinds of
//! storage: the kernel programs' maps, the agent's mapping of these maps, and the memory of a model checker that
//! tries every interleaving.

mod layout;
mod phase;
mod protocol;

pub use layout::{DirectoryEntry, HomeSlot, Tag};
pub use phase::{phase_of, phase_without_prediction};
pub use protocol::{
    Lookup, PredictedLookup, Victim, find, get_or_insert, lock, make_room, predicted_at, remove,
    reserve_free, try_lock, unlock,
};

use crate::key::TableKey;

/// Maximum number of slots that are probed for one flow.
pub const MAX_PROBES: u32 = 56;
/// Maximum number of flows of one home slot. A home slot has 0.75 flows on average in a full table.
pub const MAX_BUCKET_SCAN: u32 = 16;
/// Probes after which an insertion stops looking for a free slot if it has met a flow that it may evict.
pub const EVICT_AFTER: u32 = 8;
/// Minimum size of a table, in slots. It keeps the probes of a flow from wrapping onto a slot they already visited.
pub const MIN_SLOTS: u32 = 2048;
/// No slot, or no probe. No table is this large.
pub const NO_SLOT: u32 = u32::MAX;

const _: () = assert!(MIN_SLOTS > MAX_PROBES * (MAX_PROBES - 1) / 2);

/// Returns the size of a table, in slots, that always has room for this number of flows: four slots for three flows.
pub const fn slots_for(flows: u32) -> u32 {
    let slots = flows as u64 * 4 / 3 + 1;
    if slots < MIN_SLOTS as u64 {
        MIN_SLOTS
    } else if slots > 1 << 31 {
        1 << 31
    } else {
        slots as u32
    }
}

/// Access to the memory of one table.
///
/// `tag` and `directory_entry` are acquire loads and `store_tag` is a release store. The compare-and-swaps and
/// `add_to_directory_entry` are sequentially consistent.
pub trait Storage: Copy {
    /// The key by which flows are found.
    type Key: TableKey;
    /// A slot that is known to exist.
    type Slot: Copy;

    /// How often [`lock`] tries to lock a slot before it gives up.
    const LOCK_TRIES: u32;

    /// Waits for a moment between two tries to lock a slot.
    fn pause(self);

    /// Returns the size of the table, in slots.
    fn slot_count(self) -> u32;
    /// Returns the slot with this index.
    fn slot(self, index: u32) -> Option<Self::Slot>;

    /// Loads the tag of a slot.
    fn tag(self, slot: Self::Slot) -> Tag;
    /// Replaces the tag by `to` if it is `from`. Returns whether it did.
    fn swap_tag(self, slot: Self::Slot, from: Tag, to: Tag) -> bool;
    /// Stores the tag of a slot that the caller has locked, after everything that the caller wrote before.
    fn store_tag(self, slot: Self::Slot, tag: Tag);

    /// Returns whether the slot has this key. The answer is meaningless while another thread writes the key.
    fn has_key(self, slot: Self::Slot, key: &Self::Key) -> bool;
    /// Writes the key of a slot that the caller has locked.
    fn set_key(self, slot: Self::Slot, key: &Self::Key);
    /// Returns when the last segment of the slot's flow was seen, in ns. Meaningless while the slot is locked.
    fn last_ns(self, slot: Self::Slot) -> u64;

    /// Loads the directory entry of a home slot.
    fn directory_entry(self, home: u32) -> Option<DirectoryEntry>;
    /// Replaces the directory entry by `to` if it is `from`. Returns whether it did.
    fn swap_directory_entry(self, home: u32, from: DirectoryEntry, to: DirectoryEntry) -> bool;
    /// Adds `amount` to the directory entry, wrapping.
    fn add_to_directory_entry(self, home: u32, amount: u64);
}
