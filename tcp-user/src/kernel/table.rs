//! The flow tables of both families as one. Read, expired and listed without system calls.

use std::ops::{Deref, DerefMut, Range};
use std::ptr;

use tcp_common::record::{Counters, Event, Record, predicted, segment_kind};
use tcp_common::table::{NOWHERE, Tag};
use tcp_common::{Cause, Flow, FlowKey, FlowKey4, Secret, TableKey};

use super::part::{Held, Part};

/// The mapped tables: the slots of IPv4 first, then those of IPv6.
pub struct Table {
    v4: Part<FlowKey4>,
    v6: Part<FlowKey>,
    rated: [u32; 2],
    /// What the hash is keyed with.
    secret: Secret,
}

/// A consistent copy of what a slot held.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which slot.
    pub index: u32,
    /// The flow's key.
    pub key: FlowKey,
    /// Where each direction was seen, from end A, from end B: interface index shifted by one, bit 0 set on egress.
    pub hooks: [u32; 2],
    /// The flow.
    pub flow: Flow,
}

/// What a flow at rest in this phase is when space is short: 0 half open, which makes room first; 1 live, which never does;
/// 2 finished.
pub const fn class(phase: u64) -> Option<usize> {
    match phase {
        Tag::HALF_OPEN => Some(0),
        Tag::LIVE | Tag::STEADY => Some(1),
        Tag::TIME_WAIT | Tag::OVER => Some(2),
        _ => None,
    }
}

/// A flow that is the agent's until this is dropped.
pub struct Owned<'a> {
    held: Either<'a>,
    retire: bool,
}

enum Either<'a> {
    V4(Held<'a, FlowKey4>),
    V6(Held<'a, FlowKey>),
}

impl Table {
    pub(super) fn new(v4: Part<FlowKey4>, v6: Part<FlowKey>, rated: [u32; 2], secret: Secret) -> Table {
        Table { v4, v6, rated, secret }
    }

    /// How many flows of both families together always find a place.
    pub fn capacity(&self) -> u32 {
        self.rated.iter().sum()
    }

    /// How many places there are, by which flows are numbered here.
    pub fn places(&self) -> u32 {
        self.v4.places() + self.v6.places()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    /// How many places of each family are in each [`Tag`] phase.
    pub fn phases(&self) -> [[u32; Tag::PHASES]; 2] {
        [self.v4.phases(), self.v6.phases()]
    }

    /// The slot that an event names, or where its flow is by now.
    pub fn index_of(&self, event: &Event) -> Option<u32> {
        let first = if event.key.family == 4 { 0 } else { self.v4.places() };
        if event.slot == NOWHERE { self.find(&event.key) } else { Some(first + event.slot) }
    }

    /// The slot of a flow, found as the kernel programs find it.
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        if key.family == 4 {
            self.v4.find(&FlowKey4::of(key), &self.secret)
        } else {
            Some(self.v4.places() + self.v6.find(key, &self.secret)?)
        }
    }

    /// Every flow, one consistent copy at a time.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.places()).filter_map(|index| self.read(index))
    }

    /// How many flows always find a place: IPv4, IPv6.
    pub fn capacities(&self) -> [u32; 2] {
        self.rated
    }

    /// 0 for a place of IPv4, 1 for one of IPv6.
    pub fn family(&self, index: u32) -> usize {
        usize::from(index >= self.v4.places())
    }

    /// Adds the places of the flows that have their homes at these places, each with its tag. Every flow has one home.
    pub fn list(&self, homes: Range<u32>, found: &mut Vec<(u32, Tag)>) {
        let in_v4 = self.v4.places();
        self.v4.list(homes.start.min(in_v4)..homes.end.min(in_v4), found);
        let first = found.len();
        self.v6.list(homes.start.max(in_v4) - in_v4..homes.end.max(in_v4) - in_v4, found);
        found[first..].iter_mut().for_each(|(index, _)| *index += in_v4);
    }

    /// Has the memory of a place come to this CPU, beside that of others.
    pub fn touch(&self, index: u32) {
        match index.checked_sub(self.v4.places()) {
            None => self.v4.touch(index),
            Some(in_v6) => self.v6.touch(in_v6),
        }
    }

    /// The tag of a place: another one whenever anything but a predicted segment changes the flow there.
    pub fn tag(&self, index: u32) -> Tag {
        match index.checked_sub(self.v4.places()) {
            None => self.v4.load(index),
            Some(in_v6) => self.v6.load(in_v6),
        }
    }

    /// A consistent copy of a slot, or `None` where there is no flow.
    pub fn read(&self, index: u32) -> Option<Entry> {
        match index.checked_sub(self.v4.places()) {
            None => self.v4.read(index).map(|(key, record)| entry(index, key.flow_key(), &record)),
            Some(in_v6) => self.v6.read(in_v6).map(|(key, record)| entry(index, key, &record)),
        }
    }

    /// Takes a slot that holds a flow, unless somebody else holds it right now.
    pub fn own(&self, index: u32) -> Option<Owned<'_>> {
        let held = match index.checked_sub(self.v4.places()) {
            None => Either::V4(self.v4.own(index)?),
            Some(in_v6) => Either::V6(self.v6.own(in_v6)?),
        };
        Some(Owned { held, retire: false })
    }

    /// Takes the flow that an event's segment belongs to, at a place where it was found, waiting for who has it; `None` if it
    /// has gone, or the segment was seen at another hook than the others of its direction.
    pub fn seize(&self, index: u32, event: &Event) -> Option<Owned<'_>> {
        let held = match index.checked_sub(self.v4.places()) {
            None => Either::V4(self.v4.seize(index, &FlowKey4::of(&event.key))?),
            Some(in_v6) => Either::V6(self.v6.seize(in_v6, &event.key)?),
        };
        let owned = Owned { held, retire: false };
        [0, event.hook].contains(&owned.hooks()[usize::from(event.sender & 1)]).then_some(owned)
    }

    /// Claims a free place for a flow that has none: an empty one, which the caller fills or retires. `None` if it has one, or
    /// there is no free place for it.
    pub fn claim(&self, key: &FlowKey) -> Option<Owned<'_>> {
        let held = if key.family == 4 {
            Either::V4(self.v4.claim(&FlowKey4::of(key), &self.secret)?)
        } else {
            Either::V6(self.v6.claim(key, &self.secret)?)
        };
        Some(Owned { held, retire: false })
    }

    /// Lets go of what another agent held when it was killed; for its successor, before it takes anything itself. Returns how
    /// many flows that were.
    pub fn release_held(&self) -> u32 {
        self.v4.release_held() + self.v6.release_held()
    }

    /// Retires every flow; for tests, when no program runs.
    pub fn clear(&self) {
        self.v4.clear();
        self.v6.clear();
    }
}

