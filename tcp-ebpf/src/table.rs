//! The flow tables as the kernel programs see them. The protocol is `tcp_common::table`'s; here are the memory that it works
//! on, and what a packet asks of it.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::marker::PhantomData;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_common::{
    Flow, Ignored, Kind,
    flow::Prediction,
    record::{Counters, Settings, Slot, mark},
    table::{self, Home, Memory, NOWHERE, Tag, Took, Word},
};

use crate::{
    clock,
    maps::{Table, settings},
    publish,
    verifier::opaque,
    work::{Taken, Work},
};

/// The maps of one family.
pub struct Maps<K> {
    places: u32,
    key: PhantomData<K>,
}

impl<K: Table> Maps<K> {
    #[inline(always)]
    pub fn new(settings: &Settings) -> Self {
        Maps { places: K::places(settings), key: PhantomData }
    }
}

impl<K> Clone for Maps<K> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Maps<K> {}

impl<K: Table> Memory for Maps<K> {
    type Key = K;
    type Place = *mut Slot<K>;

    /// With the pause between them some 2 us, several times what the machine takes for a segment.
    const TRIES: u32 = 64;

    /// To read the clock is one instruction for the verifier, and takes some 30 ns.
    #[inline(always)]
    fn pause(self) {
        // SAFETY: takes nothing, returns a number.
        unsafe { bpf_ktime_get_ns() };
    }

    #[inline(always)]
    fn places(self) -> u32 {
        self.places
    }

    #[inline(always)]
    fn place(self, index: u32) -> Option<*mut Slot<K>> {
        K::slot(index)
    }

    #[inline(always)]
    fn tag(self, slot: *mut Slot<K>) -> Tag {
        // SAFETY: a map value, 8-byte aligned; an atomic load does not exist on this target, a volatile one does the same
        // on x86, where loads are in order. Another machine needs an acquire here.
        Tag(unsafe { read_volatile(addr_of!((*slot).tag)) })
    }

    #[inline(always)]
    fn swap_tag(self, slot: *mut Slot<K>, from: Tag, to: Tag) -> bool {
        // SAFETY: as above.
        unsafe { swap(addr_of_mut!((*slot).tag), from.0, to.0) }
    }

    #[inline(always)]
    fn store_tag(self, slot: *mut Slot<K>, tag: Tag) {
        // SAFETY: as above; x86 stores are in order, another machine needs a release here.
        unsafe { write_volatile(addr_of_mut!((*slot).tag), tag.0) };
    }

    #[inline(always)]
    fn has_key(self, slot: *mut Slot<K>, key: &K) -> bool {
        // SAFETY: a map value; a torn key is found out by the tag.
        unsafe { *addr_of!((*slot).key) == *key }
    }

    #[inline(always)]
    fn set_key(self, slot: *mut Slot<K>, key: &K) {
        // SAFETY: a map value that this CPU holds.
        unsafe { (*slot).key = *key };
    }

    #[inline(always)]
    fn last_ns(self, slot: *mut Slot<K>) -> u64 {
        // SAFETY: a map value; a torn number can only misjudge.
        unsafe { read_volatile(addr_of!((*slot).prediction.last_ns)) }
    }

    #[inline(always)]
    fn word(self, home: u32) -> Option<Word> {
        // SAFETY: as in `tag`.
        K::word(home).map(|word| Word(unsafe { read_volatile(word) }))
    }

    #[inline(always)]
    fn swap_word(self, home: u32, from: Word, to: Word) -> bool {
        // SAFETY: as in `tag`.
        K::word(home).is_some_and(|word| unsafe { swap(word, from.0, to.0) })
    }

    #[inline(always)]
    fn add_word(self, home: u32, amount: u64) {
        if let Some(word) = K::word(home) {
            // SAFETY: as in `tag`.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) };
        }
    }
}

/// Compare-and-swap; a full barrier.
#[inline(always)]
unsafe fn swap(word: *mut u64, from: u64, to: u64) -> bool {
    // SAFETY: the caller's.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, from, to)
    };
    found == from
}

