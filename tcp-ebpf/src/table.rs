//! The flow tables: find, claim, take and give back. The protocol is in `tcp_common::record`.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use tcp_common::{
    FlowKey, FlowKey4, Ignored, Kind, State, TableKey,
    record::{Counters, Hash, Settings, Slot, Tag, WINDOW},
};

use crate::{
    maps::{FLOWS_V4, FLOWS_V6},
    observe::Work,
};

/// What came of asking for a flow.
#[derive(Clone, Copy)]
pub enum Taken {
    /// Its slot is this CPU's until [`give_back`], and the flow is in `Work`.
    Owned,
    /// Somebody else holds it for too long.
    Busy,
    /// There is none, and why.
    Nothing(Ignored),
}

/// A key that has a table.
pub trait Table: TableKey {
    /// The slot's memory.
    fn slot(index: u32) -> Option<*mut Slot<Self>>;
    /// Number of slots minus one.
    fn mask(settings: &Settings) -> u32;
    /// The slot that holds the flow before this packet.
    fn held(index: u32) -> Option<&'static Slot<Self>> {
        // SAFETY: a map value that this CPU owns.
        Self::slot(index).map(|slot| unsafe { &*slot })
    }
}

impl Table for FlowKey4 {
    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot<FlowKey4>> {
        FLOWS_V4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn mask(settings: &Settings) -> u32 {
        settings.mask_v4
    }
}

impl Table for FlowKey {
    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot<FlowKey>> {
        FLOWS_V6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn mask(settings: &Settings) -> u32 {
        settings.mask_v6
    }
}

/// Finds the flow, or claims a slot for it where the packet may open one, takes it and copies it to `work`.
#[inline(never)]
pub fn take<K: Table>(work: &mut Work, settings: &Settings, counters: &mut Counters) {
    work.taken = own_or_claim::<K>(work, settings, counters);
}

/// Puts the flow back and lets go of the slot.
#[inline(never)]
pub fn give_back<K: Table>(work: &Work) {
    let Some(slot) = K::slot(work.slot) else { return };
    // SAFETY: the slot's tag says BUSY, and this CPU made it so.
    let held = unsafe { &mut *slot };
    held.hooks = work.hooks;
    held.flow = work.flow;
    held.prediction = work.prediction;
    let phase = held.rest();
    store(slot, load(slot).next(phase));
}

#[inline(always)]
fn own_or_claim<K: Table>(work: &mut Work, settings: &Settings, counters: &mut Counters) -> Taken {
    let key = K::of(&work.packet.key);
    if key.is_self_connect() {
        return Taken::Nothing(Ignored::SelfConnect);
    }
    let hash = Hash::of(&key, settings.seed);
    let mask = K::mask(settings);
    let place = Place { base: hash.base(mask), mask, fingerprint: hash.fingerprint() };
    let index = find(&key, &place);
    if index != NOWHERE {
        return own::<K>(index, &place, work);
    }
    if matches!(work.packet.segment.kind(), Kind::Rst) {
        return Taken::Nothing(Ignored::NoFlow);
    }
    let index = claim::<K>(&place, work.at_ns, counters);
    let Some(slot) = K::slot(index) else { return Taken::Nothing(Ignored::TableFull) };
    // SAFETY: the claim makes the slot this CPU's.
    unsafe { (*slot).key = key };
    if settle_claim(&key, index, &place) {
        // SAFETY: as above.
        unsafe { (*slot).begin() };
        return check_out(slot, index, work);
    }
    counters.claims_yielded += 1;
    own::<K>(find_winner(&key, &place), &place, work)
}

/// The slot of the CPU that the claim was given up for, once it has gone on from its claim; if it takes too long, the agent
/// will find it.
#[inline(never)]
fn find_winner<K: Table>(key: &K, place: &Place) -> u32 {
    for _ in 0..FIND_TRIES {
        let index = find(key, place);
        if index != NOWHERE {
            return index;
        }
    }
    NOWHERE
}

/// Copies what the slot holds. It stays there as it was before the packet, until [`give_back`].
#[inline(always)]
fn check_out<K: Table>(slot: *mut Slot<K>, index: u32, work: &mut Work) -> Taken {
    // SAFETY: the slot's tag says BUSY, and this CPU made it so.
    let held = unsafe { &*slot };
    work.slot = index;
    work.hooks = held.hooks;
    work.flow = held.flow;
    work.prediction = held.prediction;
    Taken::Owned
}

/// Where in a table a flow may be.
struct Place {
    base: u32,
    mask: u32,
    fingerprint: u64,
}

impl Place {
    #[inline(always)]
    fn index(&self, step: u32) -> u32 {
        self.base.wrapping_add(step) & self.mask
    }
}

/// Looks through the whole window: a freed slot does not end the search.
#[inline(never)]
fn find<K: Table>(key: &K, place: &Place) -> u32 {
    for step in 0..WINDOW {
        let index = place.index(step);
        let Some(slot) = K::slot(index) else { continue };
        let tag = load(slot);
        if tag.fingerprint() == place.fingerprint && tag.phase() >= Tag::LIVE {
            // SAFETY: a map value; a torn read can only make the comparison fail or be undone by the tag.
            let found = unsafe { (*slot).key };
            if found == *key {
                return index;
            }
        }
    }
    NOWHERE
}

/// Takes the flow in this slot, with what was predicted written back to it.
#[inline(always)]
fn own<K: Table>(index: u32, place: &Place, work: &mut Work) -> Taken {
    work.slot = index;
    let Some(slot) = K::slot(index) else { return Taken::Busy };
    let before = seize(slot, place.fingerprint);
    if before.phase() == Tag::FREE {
        return Taken::Busy;
    }
    if before.phase() == Tag::STEADY {
        // SAFETY: the slot is this CPU's.
        let held = unsafe { &mut *slot };
        held.prediction.settle(&mut held.flow);
    }
    check_out(slot, index, work)
}

/// From rest to `BUSY`, a bounded number of tries. Returns the tag as it was; a FREE one if it was never at rest.
#[inline(never)]
fn seize<K: Table>(slot: *mut Slot<K>, fingerprint: u64) -> Tag {
    for _ in 0..TRIES {
        let tag = load(slot);
        if tag.fingerprint() != fingerprint {
            break;
        }
        if tag.at_rest() && swap(slot, tag, tag.next(Tag::BUSY)) {
            return tag;
        }
    }
    Tag(Tag::FREE)
}

/// `FREE -> CLAIM`; where nothing is free, the least valuable flow of the window makes room: one that is over, then the
/// oldest half-open one, then TIME-WAIT, never a live one.
#[inline(never)]
fn claim<K: Table>(place: &Place, now_ns: u64, counters: &mut Counters) -> u32 {
    let mut victim = (Class::Live as u32, 0u64, 0u32);
    for step in 0..WINDOW {
        let index = place.index(step);
        let Some(slot) = K::slot(index) else { continue };
        let tag = load(slot);
        if tag.phase() == Tag::FREE {
            if swap(slot, tag, tag.claim(place.fingerprint)) {
                return index;
            }
        } else if tag.phase() == Tag::LIVE {
            let (class, idle) = value_of(slot, now_ns);
            if (class as u32) < victim.0 || (class as u32 == victim.0 && idle > victim.1) {
                victim = (class as u32, idle, index);
            }
        }
    }
    if victim.0 >= Class::Live as u32 {
        return NOWHERE;
    }
    let index = victim.2;
    let Some(slot) = K::slot(index) else { return NOWHERE };
    let tag = load(slot);
    if tag.phase() != Tag::LIVE || !swap(slot, tag, tag.claim(place.fingerprint)) {
        return NOWHERE;
    }
    if let Some(count) = counters.evicted.get_mut(victim.0 as usize) {
        *count += 1;
    }
    index
}

/// How much a flow is worth when space is short. The first three may be evicted and index `Counters::evicted`.
#[derive(Clone, Copy)]
enum Class {
    Over = 0,
    HalfOpen = 1,
    TimeWait = 2,
    Live = 3,
}

#[inline(always)]
fn value_of<K>(slot: *mut Slot<K>, now_ns: u64) -> (Class, u64) {
    // SAFETY: a map value; a torn read can only misjudge, and the tag's version undoes the eviction then.
    let (a, b, last_ns) = unsafe {
        let flow = addr_of!((*slot).flow);
        ((*flow).halves[0].state, (*flow).halves[1].state, read_volatile(addr_of!((*flow).last_ns)))
    };
    let idle = now_ns.wrapping_sub(last_ns);
    let class = if both(a, b, State::Closed, State::Closed) {
        Class::Over
    } else if half_open(a) || half_open(b) {
        Class::HalfOpen
    } else if finished(a) && finished(b) {
        Class::TimeWait
    } else {
        Class::Live
    };
    (class, idle)
}

#[inline(always)]
fn both(a: u8, b: u8, first: State, second: State) -> bool {
    a == first as u8 && b == second as u8
}

#[inline(always)]
fn half_open(state: u8) -> bool {
    state == State::SynSent as u8 || state == State::SynReceived as u8
}

#[inline(always)]
fn finished(state: u8) -> bool {
    state == State::TimeWait as u8 || state == State::Closed as u8
}

/// After the key is written: `CLAIM -> BUSY` if no other CPU has claimed the same flow, else `CLAIM -> FREE`.
#[inline(never)]
fn settle_claim<K: Table>(key: &K, own: u32, place: &Place) -> bool {
    let Some(own_slot) = K::slot(own) else { return false };
    let own_tag = load(own_slot);
    let own_step = own.wrapping_sub(place.base) & place.mask;
    let mut yields = false;
    for step in 0..WINDOW {
        let index = place.index(step);
        let Some(slot) = K::slot(index) else { continue };
        let tag = load(slot);
        if index == own || tag.fingerprint() != place.fingerprint {
            continue;
        }
        if tag.phase() == Tag::CLAIM {
            // The lower index wins; taking the other's claim away fails only if it has become BUSY meanwhile.
            yields |= step < own_step || !swap(slot, tag, tag.next(Tag::FREE));
        } else if tag.phase() >= Tag::LIVE {
            // SAFETY: as in `find`.
            let found = unsafe { (*slot).key };
            yields |= found == *key;
        }
    }
    if own_tag.phase() != Tag::CLAIM {
        return false;
    }
    if yields {
        swap(own_slot, own_tag, own_tag.next(Tag::FREE));
        return false;
    }
    swap(own_slot, own_tag, own_tag.next(Tag::BUSY))
}

/// The tag as it is.
#[inline(always)]
pub fn load<K>(slot: *mut Slot<K>) -> Tag {
    // SAFETY: a map value, 8-byte aligned; an atomic load does not exist on this target, a volatile one does the same.
    Tag(unsafe { read_volatile(addr_of!((*slot).tag)) })
}

/// Lets go of a slot that is this CPU's. What was written before is seen before (x86 stores are in order; another machine
/// needs a release here).
#[inline(always)]
pub fn store<K>(slot: *mut Slot<K>, tag: Tag) {
    // SAFETY: a map value, 8-byte aligned.
    unsafe { write_volatile(addr_of_mut!((*slot).tag), tag.0) };
}

/// Compare-and-swap: whether the tag was `from` and is now `to`.
#[inline(always)]
pub fn swap<K>(slot: *mut Slot<K>, from: Tag, to: Tag) -> bool {
    // SAFETY: a map value, 8-byte aligned. BPF compare-and-swap is a full barrier.
    let (_, done) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            addr_of_mut!((*slot).tag),
            from.0,
            to.0,
        )
    };
    done
}

/// No slot; a table is never that large.
const NOWHERE: u32 = u32::MAX;
/// How often a packet asks for a slot that somebody else holds.
const TRIES: u32 = 128;
/// How often it looks for the slot of a CPU that claimed the same flow.
const FIND_TRIES: u32 = 16;
