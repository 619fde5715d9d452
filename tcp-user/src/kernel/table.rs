//! The flow table in memory that kernel and agent share. Read, expired and listed without system calls.
//!
//! The protocol of a slot is told in [`tcp_common::record`].

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd as _;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use tcp_common::record::{Counters, HookSeen, Slot, Tag};
use tcp_common::{Flow, FlowKey};

use super::{KernelError, other};

/// The mapped table.
pub struct Table {
    memory: MmapRaw,
    slots: u32,
    // The map lives as long as somebody holds it.
    _map: MapData,
}

// SAFETY: the memory is shared with the kernel anyway; every access goes through the tag's protocol or is a copy that
// the tag's version validates.
unsafe impl Sync for Table {}
// SAFETY: as above.
unsafe impl Send for Table {}

/// A consistent copy of what a slot held.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which slot.
    pub index: u32,
    /// The flow's key.
    pub key: FlowKey,
    /// Where each direction was seen.
    pub hooks: [HookSeen; 2],
    /// The flow.
    pub flow: Flow,
    /// Incarnation whose close has been counted.
    pub reported: u32,
    /// Incarnation whose open has been counted.
    pub counted: u32,
}

/// A slot that is the agent's until this is dropped.
pub struct Owned<'a> {
    table: &'a Table,
    index: u32,
    tag: Tag,
    release_to: u64,
}

impl Table {
    pub(super) fn map(map: Map, slots: u32) -> Result<Table, KernelError> {
        let Map::Array(map) = map else {
            return Err(KernelError::NotSupported("the flow table is no array".into()));
        };
        let len = slots as usize * size_of::<Slot>();
        let memory = MmapOptions::new()
            .len(len)
            .map_raw(&map.fd().as_fd())
            .map_err(other("mapping the flow table"))?;
        Ok(Table { memory, slots, _map: map })
    }

    /// How many flows it can hold at most.
    pub fn capacity(&self) -> u32 {
        self.slots
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.slots as usize * size_of::<Slot>()
    }

    /// Every flow, one consistent copy at a time.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.slots).filter_map(|index| self.read(index))
    }

    /// How many slots are in use.
    pub fn used(&self) -> u32 {
        (0..self.slots).filter(|&index| self.load(index).phase() >= Tag::LIVE).count() as u32
    }

    /// A consistent copy of a slot, or `None` where there is no flow.
    pub fn read(&self, index: u32) -> Option<Entry> {
        for _ in 0..READ_TRIES {
            let before = self.load(index);
            match before.phase() {
                Tag::LIVE => {}
                Tag::BUSY => {
                    std::hint::spin_loop();
                    continue;
                }
                _ => return None,
            }
            // SAFETY: in bounds and mapped; the bytes are plain integers, and a torn copy is thrown away below.
            let copy = unsafe { ptr::read_volatile(self.slot(index)) };
            fence(Ordering::Acquire);
            if self.load(index) == before {
                let Slot { key, hooks, flow, reported, counted, .. } = copy;
                return Some(Entry { index, key, hooks, flow, reported, counted });
            }
        }
        None
    }

    /// Takes a slot that holds a flow, unless somebody else holds it right now.
    pub fn own(&self, index: u32) -> Option<Owned<'_>> {
        let tag = self.load(index);
        let busy = tag.next(Tag::BUSY);
        (tag.phase() == Tag::LIVE && self.swap(index, tag, busy)).then_some(Owned {
            table: self,
            index,
            tag: busy,
            release_to: Tag::LIVE,
        })
    }

    /// Frees every slot; for tests, when no program runs.
    pub fn clear(&self) {
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
        // SAFETY: the tag is the first field, 8-byte aligned, and changed by atomic operations only, on both sides.
        unsafe { AtomicU64::from_ptr(self.slot(index).cast::<u64>()) }
    }

    fn slot(&self, index: u32) -> *mut Slot {
        assert!(index < self.slots, "slot {index} of {}", self.slots);
        // SAFETY: in bounds of the mapping, as just checked.
        unsafe { self.memory.as_mut_ptr().cast::<Slot>().add(index as usize) }
    }
}

impl Owned<'_> {
    /// Gives the slot back as a free one.
    pub fn retire(mut self) {
        self.release_to = Tag::FREE;
    }
}

impl Deref for Owned<'_> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        // SAFETY: the tag says BUSY and is ours: nobody else writes the slot.
        unsafe { &*self.table.slot(self.index) }
    }
}

impl DerefMut for Owned<'_> {
    fn deref_mut(&mut self) -> &mut Slot {
        // SAFETY: as above.
        unsafe { &mut *self.table.slot(self.index) }
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.table.swap(self.index, self.tag, self.tag.next(self.release_to));
    }
}

/// Sums counters field by field: they are nothing but `u64`.
pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Counters>) -> Counters {
    const WORDS: usize = size_of::<Counters>() / size_of::<u64>();
    let mut total = [0u64; WORDS];
    for counters in all {
        // SAFETY: `Counters` is `#[repr(C)]` and made of `u64` only, so it is an array of them.
        let words: &[u64; WORDS] = unsafe { &*ptr::from_ref(counters).cast() };
        for (sum, word) in total.iter_mut().zip(words) {
            *sum += word;
        }
    }
    // SAFETY: as above.
    unsafe { ptr::read(total.as_ptr().cast::<Counters>()) }
}

/// A kernel program holds a slot for well under a microsecond.
const READ_TRIES: u32 = 10_000;
