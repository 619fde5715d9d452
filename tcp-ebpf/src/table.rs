//! The flow table: find, claim, take, release. The protocol is in `tcp_common::record`.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{addr_of, addr_of_mut, read_volatile};

use tcp_common::{
    FlowKey, Ignored, Kind, State,
    record::{Counters, Hash, Settings, Slot, Tag, WINDOW},
};

use crate::{maps::FLOWS, observe::Work};

/// What came of asking for a flow.
pub enum Taken {
    /// The slot is this CPU's until `release`. `fresh`: it was claimed just now.
    Owned { index: u32, fresh: bool },
    /// Somebody else holds it for too long.
    Busy { index: u32 },
}

/// Finds the flow, or claims a slot for it where the packet may open one, and takes it.
#[inline(never)]
pub fn take(work: &Work, settings: &Settings, counters: &mut Counters) -> Result<Taken, Ignored> {
    let key = &work.packet.key;
    let hash = Hash::of(key, settings.seed);
    let (base, mask, fingerprint) = (hash.base(settings.mask), settings.mask, hash.fingerprint());
    let index = find(key, base, mask, fingerprint);
    if index != NOWHERE {
        return Ok(own(index, fingerprint));
    }
    if matches!(work.packet.segment.kind(), Kind::Rst) {
        return Err(Ignored::NoFlow);
    }
    let index = claim(base, mask, fingerprint, work.at_ns, counters);
    let Some(slot) = slot(index) else { return Err(Ignored::TableFull) };
    // SAFETY: the claim makes the slot this CPU's.
    unsafe { (*slot).key = *key };
    if settle_claim(key, index, base, mask, fingerprint) {
        return Ok(Taken::Owned { index, fresh: true });
    }
    counters.claims_yielded += 1;
    match find(key, base, mask, fingerprint) {
        NOWHERE => Err(Ignored::Contended),
        index => Ok(own(index, fingerprint)),
    }
}

/// Gives the slot back with the next version.
#[inline(always)]
pub fn release(index: u32) {
    if let Some(slot) = slot(index) {
        let tag = load(slot);
        swap(slot, tag, tag.next(Tag::LIVE));
    }
}

/// The slot's memory.
#[inline(always)]
pub fn slot(index: u32) -> Option<*mut Slot> {
    FLOWS.get_ptr_mut(index)
}

/// Looks through the whole window: a freed slot does not end the search.
#[inline(never)]
fn find(key: &FlowKey, base: u32, mask: u32, fingerprint: u64) -> u32 {
    let words = key.words();
    for step in 0..WINDOW {
        let index = base.wrapping_add(step) & mask;
        let Some(slot) = slot(index) else { continue };
        let tag = load(slot);
        if tag.fingerprint() == fingerprint && tag.phase() >= Tag::LIVE {
            // SAFETY: a map value; a torn read can only make the comparison fail or be undone by the tag.
            let found = unsafe { (*slot).key.words() };
            if found == words {
                return index;
            }
        }
    }
    NOWHERE
}

/// `LIVE -> BUSY`, a bounded number of tries.
#[inline(always)]
fn own(index: u32, fingerprint: u64) -> Taken {
    let Some(slot) = slot(index) else { return Taken::Busy { index } };
    for _ in 0..TRIES {
        let tag = load(slot);
        if tag.fingerprint() != fingerprint {
            break;
        }
        if tag.phase() == Tag::LIVE && swap(slot, tag, tag.next(Tag::BUSY)) {
            return Taken::Owned { index, fresh: false };
        }
    }
    Taken::Busy { index }
}

/// `FREE -> CLAIM`; where nothing is free, the least valuable flow of the window makes room: one that is over, then the
/// oldest half-open one, then TIME-WAIT, never a live one.
#[inline(never)]
fn claim(base: u32, mask: u32, fingerprint: u64, now_ns: u64, counters: &mut Counters) -> u32 {
    let mut victim = (Class::Live as u32, 0u64, 0u32);
    for step in 0..WINDOW {
        let index = base.wrapping_add(step) & mask;
        let Some(slot) = slot(index) else { continue };
        let tag = load(slot);
        if tag.phase() == Tag::FREE {
            if swap(slot, tag, tag.claim(fingerprint)) {
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
    let Some(slot) = slot(index) else { return NOWHERE };
    let tag = load(slot);
    if tag.phase() != Tag::LIVE || !swap(slot, tag, tag.claim(fingerprint)) {
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
fn value_of(slot: *mut Slot, now_ns: u64) -> (Class, u64) {
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
fn settle_claim(key: &FlowKey, own: u32, base: u32, mask: u32, fingerprint: u64) -> bool {
    let words = key.words();
    let Some(own_slot) = slot(own) else { return false };
    let own_tag = load(own_slot);
    let own_step = own.wrapping_sub(base) & mask;
    let mut yields = false;
    for step in 0..WINDOW {
        let index = base.wrapping_add(step) & mask;
        let Some(slot) = slot(index) else { continue };
        let tag = load(slot);
        if index == own || tag.fingerprint() != fingerprint {
            continue;
        }
        if tag.phase() == Tag::CLAIM {
            // The lower index wins; taking the other's claim away fails only if it has become BUSY meanwhile.
            yields |= step < own_step || !swap(slot, tag, tag.next(Tag::FREE));
        } else if tag.phase() >= Tag::LIVE {
            // SAFETY: as in `find`.
            let found = unsafe { (*slot).key.words() };
            yields |= found == words;
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

#[inline(always)]
fn load(slot: *mut Slot) -> Tag {
    // SAFETY: a map value, 8-byte aligned; an atomic load does not exist on this target, a volatile one does the same.
    Tag(unsafe { read_volatile(addr_of!((*slot).tag)) })
}

#[inline(always)]
fn swap(slot: *mut Slot, from: Tag, to: Tag) -> bool {
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
const TRIES: u32 = 64;
