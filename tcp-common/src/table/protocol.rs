//! The steps of the protocol, each in the one order of memory accesses that is right.

use super::{CROWD, Home, Memory, NOWHERE, PATIENCE, REACH, Tag, Word};

/// The place of a flow, or [`NOWHERE`]; then no such flow is listed as long as its home's word is still `seen`.
#[inline(always)]
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

/// Where a flow is that may be STEADY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steady<P> {
    /// Here it is; the tag is from before the key was read.
    Here(P, Tag),
    /// In another place, or nowhere.
    Elsewhere,
    /// It is in another phase.
    Not,
}

/// Looks for a STEADY flow in one place, and reads nothing but that place's own cache line. A flow that rests there in
/// another phase is nowhere else.
#[inline(always)]
pub fn steady_at<M: Memory>(memory: M, key: &M::Key, index: u32) -> Steady<M::Place> {
    let Some(place) = memory.place(index) else { return Steady::Not };
    let tag = memory.tag(place);
    if !memory.has_key(place, key) {
        return Steady::Elsewhere;
    }
    match tag.phase() {
        Tag::STEADY => Steady::Here(place, tag),
        Tag::FREE | Tag::BUSY | Tag::HELD => Steady::Elsewhere,
        _ => Steady::Not,
    }
}

/// Takes the flow at a place, a bounded number of tries. Returns the tag as it was at rest; a FREE one if the flow is not
/// there any more, a BUSY one if somebody else holds it for too long.
#[inline(always)]
pub fn seize<M: Memory>(memory: M, place: M::Place, key: &M::Key, holder: u64) -> Tag {
    let mut taken = Tag(Tag::BUSY);
    for _ in 0..M::TRIES {
        let tag = memory.tag(place);
        if tag.phase() == Tag::FREE {
            return tag;
        }
        if tag.at_rest() && memory.swap_tag(place, tag, tag.next(holder)) {
            taken = tag;
            break;
        }
        memory.pause();
    }
    if taken.at_rest() && !memory.has_key(place, key) {
        // Another flow has the place by now.
        memory.store_tag(place, taken.next(holder).next(taken.phase()));
        return Tag(Tag::FREE);
    }
    taken
}

/// Takes whichever flow is at a place, unless somebody else holds it. Returns the tag as it was.
#[inline(always)]
pub fn take_any<M: Memory>(memory: M, place: M::Place, holder: u64) -> Option<Tag> {
    let tag = memory.tag(place);
    (tag.at_rest() && memory.swap_tag(place, tag, tag.next(holder))).then_some(tag)
}

/// Lets go of a flow, in the phase that is right for it.
#[inline(always)]
pub fn let_go<M: Memory>(memory: M, place: M::Place, phase: u64) {
    memory.store_tag(place, memory.tag(place).next(phase));
}

/// What came of asking for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// It is the caller's, at this place; the tag is from before.
    Found(u32, Tag),
    /// There was none; an empty one is the caller's, at this place.
    Made(u32),
    /// Somebody else holds it, at this place, for too long.
    Held(u32),
    /// There is none, and none was to be made.
    Nothing,
    /// There is none and no place for it.
    NoRoom,
    /// Flows of the same home came and went each time that it was looked for.
    Unsettled,
}

/// Takes the flow of a key, a new one if there is none and `opens`. `room` is [`make_room`] and what the caller does with
/// the victim; `yielded` is called where that was in vain. Looks twice at most: once more if flows of the same home came or
/// went meanwhile. No loop, for the verifier of Linux 6.1 (see `take_if_free`).
#[inline(always)]
pub fn take<M: Memory>(
    memory: M,
    key: &M::Key,
    home: Home,
    opens: bool,
    mut room: impl FnMut() -> u32,
    mut yielded: impl FnMut(),
) -> Took {
    match look(memory, key, home, opens, &mut room, &mut yielded) {
        Took::Unsettled => look(memory, key, home, opens, &mut room, &mut yielded),
        took => took,
    }
}