/// Finds the flow, or claims a slot for it where the packet may open one, takes it and copies it to `work`.
#[inline(always)]
pub fn take<K: Table>(work: &mut Work, settings: &Settings, counters: &mut Counters) {
    let key = K::of(&work.packet.key);
    work.taken = if key.is_self_connect() {
        Taken::Nothing(Ignored::SelfConnect)
    } else {
        own_or_claim(&key, work, settings, counters)
    };
}

/// Puts the flow back and lets go of the slot.
#[inline(always)]
pub fn give_back<K: Table>(phase: u64, work: &Work, settings: &Settings) {
    let Some(slot) = K::slot(work.slot) else { return };
    // SAFETY: the slot is this CPU's.
    let held = unsafe { &mut *slot };
    held.hooks = work.hooks;
    held.flow = work.flow;
    held.prediction = work.prediction;
    table::let_go(Maps::<K>::new(settings), slot, phase);
}

#[inline(always)]
fn own_or_claim<K: Table>(key: &K, work: &mut Work, settings: &Settings, counters: &mut Counters) -> Taken {
    let maps = Maps::<K>::new(settings);
    let home = Home::of(key, &settings.secret, maps.places);
    let opens = !matches!(work.packet.segment.kind(), Kind::Rst);
    let mut yielded = 0;
    let took = table::take(maps, key, home, opens, || make_room(maps, home, work, counters), || yielded += 1);
    counters.claims_yielded += yielded;
    match took {
        Took::Found(index, before) => check_out::<K>(index, before.phase() == Tag::STEADY, work, settings),
        Took::Made(index) => begin(index, work, settings),
        Took::Held(index) => {
            work.slot = index;
            Taken::Busy
        }
        Took::Unsettled => {
            work.slot = NOWHERE;
            Taken::Busy
        }
        Took::Nothing => Taken::Nothing(Ignored::NoFlow),
        Took::NoRoom => Taken::Nothing(Ignored::TableFull),
    }
}

/// Begins with an empty flow. What the slot held is nobody's any more, and need not be read.
#[inline(always)]
fn begin(index: u32, work: &mut Work, settings: &Settings) -> Taken {
    work.slot = index;
    work.at_ns = clock::now_ns(settings);
    work.hooks = [0; 2];
    work.flow = Flow::EMPTY;
    work.prediction = Prediction::EMPTY;
    Taken::Owned
}

/// Copies what the slot holds, with what was predicted written back. It stays there as it was before the packet, until
/// [`give_back`]. The segment has its time only now: those of one flow have theirs in the order in which they are taken, on
/// whichever CPU.
#[inline(always)]
fn check_out<K: Table>(index: u32, settle: bool, work: &mut Work, settings: &Settings) -> Taken {
    work.slot = index;
    work.at_ns = clock::now_ns(settings);
    let Some(slot) = K::slot(index) else { return Taken::Busy };
    // SAFETY: the slot is this CPU's.
    let held = unsafe { &mut *slot };
    if settle {
        held.prediction.settle(&mut held.flow);
    }
    work.hooks = held.hooks;
    work.flow = held.flow;
    work.prediction = held.prediction;
    Taken::Owned
}

/// A place for a newcomer; the flow that must go for it is counted, and told of unless that was done before.
#[inline(never)]
fn make_room<K: Table>(maps: Maps<K>, home: Home, work: &mut Work, counters: &mut Counters) -> u32 {
    let step = table::make_room(maps, home, &mut work.victim);
    if step == NOWHERE || work.victim.step == NOWHERE {
        return step;
    }
    let phase = work.victim.tag.phase();
    // The compiler may know the number's range from the tag; the verifier of Linux 6.1 does not.
    if let Some(count) = counters.evicted.get_mut(opaque(phase.wrapping_sub(Tag::OVER) as usize)) {
        *count += 1;
    }
    let Some(slot) = K::slot(home.at(step)) else { return NOWHERE };
    // SAFETY: the slot is this CPU's.
    let held = unsafe { &mut *slot };
    // A flood of SYNs must not drown the events of others.
    if phase != Tag::HALF_OPEN && held.flow.marks & mark::CLOSE_REPORTED == 0 {
        work.at_ns = clock::now_ns(settings());
        publish::evicted(held, work, counters);
    }
    step
}
