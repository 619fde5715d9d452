//! The protocol of the flow table under a model checker (loom): every interleaving of CPUs and agent at
//! every memory access, with the reorderings that the C11 memory model allows. The protocol is the code
//! of the kernel programs and the agent; only the few lines around it are repeated here.
//!
//! The smaller cases cover all interleavings. The others (all with three threads, and some with two)
//! cover those with at most two preemptions. Each case states its limit.

mod storage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use loom::thread;
use storage::{Table, home_of, key, neighbours};
use tcp_common::table::{self, DirectoryEntry, Lookup, NO_SLOT, PredictedLookup, Tag, Victim};

/// Counts of everything that happened, for the check at the end.
#[derive(Default)]
struct Book {
    /// Segments applied to a flow, by the number of its key.
    given: std::sync::Mutex<std::collections::HashMap<u32, u64>>,
    deferred: AtomicU64,
    refused: AtomicU64,
}

struct World {
    table: Table,
    book: Book,
}

impl World {
    fn give(&self, number: u32) {
        *self.book.given.lock().expect("no panic").entry(number).or_default() += 1;
    }

    /// The kernel program's path of a segment. The flow is unlocked in `phase`.
    fn packet(&self, number: u32, phase: u64) {
        let (table, home) = (&self.table, home_of(number));
        let room = || {
            let mut victim = Victim::NONE;
            let probe = table::make_room(table, home, &mut victim);
            if probe != NO_SLOT && victim.probe != NO_SLOT {
                table.flush(home.slot_at(probe));
                table.record_removed(home.slot_at(probe));
            }
            probe
        };
        match table::get_or_insert(table, &key(number), home, true, room, || {}) {
            Lookup::Found(index, before) => {
                if before.phase() == Tag::PREDICTED {
                    table.flush(index);
                }
                self.apply(index, number, phase);
            }
            Lookup::Inserted(index) => {
                table.flush(index);
                table.change(index, |flow| *flow = storage::Flow { owner: number, segments: 0, phase });
                self.apply(index, number, phase);
            }
            Lookup::Locked(_) | Lookup::Contended => _ = self.book.deferred.fetch_add(1, Relaxed),
            Lookup::NoRoom => _ = self.book.refused.fetch_add(1, Relaxed),
            Lookup::Absent => panic!("the segment may open a flow"),
        }
    }

    fn apply(&self, index: u32, number: u32, phase: u64) {
        self.table.change(index, |flow| {
            assert_eq!(flow.owner, number, "a segment in another's flow");
            flow.segments += 1;
            flow.phase = phase;
        });
        self.give(number);
        table::unlock(&self.table, index, phase);
    }

    /// The path of a plain segment: predicted, or else through the state machine.
    fn plain(&self, number: u32) {
        let table = &self.table;
        let home = home_of(number);
        let mut found = table::predicted_at(table, &key(number), home.index);
        if found == PredictedLookup::Elsewhere {
            let index = table::find(table, &key(number), home, &mut DirectoryEntry(0));
            found = table::predicted_at(table, &key(number), index);
        }
        let found = match found {
            PredictedLookup::Found(index, tag) => Some((index, tag, table.predicted(index))),
            PredictedLookup::Elsewhere | PredictedLookup::NotPredicted => None,
        };
        if let Some((index, tag, read)) = found
            && table::Storage::swap_tag(table, index, tag, tag.lock_predicted())
        {
            assert_eq!(table.predicted(index), read, "what was read before the slot was taken is not so");
            let owner = table.change(index, |flow| flow.owner);
            assert_eq!(owner, number, "a predicted segment in another's flow");
            table.predict(index);
            self.give(number);
            table::Storage::store_tag(table, index, tag.lock_predicted().unlock_predicted());
        } else {
            self.packet(number, Tag::PREDICTED);
        }
    }

    /// The agent's scan: removes the flow of a slot if it has ended.
    fn expire(&self, index: u32) {
        let table = &self.table;
        if let Some(before) = table::try_lock(table, index, Tag::AGENT_LOCKED) {
            if before.phase() == Tag::CLOSED {
                table.record_removed(index);
                table::remove(table, index);
            } else {
                if before.phase() == Tag::PREDICTED {
                    table.flush(index);
                }
                table::unlock(table, index, before.phase());
            }
        }
    }

