//! One family's flow table in memory that kernel and agent share, as the agent sees it.
//!
//! The protocol is [`tcp_common::table`]'s; here is the memory that it works on.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::Ebpf;
use tcp_common::flow::Prediction;
use tcp_common::record::{Record, Slot, rest};
use tcp_common::table::{self, Home, Memory, NOWHERE, Tag, Took, Victim, Word};
use tcp_common::{Secret, TableKey};

use super::mapped::Mapped;
use super::{KernelError, take};

/// The mapped table and its directory.
pub(super) struct Part<K> {
    slots: Mapped<Slot<K>>,
    records: Mapped<Record>,
    words: Mapped<u64>,
}

impl<K: TableKey> Part<K> {
    /// The maps of these names: slots, records, directory.
    pub(super) fn map(
        ebpf: &mut Ebpf,
        names: [&'static str; 3],
        places: u32,
    ) -> Result<Part<K>, KernelError> {
        let [slots, records, words] = names.map(|name| take(ebpf, name));
        Ok(Part {
            slots: Mapped::map(slots?, places)?,
            records: Mapped::map(records?, places)?,
            words: Mapped::map(words?, places)?,
        })
    }

    pub(super) fn places(&self) -> u32 {
        self.slots.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes() + self.records.bytes() + self.words.bytes()
    }

    /// How many places are in each phase.
    pub(super) fn phases(&self) -> [u32; Tag::PHASES] {
        let mut phases = [0; Tag::PHASES];
        for index in 0..self.places() {
            phases[self.load(index).phase() as usize % Tag::PHASES] += 1;
        }
        phases
    }

    /// A consistent copy of what a place holds with its flow settled, or `None` where there is no flow.
    pub(super) fn read(&self, index: u32) -> Option<(K, Record)> {
        for _ in 0..READ_TRIES {
            let before = self.load(index);
            if before.phase() == Tag::FREE {
                return None;
            }
            if !before.at_rest() {
                std::hint::spin_loop();
                continue;
            }
            // SAFETY: in bounds and mapped; the bytes are plain integers, and a torn copy is thrown away below.
            let (mut slot, mut record) = unsafe {
                (ptr::read_volatile(self.slots.at(index)), ptr::read_volatile(self.records.at(index)))
            };
            fence(Ordering::Acquire);
            if self.load(index) == before {
                if before.phase() == Tag::STEADY {
                    slot.prediction.flush_into(&mut record.flow);
                }
                return Some((slot.key, record));
            }
        }
        None
    }

    /// The place of a flow, found as the kernel programs find it.
    pub(super) fn find(&self, key: &K, secret: &Secret) -> Option<u32> {
        let home = Home::of(key, secret, self.places());
        let index = table::find(self, key, home, &mut Word(0));
        (index != NOWHERE).then_some(index)
    }

    /// Takes a slot that holds a flow, unless somebody else holds it right now.
    pub(super) fn own(&self, index: u32) -> Option<Held<'_, K>> {
        Some(self.held(index, table::take_any(self, index, Tag::HELD)?))
    }

