//! The two kinds of words that the protocol turns on, and where they are.

use super::REACH;
use crate::key::{Secret, TableKey};

/// The tag of a place: phase in bits 0..8, step from the flow's home in bits 8..16, version in bits 16..64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// Nobody's.
    pub const FREE: u64 = 0;
    /// Held by a kernel program.
    pub const BUSY: u64 = 1;
    /// Held by the agent.
    pub const HELD: u64 = 2;
    /// At rest: both ends are CLOSED.
    pub const OVER: u64 = 3;
    /// At rest: no two ends have agreed on it yet.
    pub const HALF_OPEN: u64 = 4;
    /// At rest: TIME-WAIT, the other end CLOSED or in TIME-WAIT too.
    pub const TIME_WAIT: u64 = 5;
    /// At rest: any other flow.
    pub const LIVE: u64 = 6;
    /// LIVE, and its next segments are predicted.
    pub const STEADY: u64 = 7;
    /// How many phases there are.
    pub const PHASES: usize = 8;

    /// Which of them.
    #[inline(always)]
    pub const fn phase(self) -> u64 {
        self.0 & 0xff
    }

    /// Whether it holds a flow that nobody is changing.
    #[inline(always)]
    pub const fn at_rest(self) -> bool {
        self.phase() >= Tag::OVER
    }

    /// Whether its flow may be forgotten for another one.
    #[inline(always)]
    pub const fn may_go(self) -> bool {
        self.at_rest() && self.phase() < Tag::LIVE
    }

    /// How far from the flow's home; meaningful unless FREE.
    #[inline(always)]
    pub const fn step(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff
    }

    /// Another phase, next version.
    #[inline(always)]
    pub const fn next(self, phase: u64) -> Tag {
        Tag(((self.0 & !0xff) | phase).wrapping_add(1 << 16))
    }

    /// The same of a STEADY one, held by a kernel program for a moment.
    #[inline(always)]
    pub const fn interrupted(self) -> Tag {
        Tag(self.0.wrapping_add((1 << 16) - (Tag::STEADY - Tag::BUSY)))
    }

    /// STEADY again, after that.
    #[inline(always)]
    pub const fn resumed(self) -> Tag {
        Tag(self.0.wrapping_add((1 << 16) + (Tag::STEADY - Tag::BUSY)))
    }

    /// Held by a kernel program for a flow that is so far from home, next version.
    #[inline(always)]
    pub const fn claimed(self, step: u32) -> Tag {
        Tag(((self.0 & !0xffff) | (step as u64) << 8 | Tag::BUSY).wrapping_add(1 << 16))
    }
}

/// A home's word in the directory: bits 0..56 say at which steps its flows are, bits 56..64 count those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    const ONE: u64 = 1 << REACH;

    /// The steps at which there are flows, as bits.
    #[inline(always)]
    pub const fn steps(self) -> u64 {
        self.0 & (Word::ONE - 1)
    }

    /// Whether there is a flow at this step.
    #[inline(always)]
    pub const fn has(self, step: u32) -> bool {
        self.0 >> (step & 63) & 1 != 0
    }

    /// With one more flow, and counted: a word never becomes again what it was before a flow went and another came.
    #[inline(always)]
    pub const fn with(self, step: u32) -> Word {
        Word((self.0 | 1 << (step & 63)).wrapping_add(Word::ONE))
    }

    /// The places of this home's flows, in a table of so many.
    #[inline]
    pub fn places(self, home: u32, places: u32) -> impl Iterator<Item = u32> {
        let (home, mut steps) = (Home { index: home, places }, self.steps());
        core::iter::from_fn(move || {
            let step = steps.trailing_zeros();
            steps &= steps.wrapping_sub(1);
            (step < u64::BITS).then(|| home.at(step))
        })
    }

    /// What to add to take a flow away.
    #[inline(always)]
    pub const fn without(step: u32) -> u64 {
        (1u64 << (step & 63)).wrapping_neg()
    }
}

/// The place where a key's search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Number of the place, and of its word.
    pub index: u32,
    places: u32,
}

impl Home {
    /// Of a key, in a table of so many places.
    #[inline(always)]
    pub fn of<K: TableKey>(key: &K, secret: &Secret, places: u32) -> Home {
        Home { index: ((key.hash(secret) as u64 * places as u64) >> 32) as u32, places }
    }

    /// Of the flow at this place, which is so many steps away.
    #[inline(always)]
    pub const fn back(index: u32, step: u32, places: u32) -> Home {
        let distance = distance(step);
        let index = if index >= distance { index - distance } else { index + places - distance };
        Home { index, places }
    }

    /// The place at a step: distances grow, so that flows of neighbouring homes do not crowd the same places.
    #[inline(always)]
    pub const fn at(self, step: u32) -> u32 {
        let index = self.index + distance(step);
        if index >= self.places { index - self.places } else { index }
    }
}

/// Triangular numbers: 0, 1, 3, 6, 10, ...
#[inline(always)]
const fn distance(step: u32) -> u32 {
    step * (step + 1) / 2
}