fn entry(index: u32, key: FlowKey, record: &Record) -> Entry {
    Entry { index, key, hooks: record.hooks, flow: record.flow }
}

impl Either<'_> {
    fn release(&mut self, retire: bool) -> Tag {
        match self {
            Either::V4(held) => held.release(retire),
            Either::V6(held) => held.release(retire),
        }
    }
}

impl Owned<'_> {
    /// The flow's key.
    pub fn key(&self) -> FlowKey {
        match &self.held {
            Either::V4(held) => held.slot.key.flow_key(),
            Either::V6(held) => held.slot.key,
        }
    }

    /// As in [`Entry::hooks`].
    pub fn hooks(&self) -> [u32; 2] {
        match &self.held {
            Either::V4(held) => held.record.hooks,
            Either::V6(held) => held.record.hooks,
        }
    }

    /// Lets go of it, as dropping it does. Returns the tag that it leaves.
    pub fn let_go(mut self) -> Tag {
        let tag = self.held.release(false);
        // It owns nothing else.
        std::mem::forget(self);
        tag
    }

    /// Gives the slot back as a free one.
    pub fn retire(mut self) {
        self.retire = true;
    }
}

impl Deref for Owned<'_> {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        match &self.held {
            Either::V4(held) => &held.record.flow,
            Either::V6(held) => &held.record.flow,
        }
    }
}

impl DerefMut for Owned<'_> {
    fn deref_mut(&mut self) -> &mut Flow {
        match &mut self.held {
            Either::V4(held) => &mut held.record.flow,
            Either::V6(held) => &mut held.record.flow,
        }
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.held.release(self.retire);
    }
}

/// Sums counters field by field: they are nothing but `u64`. Predicted packets are seen and tracked ones,
/// and did what an ACK or payload does.
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
    let mut total = unsafe { ptr::read(total.as_ptr().cast::<Counters>()) };
    // The predicted ones are in no other count yet.
    let kinds =
        [(predicted::ACK, segment_kind::ACK, Cause::Ack), (predicted::DATA, segment_kind::DATA, Cause::Data)];
    for direction in 0..2 {
        for (kind, segment_kind, cause) in kinds {
            let packets = total.predicted[direction][kind];
            total.seen += packets;
            total.tracked += packets;
            total.causes[cause as usize] += packets;
            total.segments[direction][segment_kind] += packets + total.merged[direction][kind];
        }
    }
    total
}