#[inline(always)]
fn look<M: Memory>(
    memory: M,
    key: &M::Key,
    home: Home,
    opens: bool,
    room: &mut impl FnMut() -> u32,
    yielded: &mut impl FnMut(),
) -> Took {
    let mut seen = Word(0);
    let index = find(memory, key, home, &mut seen);
    if index != NOWHERE {
        let Some(place) = memory.place(index) else { return Took::Nothing };
        let before = seize(memory, place, key, Tag::BUSY);
        return match before.phase() {
            // Retired since it was found.
            Tag::FREE => Took::Unsettled,
            Tag::BUSY => Took::Held(index),
            _ => Took::Found(index, before),
        };
    }
    if !opens {
        return Took::Nothing;
    }
    let step = room();
    if step == NOWHERE {
        return Took::NoRoom;
    }
    if list(memory, key, home, step, seen) {
        return Took::Made(home.at(step));
    }
    yielded();
    Took::Unsettled
}

/// The least valuable flow in reach.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Victim {
    /// Its tag.
    pub tag: Tag,
    last_ns: u64,
    /// At which step of the newcomer's; [`NOWHERE`] if none had to go.
    pub step: u32,
}

impl Victim {
    /// None.
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

/// A place for a newcomer, which nobody else can find: a free one or, where space is short, that of `victim`, whose record
/// is there until it is overwritten. Returns its step, or [`NOWHERE`].
#[inline(always)]
pub fn make_room<M: Memory>(memory: M, home: Home, victim: &mut Victim) -> u32 {
    *victim = Victim::NOBODY;
    let step = take_free(memory, home, victim);
    if step != NOWHERE {
        *victim = Victim::NOBODY;
        return step;
    }
    if victim.step != NOWHERE && evict(memory, home, victim) { victim.step } else { NOWHERE }
}

/// Takes a free place in reach. Returns its step, or [`NOWHERE`]; then `victim` is the least valuable flow that was met,
/// if any may go: one that is over before one that is half open before TIME-WAIT, of these the one silent longest.
#[inline(always)]
pub fn take_free<M: Memory>(memory: M, home: Home, victim: &mut Victim) -> u32 {
    for step in 0..REACH {
        if take_if_free(memory, home, step, victim) {
            return step;
        }
        if step + 1 >= PATIENCE && victim.step != NOWHERE {
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

/// Takes the place of a flow that must go, and that nobody finds any more from then on.
#[inline(always)]
fn evict<M: Memory>(memory: M, home: Home, victim: &Victim) -> bool {
    let index = home.at(victim.step);
    let Some(place) = memory.place(index) else { return false };
    if !memory.swap_tag(place, victim.tag, victim.tag.claimed(victim.step)) {
        return false;
    }
    unlist(memory, index, victim.tag.step());
    true
}

/// Lists a new flow, whose place its maker holds, if its home's word is still `seen`; else gives the place back.
#[inline(never)]
fn list<M: Memory>(memory: M, key: &M::Key, home: Home, step: u32, seen: Word) -> bool {
    let Some(place) = memory.place(home.at(step)) else { return false };
    memory.set_key(place, key);
    if seen.steps().count_ones() < CROWD && memory.swap_word(home.index, seen, seen.with(step)) {
        return true;
    }
    let_go(memory, place, Tag::FREE);
    false
}

/// Ends the flow at a place that the caller holds.
#[inline(always)]
pub fn retire<M: Memory>(memory: M, index: u32) {
    let Some(place) = memory.place(index) else { return };
    unlist(memory, index, memory.tag(place).step());
    let_go(memory, place, Tag::FREE);
}

#[inline(always)]
fn unlist<M: Memory>(memory: M, index: u32, step: u32) {
    let home = Home::back(index, step, memory.places());
    memory.add_word(home.index, Word::without(step));
}

/// Lets go of a place that an agent held when it was killed; for its successor, before that takes anything itself. What
/// was being retired and is no longer listed becomes free, the rest goes to `phase`. Returns whether it was held.
#[inline(always)]
pub fn release_held<M: Memory>(memory: M, index: u32, phase: impl FnOnce() -> u64) -> bool {
    let Some(place) = memory.place(index) else { return false };
    let tag = memory.tag(place);
    if tag.phase() != Tag::HELD {
        return false;
    }
    let home = Home::back(index, tag.step(), memory.places());
    let listed = memory.word(home.index).is_some_and(|word| word.has(tag.step()));
    let_go(memory, place, if listed { phase() } else { Tag::FREE });
    true
}
