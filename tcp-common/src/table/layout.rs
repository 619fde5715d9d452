//! The two kinds of 64-bit words that the protocol changes atomically, and how slots are probed.

use super::MAX_PROBES;
use crate::key::{Secret, TableKey};

/// The tag of a slot: phase in bits 0..8, probe number in bits 8..16, version in bits 16..64.
///
/// The phase says who has locked the slot or, if it is unlocked, to which class its flow belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// The slot has no flow.
    pub const FREE: u64 = 0;
    /// A kernel program has locked the slot.
    pub const KERNEL_LOCKED: u64 = 1;
    /// The agent has locked the slot.
    pub const AGENT_LOCKED: u64 = 2;
    /// Unlocked; both ends are CLOSED.
    pub const CLOSED: u64 = 3;
    /// Unlocked; the connection has never been synchronized.
    pub const HALF_OPEN: u64 = 4;
    /// Unlocked; one end is in TIME-WAIT, the other one CLOSED or in TIME-WAIT.
    pub const TIME_WAIT: u64 = 5;
    /// Unlocked; any other flow.
    pub const LIVE: u64 = 6;
    /// Unlocked; like `LIVE`, and the flow's next segments are predicted.
    pub const PREDICTED: u64 = 7;
    /// Number of phases.
    pub const PHASES: usize = 8;

    /// Returns the phase.
    #[inline(always)]
    pub const fn phase(self) -> u64 {
        self.0 & 0xff
    }

    /// Returns whether the slot holds a flow and is not locked.
    #[inline(always)]
    pub const fn is_unlocked(self) -> bool {
        self.phase() >= Tag::CLOSED
    }

    /// Returns whether the slot is unlocked and its flow may be evicted.
    #[inline(always)]
    pub const fn is_evictable(self) -> bool {
        self.is_unlocked() && self.phase() < Tag::LIVE
    }

    /// Returns the probe by which the flow's key finds this slot. Meaningless if the slot is free.
    #[inline(always)]
    pub const fn probe(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff
    }

    /// Returns the tag of another phase, with the next version.
    #[inline(always)]
    pub const fn next(self, phase: u64) -> Tag {
        Tag(((self.0 & !0xff) | phase).wrapping_add(1 << 16))
    }

    /// Returns `next(KERNEL_LOCKED)` of a `PREDICTED` tag, by one addition.
    #[inline(always)]
    pub const fn lock_predicted(self) -> Tag {
        Tag(self.0.wrapping_add((1 << 16) - (Tag::PREDICTED - Tag::KERNEL_LOCKED)))
    }

    /// Returns `next(PREDICTED)` of a `KERNEL_LOCKED` tag, by one addition.
    #[inline(always)]
    pub const fn unlock_predicted(self) -> Tag {
        Tag(self.0.wrapping_add((1 << 16) + (Tag::PREDICTED - Tag::KERNEL_LOCKED)))
    }

    /// Returns a `KERNEL_LOCKED` tag for a flow that finds this slot by `probe`, with the next version.
    #[inline(always)]
    pub const fn locked_at(self, probe: u32) -> Tag {
        Tag(((self.0 & !0xffff) | (probe as u64) << 8 | Tag::KERNEL_LOCKED).wrapping_add(1 << 16))
    }
}

/// The directory entry of a home slot.
///
/// Bit `n` of bits 0..56 is set if probe `n` leads to a flow of this home slot. Bits 56..64 count insertions, so
/// that an entry differs from what it was before one flow was removed and another one inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry(pub u64);

impl DirectoryEntry {
    const ONE_INSERTION: u64 = 1 << MAX_PROBES;

    /// Returns the probes that lead to flows, as bits.
    #[inline(always)]
    pub const fn probes(self) -> u64 {
        self.0 & (DirectoryEntry::ONE_INSERTION - 1)
    }

    /// Returns whether this probe leads to a flow.
    #[inline(always)]
    pub const fn has(self, probe: u32) -> bool {
        self.0 >> (probe & 63) & 1 != 0
    }

    /// Returns the entry after a flow was inserted at this probe.
    #[inline(always)]
    pub const fn with(self, probe: u32) -> DirectoryEntry {
        DirectoryEntry((self.0 | 1 << (probe & 63)).wrapping_add(DirectoryEntry::ONE_INSERTION))
    }

    /// Returns the slots of this home slot's flows, in a table of `slot_count` slots.
    #[inline]
    pub fn slots(self, home: u32, slot_count: u32) -> impl Iterator<Item = u32> {
        let (home, mut probes) = (HomeSlot { index: home, slot_count }, self.probes());
        core::iter::from_fn(move || {
            let probe = probes.trailing_zeros();
            probes &= probes.wrapping_sub(1);
            (probe < u64::BITS).then(|| home.slot_at(probe))
        })
    }

    /// Returns the amount to add to an entry to remove the flow at this probe.
    #[inline(always)]
    pub const fn without(probe: u32) -> u64 {
        (1u64 << (probe & 63)).wrapping_neg()
    }
}

/// The slot where the probes of a key begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeSlot {
    /// Index of the slot and of its directory entry.
    pub index: u32,
    slot_count: u32,
}

impl HomeSlot {
    /// Returns the home slot of a key in a table of `slot_count` slots.
    #[inline(always)]
    pub fn of<K: TableKey>(key: &K, secret: &Secret, slot_count: u32) -> HomeSlot {
        HomeSlot { index: ((key.hash(secret) as u64 * slot_count as u64) >> 32) as u32, slot_count }
    }

    /// Returns the home slot whose probe `probe` is the slot `index`.
    #[inline(always)]
    pub const fn of_slot(index: u32, probe: u32, slot_count: u32) -> HomeSlot {
        let distance = distance(probe);
        let index = if index >= distance { index - distance } else { index + slot_count - distance };
        HomeSlot { index, slot_count }
    }

    /// Returns the slot of a probe. Distances grow, so that flows of neighbouring home slots do not pile up.
    #[inline(always)]
    pub const fn slot_at(self, probe: u32) -> u32 {
        let index = self.index + distance(probe);
        if index >= self.slot_count { index - self.slot_count } else { index }
    }
}

/// Returns the triangular number of a probe: 0, 1, 3, 6, 10, ...
#[inline(always)]
const fn distance(probe: u32) -> u32 {
    probe * (probe + 1) / 2
}
