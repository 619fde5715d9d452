//! The steps of the protocol, each in the one order of memory accesses that is right.

use super::{CROWD, Home, Memory, NOWHERE, PATIENCE, REACH, TRIES, Tag, Word};

/// The place of a flow, or [`NOWHERE`]; then no such flow is listed as long as its home's word is still `seen`.
#[inline(never)]
pub fn find<M: Memory>(memory: M, key: &M::Key, home: Home, seen: &mut Word) -> u32 {
    let Some(word) = memory.word(home.index) else { return NOWHERE };
    *seen = word;
    let mut steps = word.steps();
    for _ in 0..CROWD {
        if steps == 0 {
            break;
        }
        let index = home.at(steps.trailing_zeros());
        steps &= steps - 1;
        if let Some(place) = memory.place(index)
            && memory.has_key(place, key)
        {
            return index;
        }
    }
    NOWHERE
}

/// The place of a flow that is STEADY, and its tag from before the key was read. At home there is nothing to read but
/// the place's own cache line.
#[inline(always)]
pub fn find_steady<M: Memory>(memory: M, key: &M::Key, home: Home) -> Option<(M::Place, Tag)> {
    match steady_at(memory, key, home.index) {
        None => steady_at(memory, key, find(memory, key, home, &mut Word(0))),
        found => found,
    }
}

#[inline(always)]
fn steady_at<M: Memory>(memory: M, key: &M::Key, index: u32) -> Option<(M::Place, Tag)> {
    let place = memory.place(index)?;
    let tag = memory.tag(place);
    (tag.phase() == Tag::STEADY && memory.has_key(place, key)).then_some((place, tag))
}

/// Takes the flow at a place, a bounded number of tries. Returns the tag as it was at rest; a FREE one if the flow is not
/// there any more, a BUSY one if somebody else holds it for too long.
#[inline(always)]
pub fn seize<M: Memory>(memory: M, place: M::Place, key: &M::Key, holder: u64) -> Tag {
    for _ in 0..TRIES {
        let tag = memory.tag(place);
        if tag.phase() == Tag::FREE {
            return Tag(Tag::FREE);
        }
        if tag.at_rest() && memory.swap_tag(place, tag, tag.next(holder)) {
            if memory.has_key(place, key) {
                return tag;
            }
            // Another flow has the place by now.
            memory.store_tag(place, tag.next(holder).next(tag.phase()));
            return Tag(Tag::FREE);
        }
    }
    Tag(Tag::BUSY)
}

/// Takes whichever flow is at a place, unless somebody else holds it. Returns the tag as it was.
#[inline(always)]
pub fn take_any<M: Memory>(memory: M, place: M::Place, holder: u64) -> Option<Tag> {
    let tag = memory.tag(place);
    (tag.at_rest() && memory.swap_tag(place, tag, tag.next(holder))).then_some(tag)
}

/// Lets go of a flow.
#[inline(always)]
pub fn let_go<M: Memory>(memory: M, place: M::Place, phase: u64) {
    memory.store_tag(place, memory.tag(place).next(phase));
}

/// The least valuable flow in reach.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Victim {
    /// Its tag.
    pub tag: Tag,
    last_ns: u64,
    /// At which step of the newcomer's.
    pub step: u32,
}

impl Victim {
    /// None yet.
    pub const NOBODY: Victim = Victim { step: NOWHERE, tag: Tag(Tag::LIVE), last_ns: 0 };

    /// A call of its own, for the verifier: it would otherwise tell apart every order in which victims may be met.
    #[inline(never)]
    fn consider(&mut self, tag: Tag, last_ns: u64, step: u32) {
        let (worth, least) = (tag.phase(), self.tag.phase());
        if worth < least || (worth == least && last_ns < self.last_ns) {
            *self = Victim { step, tag, last_ns };
        }
    }
}

/// What a newcomer got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It is listed, and the place is its claimer's.
    Listed,
    /// Something of its home has changed since it was looked for: look again.
    Changed,
}

/// Takes a free place in reach. Returns its step, or [`NOWHERE`]; then `victim` is the least valuable flow that was met,
/// if any may go: one that is over before one that is half open before TIME-WAIT, of these the one silent longest.
#[inline(always)]
pub fn take_free<M: Memory>(memory: M, home: Home, victim: &mut Victim) -> u32 {
    for step in 0..REACH {
        if take_if_free(memory, home, step, victim) {
            return step;
        }
        if step + 1 >= PATIENCE && victim.tag.may_go() {
            break;
        }
    }
    NOWHERE
}

/// Takes the place at this step if it is free, otherwise considers its flow. A call of its own, for the verifier of Linux
/// 6.1: in its loops a jump has to lead back, and a longer body may be laid out so that its end just goes on into its
/// beginning.
#[inline(never)]
fn take_if_free<M: Memory>(memory: M, home: Home, step: u32, victim: &mut Victim) -> bool {
    let Some(place) = memory.place(home.at(step)) else { return false };
    let tag = memory.tag(place);
    if tag.phase() == Tag::FREE {
        return memory.swap_tag(place, tag, tag.claimed(step));
    }
    if tag.may_go() {
        victim.consider(tag, memory.last_ns(place), step);
    }
    false
}

/// Takes the place of a flow that must go, which is then no longer listed. Its record is there until it is overwritten.
#[inline(always)]
pub fn evict<M: Memory>(memory: M, home: Home, victim: &Victim) -> bool {
    let index = home.at(victim.step);
    let Some(place) = memory.place(index) else { return false };
    if !memory.swap_tag(place, victim.tag, victim.tag.claimed(victim.step)) {
        return false;
    }
    unlist(memory, index, victim.tag.step());
    true
}

/// Lists a new flow, whose place its claimer holds, if its home's word is still `seen`.
#[inline(always)]
pub fn list<M: Memory>(memory: M, key: &M::Key, home: Home, step: u32, seen: Word) -> Claim {
    let Some(place) = memory.place(home.at(step)) else { return Claim::Changed };
    memory.set_key(place, key);
    if seen.steps().count_ones() < CROWD && memory.swap_word(home.index, seen, seen.with(step)) {
        return Claim::Listed;
    }
    free(memory, place);
    Claim::Changed
}

/// Gives back a place that has not been listed.
#[inline(always)]
pub fn free<M: Memory>(memory: M, place: M::Place) {
    let_go(memory, place, Tag::FREE);
}

/// Ends the flow at a place that the caller holds.
#[inline(always)]
pub fn retire<M: Memory>(memory: M, index: u32) {
    let Some(place) = memory.place(index) else { return };
    unlist(memory, index, memory.tag(place).step());
    free(memory, place);
}

#[inline(always)]
fn unlist<M: Memory>(memory: M, index: u32, step: u32) {
    let home = Home::back(index, step, memory.places());
    memory.add_word(home.index, Word::without(step));
}
