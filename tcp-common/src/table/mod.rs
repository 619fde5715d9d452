//! The flow table: how a flow is found, claimed, taken, let go and retired, by kernel programs and agent at once.
//!
//! The protocol is told in `docs/FLOW_TABLE.md`. It is written here once, over a [`Memory`]: the kernel programs' maps,
//! the agent's mapping of them, and the memory of a model checker that tries every interleaving.

mod protocol;
mod words;

pub use protocol::{
    Steady, Took, Victim, find, let_go, make_room, release_held, retire, seize, steady_at, take, take_any,
    take_free,
};
pub use words::{Home, Tag, Word};

use crate::key::TableKey;

/// How many places a flow may be in.
pub const REACH: u32 = 56;
/// How many flows of one home are looked through; a home has one in three of its own on average, and never so many.
pub const CROWD: u32 = 16;
/// A newcomer that finds none of so many places free takes the least valuable flow's.
pub const PATIENCE: u32 = 8;
/// Tables are not smaller, so that a place in reach never lies more than once round.
pub const MIN_PLACES: u32 = 2048;
/// No place; a table is never that large.
pub const NOWHERE: u32 = u32::MAX;

const _: () = assert!(MIN_PLACES > REACH * (REACH - 1) / 2);

/// Places for so many flows that all of them find one: four for three.
pub const fn places_for(flows: u32) -> u32 {
    let places = flows as u64 * 4 / 3 + 1;
    if places < MIN_PLACES as u64 {
        MIN_PLACES
    } else if places > 1 << 31 {
        1 << 31
    } else {
        places as u32
    }
}

/// One side's access to the memory of a table. `tag` and `word` are acquire loads, `store_tag` is a release store, the
/// others are sequentially consistent; what they order is told beside the protocol.
pub trait Memory: Copy {
    /// What its flows are found by.
    type Key: TableKey;
    /// A place that is known to exist.
    type Place: Copy;

    /// How often a place that somebody else holds is asked for before the segment is deferred.
    const TRIES: u32;

    /// Between two of them.
    fn pause(self);

    /// How many there are.
    fn places(self) -> u32;
    /// The place of a number.
    fn place(self, index: u32) -> Option<Self::Place>;

    /// The tag as it is.
    fn tag(self, place: Self::Place) -> Tag;
    /// Compare-and-swap: whether the tag was `from` and is now `to`.
    fn swap_tag(self, place: Self::Place, from: Tag, to: Tag) -> bool;
    /// For who holds the place: everything written before is seen before.
    fn store_tag(self, place: Self::Place, tag: Tag);

    /// Whether the place has this key. Another may be being written: then the answer means nothing.
    fn has_key(self, place: Self::Place, key: &Self::Key) -> bool;
    /// For who holds the place.
    fn set_key(self, place: Self::Place, key: &Self::Key);
    /// When its flow's last segment was seen, ns; means nothing while somebody holds it.
    fn last_ns(self, place: Self::Place) -> u64;

    /// The directory's word of a home.
    fn word(self, home: u32) -> Option<Word>;
    /// Compare-and-swap: whether the word was `from` and is now `to`.
    fn swap_word(self, home: u32, from: Word, to: Word) -> bool;
    /// Adds to it, wrapping.
    fn add_word(self, home: u32, amount: u64);
}