    /// The agent applies a deferred segment.
    fn deferred(&self, number: u32) {
        let table = &self.table;
        let index = table::find(table, &key(number), home_of(number), &mut DirectoryEntry(0));
        if index == NO_SLOT {
            return;
        }
        let before = table::lock(table, index, &key(number), Tag::AGENT_LOCKED);
        if before.is_unlocked() {
            if before.phase() == Tag::PREDICTED {
                table.flush(index);
            }
            self.apply(index, number, Tag::LIVE);
        }
    }

    /// Checks the end: every flow is in the directory once, nothing else is, no slot is locked, and no
    /// segment is lost.
    fn check(&self) {
        let mut given = self.book.given.lock().expect("no panic").clone();
        let mut owners = Vec::new();
        for (index, tag) in self.table.tags() {
            if tag.phase() == Tag::FREE {
                continue;
            }
            assert!(tag.is_unlocked(), "slot {index} is locked by no living owner: {tag:?}");
            assert!(self.table.lists(index, tag.probe()), "the flow at {index} is not listed");
            self.table.flush(index);
            let flow = self.table.change(index, |flow| *flow);
            assert_eq!(tag.phase(), flow.phase, "the flow at {index} is not in the phase it was let go in");
            assert!(table::Storage::has_key(&self.table, index, &key(flow.owner)));
            owners.push(flow.owner);
            let count = given.entry(flow.owner).or_default();
            *count = count.checked_sub(flow.segments).expect("a segment was counted twice");
        }
        assert_eq!(self.table.listed() as usize, owners.len(), "something is listed that is not there");
        owners.sort_unstable();
        assert!(owners.windows(2).all(|pair| pair[0] != pair[1]), "a flow twice: {owners:?}");
        for (owner, segments) in self.table.gone.lock().expect("no panic").iter() {
            let count = given.entry(*owner).or_default();
            *count = count.checked_sub(*segments).expect("a segment was counted twice");
        }
        assert!(given.values().all(|&count| count == 0), "segments are lost: {given:?}");
    }
}

type Actor = fn(&World, &[u32]);

/// Checks every interleaving of the actors after `begin`, in a table with `slots` slots within reach of
/// the keys' home. Keys are numbered from 0. All have the same home slot, except for the last two:
/// their home shares its second slot.
fn model(slots: u32, preemptions: Option<usize>, begin: Actor, actors: &'static [Actor]) {
    let (mut keys, home) = neighbours(3);
    let second = home.slot_at(1);
    let other = (0..).find(|&number| home_of(number).index == second).expect("some key has it");
    keys.push(other);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        let slots: Vec<_> = (0..slots).map(|probe| home.slot_at(probe)).collect();
        #[expect(clippy::arc_with_non_send_sync, reason = "the checker runs one thread at a time")]
        let world =
            Arc::new(World { table: Table::new(&slots, &[home, home_of(other)]), book: Book::default() });
        begin(&world, &keys);
        let threads: Vec<_> = actors
            .iter()
            .map(|&actor| {
                let (world, keys) = (Arc::clone(&world), keys.clone());
                thread::spawn(move || actor(&world, &keys))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        world.check();
    });
    println!("{} interleavings", runs.load(Relaxed));
}

fn nothing(_: &World, _: &[u32]) {}

#[test]
fn both_directions_insert_the_same_flow() {
    model(
        2,
        None,
        nothing,
        &[|world, keys| world.packet(keys[0], Tag::LIVE), |world, keys| world.packet(keys[0], Tag::LIVE)],
    );
}

#[test]
fn two_flows_are_inserted_into_the_same_slot() {
    model(
        2,
        None,
        nothing,
        &[|world, keys| world.packet(keys[0], Tag::LIVE), |world, keys| world.packet(keys[1], Tag::LIVE)],
    );
}

#[test]
fn a_predicted_segment_beside_a_transition() {
    model(
        1,
        None,
        |world, keys| world.packet(keys[0], Tag::PREDICTED),
        &[|world, keys| world.plain(keys[0]), |world, keys| world.packet(keys[0], Tag::LIVE)],
    );
}