    /// Takes the slot of this flow, waiting for who has it, milliseconds at most; `None` if the flow is not there any more.
    pub(super) fn seize(&self, index: u32, key: &K) -> Option<Held<'_, K>> {
        for _ in 0..SEIZE_TRIES {
            let before = table::seize(self, index, key, Tag::HELD);
            if before.phase() != Tag::BUSY {
                return before.at_rest().then(|| self.held(index, before));
            }
            // On a real-time kernel a program may be off its CPU.
            std::thread::yield_now();
        }
        None
    }

    /// Claims a free place for a flow that has none; `None` if it has one, or there is no free place for it.
    pub(super) fn claim(&self, key: &K, secret: &Secret) -> Option<Held<'_, K>> {
        let home = Home::of(key, secret, self.places());
        let room = || table::take_free(self, home, &mut { Victim::NOBODY });
        match table::take(self, key, home, true, room, || {}) {
            Took::Made(index) => {
                let held = self.held(index, Tag(Tag::BUSY));
                // From now on a successor knows that nobody but an agent had it.
                self.store_tag(index, self.load(index).next(Tag::HELD));
                held.slot.prediction = Prediction::EMPTY;
                *held.record = Record::EMPTY;
                Some(held)
            }
            Took::Found(index, before) => {
                self.held(index, before).release(false);
                None
            }
            Took::Held(_) | Took::Nothing | Took::NoRoom | Took::Unsettled => None,
        }
    }

    /// A slot that has just been taken, with its flow settled.
    fn held(&self, index: u32, before: Tag) -> Held<'_, K> {
        // SAFETY: the tag says that it is ours: nobody else writes the place until it is let go.
        let (slot, record) = unsafe { (&mut *self.slots.at(index), &mut *self.records.at(index)) };
        if before.phase() == Tag::STEADY {
            slot.prediction.flush_into(&mut record.flow);
        }
        Held { part: self, index, slot, record }
    }

    /// Lets go of what an agent held when it was killed. Returns how many places that were.
    pub(super) fn release_held(&self) -> u32 {
        let mut count = 0;
        for index in 0..self.places() {
            // SAFETY: only asked for where the place is ours to let go: nobody else writes it.
            let rest =
                || unsafe { rest(&mut (*self.slots.at(index)).prediction, &(*self.records.at(index)).flow) };
            count += u32::from(table::release_held(self, index, rest));
        }
        count
    }

    /// Retires every flow; for tests, when no program runs.
    pub(super) fn clear(&self) {
        for index in 0..self.places() {
            if table::take_any(self, index, Tag::HELD).is_some() {
                table::retire(self, index);
            }
        }
    }

    pub(super) fn load(&self, index: u32) -> Tag {
        Memory::tag(self, index)
    }

    /// Adds the places of the flows that the directory lists for these homes, each with its tag.
    pub(super) fn list(&self, homes: Range<u32>, found: &mut Vec<(u32, Tag)>) {
        let first = found.len();
        for home in homes {
            let word = Word(self.word_of(home).load(Ordering::Relaxed));
            found.extend(word.places(home, self.places()).map(|index| (index, Tag(0))));
        }
        // All at once, so that they come from memory side by side.
        for (index, tag) in &mut found[first..] {
            *tag = Tag(self.tag_of(*index).load(Ordering::Relaxed));
        }
        fence(Ordering::Acquire);
    }

    /// Reads something of each cache line of a place, and waits for none: so those of several places come side by side.
    pub(super) fn touch(&self, index: u32) {
        let (slot, record) = (self.slots.at(index).cast::<u8>(), self.records.at(index).cast::<u8>());
        let lines = (0..size_of::<Slot<K>>()).step_by(LINE).map(|at| slot.wrapping_add(at));
        for line in lines.chain((0..size_of::<Record>()).step_by(LINE).map(|at| record.wrapping_add(at))) {
            // SAFETY: in bounds and mapped; what is read is not used.
            unsafe { ptr::read_volatile(line) };
        }
    }

    fn tag_of(&self, index: u32) -> &AtomicU64 {
        // SAFETY: the tag is the first field, 8-byte aligned, and changed by whole words only, on both sides.
        unsafe { AtomicU64::from_ptr(self.slots.at(index).cast::<u64>()) }
    }

    fn word_of(&self, home: u32) -> &AtomicU64 {
        // SAFETY: 8-byte aligned, and changed by whole words only, on both sides.
        unsafe { AtomicU64::from_ptr(self.words.at(home)) }
    }
}

impl<K: TableKey> Memory for &Part<K> {
    type Key = K;
    type Place = u32;

    const TRIES: u32 = 10_000;

    fn pause(self) {
        std::hint::spin_loop();
    }

    fn places(self) -> u32 {
        self.slots.len
    }

    fn place(self, index: u32) -> Option<u32> {
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
        // SAFETY: in bounds and mapped; a torn key is found out by the tag.
        unsafe { ptr::read_volatile(&raw const (*self.slots.at(index)).key) == *key }
    }

    fn set_key(self, index: u32, key: &K) {
        // SAFETY: in bounds and mapped, and held by the caller.
        unsafe { (&raw mut (*self.slots.at(index)).key).write(*key) };
    }

    fn last_ns(self, index: u32) -> u64 {
        // SAFETY: as in `has_key`.
        unsafe { ptr::read_volatile(&raw const (*self.slots.at(index)).prediction.last_ns) }
    }

    fn word(self, home: u32) -> Option<Word> {
        (home < self.words.len).then(|| Word(self.word_of(home).load(Ordering::Acquire)))
    }

    fn swap_word(self, home: u32, from: Word, to: Word) -> bool {
        self.word_of(home).compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn add_word(self, home: u32, amount: u64) {
        self.word_of(home).fetch_add(amount, Ordering::SeqCst);
    }
}

/// A slot that is the agent's.
pub(super) struct Held<'a, K> {
    part: &'a Part<K>,
    index: u32,
    pub(super) slot: &'a mut Slot<K>,
    pub(super) record: &'a mut Record,
}

impl<K: TableKey> Held<'_, K> {
    /// Lets go of it, or ends its flow. Returns the tag that it leaves.
    pub(super) fn release(&mut self, retire: bool) -> Tag {
        let phase = if retire { Tag::FREE } else { rest(&mut self.slot.prediction, &self.record.flow) };
        // Ours until it is stored.
        let tag = self.part.load(self.index).next(phase);
        if retire {
            table::retire(self.part, self.index);
        } else {
            table::let_go(self.part, self.index, phase);
        }
        tag
    }
}

/// A cache line's octets.
const LINE: usize = 64;
/// A kernel program holds a slot for well under a microsecond.
const READ_TRIES: u32 = 10_000;
/// Of as many tries each, with somebody else's turn between.
const SEIZE_TRIES: u32 = 100;
