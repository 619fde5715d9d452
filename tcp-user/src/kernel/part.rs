//! One family's flow table in memory that kernel and agent share.
//!
//! The protocol of a slot is told in [`tcp_common::record`]; this is the only place where the agent follows it.

use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use tcp_common::TableKey;
use tcp_common::record::{Hash, Slot, Tag, WINDOW};

use super::{KernelError, other};

/// The mapped table.
pub(super) struct Part<K> {
    memory: MmapRaw,
    slots: u32,
    // The map lives as long as somebody holds it.
    _map: MapData,
    key: PhantomData<K>,
}

// SAFETY: the memory is shared with the kernel anyway; every access goes through the tag's protocol or is a copy that
// the tag's version validates.
unsafe impl<K> Sync for Part<K> {}
// SAFETY: as above.
unsafe impl<K> Send for Part<K> {}

impl<K: TableKey> Part<K> {
    pub(super) fn map(map: Map, slots: u32) -> Result<Part<K>, KernelError> {
        let Map::Array(map) = map else {
            return Err(KernelError::NotSupported("a flow table is no array".into()));
        };
        let len = slots as usize * size_of::<Slot<K>>();
        let memory =
            MmapOptions::new().len(len).map_raw(&map.fd().as_fd()).map_err(other("mapping a flow table"))?;
        Ok(Part { memory, slots, _map: map, key: PhantomData })
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots as usize * size_of::<Slot<K>>()
    }

    /// How many slots are in use.
    pub(super) fn used(&self) -> u32 {
        (0..self.slots).filter(|&index| self.load(index).phase() >= Tag::LIVE).count() as u32
    }

    /// A consistent copy of a slot with its flow settled, or `None` where there is no flow.
    pub(super) fn read(&self, index: u32) -> Option<Slot<K>> {
        for _ in 0..READ_TRIES {
            let before = self.load(index);
            match before.phase() {
                Tag::LIVE | Tag::STEADY => {}
                Tag::BUSY => {
                    std::hint::spin_loop();
                    continue;
                }
                _ => return None,
            }
            // SAFETY: in bounds and mapped; the bytes are plain integers, and a torn copy is thrown away below.
            let mut copy = unsafe { ptr::read_volatile(self.slot(index)) };
            fence(Ordering::Acquire);
            if self.load(index) == before {
                if before.phase() == Tag::STEADY {
                    copy.prediction.settle(&mut copy.flow);
                }
                return Some(copy);
            }
        }
        None
    }

    /// The slot of a flow, found as the kernel programs find it; `seed` is the secret of the hash.
    pub(super) fn find(&self, key: &K, seed: u64) -> Option<u32> {
        let (hash, mask) = (Hash::of(key, seed), self.slots - 1);
        let window = (0..WINDOW).map(|step| hash.base(mask).wrapping_add(step) & mask);
        window.into_iter().find(|&index| {
            self.load(index).fingerprint() == hash.fingerprint()
                && self.read(index).is_some_and(|slot| slot.key == *key)
        })
    }

    /// Takes a slot that holds a flow, unless somebody else holds it right now.
    pub(super) fn own(&self, index: u32) -> Option<Held<'_, K>> {
        let tag = self.load(index);
        let busy = tag.next(Tag::BUSY);
        if !tag.at_rest() || !self.swap(index, tag, busy) {
            return None;
        }
        // SAFETY: the tag says BUSY and is ours: nobody else writes the slot until it is released.
        let slot = unsafe { &mut *self.slot(index) };
        if tag.phase() == Tag::STEADY {
            slot.prediction.settle(&mut slot.flow);
        }
        Some(Held { part: self, index, tag: busy, slot })
    }

    /// Frees every slot; for tests, when no program runs.
    pub(super) fn clear(&self) {
        for index in 0..self.slots {
            let tag = self.load(index);
            if tag.phase() != Tag::FREE {
                self.swap(index, tag, tag.next(Tag::FREE));
            }
        }
    }

    fn load(&self, index: u32) -> Tag {
        Tag(self.tag(index).load(Ordering::Acquire))
    }

    fn swap(&self, index: u32, from: Tag, to: Tag) -> bool {
        self.tag(index).compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn tag(&self, index: u32) -> &AtomicU64 {
        // SAFETY: the tag is the first field, 8-byte aligned, and changed by whole words only, on both sides.
        unsafe { AtomicU64::from_ptr(self.slot(index).cast::<u64>()) }
    }

    fn slot(&self, index: u32) -> *mut Slot<K> {
        assert!(index < self.slots, "slot {index} of {}", self.slots);
        // SAFETY: in bounds of the mapping, as just checked.
        unsafe { self.memory.as_mut_ptr().cast::<Slot<K>>().add(index as usize) }
    }
}

/// A slot that is the agent's.
pub(super) struct Held<'a, K> {
    part: &'a Part<K>,
    index: u32,
    tag: Tag,
    pub(super) slot: &'a mut Slot<K>,
}

impl<K: TableKey> Held<'_, K> {
    /// Lets go of it, as a free one if it is to be retired.
    pub(super) fn release(&mut self, retire: bool) {
        let phase = if retire { Tag::FREE } else { self.slot.rest() };
        self.part.swap(self.index, self.tag, self.tag.next(phase));
    }
}

/// A kernel program holds a slot for well under a microsecond.
const READ_TRIES: u32 = 10_000;