#[test]
fn predicted_segments_both_ways_beside_the_scan() {
    model(
        1,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::PREDICTED),
        &[
            |world, keys| world.plain(keys[0]),
            |world, keys| world.plain(keys[0]),
            |world, keys| world.expire(home_of(keys[0]).index),
        ],
    );
}

/// The segment keeps the flow, inserts it again, or is deferred: never a mixture.
#[test]
fn expiry_beside_a_segment_of_the_flow() {
    model(
        1,
        None,
        |world, keys| world.packet(keys[0], Tag::CLOSED),
        &[|world, keys| world.packet(keys[0], Tag::LIVE), |world, keys| world.expire(home_of(keys[0]).index)],
    );
}

#[test]
fn expiry_beside_both_directions_of_the_next_incarnation() {
    model(
        2,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::CLOSED),
        &[
            |world, keys| world.packet(keys[0], Tag::LIVE),
            |world, keys| world.packet(keys[0], Tag::LIVE),
            |world, keys| world.expire(home_of(keys[0]).index),
        ],
    );
}

/// The slot gets another flow between one CPU's lookup and its lock: the versions of tag and directory
/// entry show it.
#[test]
fn expiry_and_another_flow_in_the_same_slot_beside_a_late_segment() {
    model(
        1,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::CLOSED),
        &[
            |world, keys| world.packet(keys[0], Tag::LIVE),
            |world, keys| world.expire(home_of(keys[0]).index),
            |world, keys| world.packet(keys[1], Tag::LIVE),
        ],
    );
}

#[test]
fn expiry_and_reinsertion_in_the_same_slot_beside_another_insertion() {
    model(
        2,
        Some(2),
        |world, keys| world.packet(keys[1], Tag::CLOSED),
        &[
            |world, keys| world.packet(keys[0], Tag::LIVE),
            |world, keys| {
                world.expire(home_of(keys[0]).index);
                world.packet(keys[0], Tag::LIVE);
            },
        ],
    );
}

#[test]
fn a_predicted_segment_beside_the_end_of_its_flow_and_another_in_its_slot() {
    model(
        1,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::PREDICTED),
        &[
            |world, keys| world.plain(keys[0]),
            |world, keys| {
                world.packet(keys[0], Tag::CLOSED);
                world.expire(home_of(keys[0]).index);
                world.packet(keys[1], Tag::PREDICTED);
            },
        ],
    );
}

/// A new flow evicts a half-open flow of another home while a segment of the latter arrives.
#[test]
fn eviction_beside_a_segment_of_the_victim() {
    fn half_open(world: &World, keys: &[u32]) {
        world.packet(keys[0], Tag::LIVE);
        world.packet(keys[3], Tag::HALF_OPEN);
    }
    model(
        2,
        None,
        half_open,
        &[
            |world, keys| world.packet(keys[1], Tag::HALF_OPEN),
            |world, keys| world.packet(keys[3], Tag::LIVE),
        ],
    );
}

#[test]
fn two_evictions_of_the_same_victim_beside_the_scan() {
    model(
        1,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::CLOSED),
        &[
            |world, keys| world.packet(keys[1], Tag::LIVE),
            |world, keys| world.packet(keys[2], Tag::LIVE),
            |world, keys| world.expire(home_of(keys[0]).index),
        ],
    );
}

#[test]
fn a_deferred_segment_beside_both_cpus() {
    model(
        1,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::PREDICTED),
        &[
            |world, keys| world.deferred(keys[0]),
            |world, keys| world.plain(keys[0]),
            |world, keys| world.packet(keys[0], Tag::CLOSED),
        ],
    );
}

#[test]
fn a_deferred_segment_beside_expiry_and_another_flow() {
    model(
        1,
        Some(2),
        |world, keys| world.packet(keys[0], Tag::CLOSED),
        &[
            |world, keys| world.deferred(keys[0]),
            |world, keys| {
                world.expire(home_of(keys[0]).index);
                world.packet(keys[1], Tag::LIVE);
            },
        ],
    );
}
