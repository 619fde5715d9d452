//! The flow tables as the kernel programs see them. The protocol is `tcp_common::table`'s; here are the memory that it works
//! on, and what a packet asks of it.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::marker::PhantomData;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_common::{
    Ignored, Kind,
    flow::Prediction,
    record::{Counters, Record, Settings, Slot, mark},
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
    let (Some(slot), Some(record)) = (K::slot(work.slot), K::record(work.slot)) else { return };
    // SAFETY: the place is this CPU's.
    unsafe {
        *record = work.record;
        (*slot).prediction = work.prediction;
    }
    table::let_go(Maps::<K>::new(settings), slot, phase);
}

#[inline(always)]
fn own_or_claim<K: Table>(key: &K, work: &mut Work, settings: &Settings, counters: &mut Counters) -> Taken {
    let maps = Maps::<K>::new(settings);
    let home = Home::of(key, &settings.secret, maps.places);
    ask_for::<K>(home.index);
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

/// Asks memory for all lines of a place at once, in which the flow will most likely be: there is no instruction for that,
/// but a load that nothing waits for is one.
#[inline(always)]
fn ask_for<K: Table>(index: u32) {
    let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return };
    let lines: *const [[u64; 8]; 4] = record.cast();
    // SAFETY: a map value; what is read is not used.
    unsafe {
        read_volatile(addr_of!((*slot).tag));
        read_volatile(addr_of!((*lines)[0][0]));
        read_volatile(addr_of!((*lines)[1][0]));
        read_volatile(addr_of!((*lines)[2][0]));
        read_volatile(addr_of!((*lines)[3][0]));
    }
}

/// Begins with an empty flow. What the slot held is nobody's any more, and need not be read.
#[inline(always)]
fn begin(index: u32, work: &mut Work, settings: &Settings) -> Taken {
    work.slot = index;
    work.at_ns = clock::now_ns(settings);
    work.record = Record::EMPTY;
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
    let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return Taken::Busy };
    // SAFETY: the place is this CPU's.
    let (slot, record) = unsafe { (&mut *slot, &mut *record) };
    if settle {
        slot.prediction.flush_into(&mut record.flow);
    }
    work.record = *record;
    work.prediction = slot.prediction;
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
    // A flood of SYNs must not drown the events of others.
    if phase != Tag::HALF_OPEN {
        let index = home.at(step);
        let (Some(slot), Some(record)) = (K::slot(index), K::record(index)) else { return NOWHERE };
        // SAFETY: the place is this CPU's.
        let (slot, record) = unsafe { (&*slot, &*record) };
        if !record.flow.is_reported(mark::CLOSE_REPORTED) {
            work.at_ns = clock::now_ns(settings());
            publish::evicted(&slot.key.flow_key(), record, work, counters);
        }
    }
    step
}
