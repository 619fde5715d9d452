//! The flow table in ordinary memory, with the code that the kernel programs and the agent run: the
//! guaranteed number of flows finds a slot, also after the table has been filled and emptied many
//! times.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tcp_common::table::{self, DirectoryEntry, HomeSlot, Lookup, NO_SLOT, Storage, Tag, Victim, slots_for};
use tcp_common::{Endpoint, FlowKey, FlowKey4, Secret, TableKey as _};

const SECRET: Secret = Secret([[0x5eed_0ff1, 0x0a7a_b1e5]; 5]);

struct Slot {
    tag: AtomicU64,
    key: [AtomicU64; 2],
}

/// Tags, keys and the directory, without flows.
struct Plain {
    slots: Vec<Slot>,
    directory: Vec<AtomicU64>,
}

impl Plain {
    fn new(slots: u32) -> Plain {
        let slot = |_| Slot { tag: AtomicU64::new(0), key: [AtomicU64::new(0), AtomicU64::new(0)] };
        Plain {
            slots: (0..slots).map(slot).collect(),
            directory: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn home(&self, number: u32) -> HomeSlot {
        HomeSlot::of(&key(number), &SECRET, self.slot_count())
    }

    fn find(&self, number: u32) -> Option<u32> {
        let index = table::find(self, &key(number), self.home(number), &mut DirectoryEntry(0));
        (index != NO_SLOT).then_some(index)
    }

    /// Whether the flow found a slot.
    fn open(&self, number: u32) -> bool {
        let home = self.home(number);
        let room = || table::make_room(self, home, &mut Victim::NONE.clone());
        match table::get_or_insert(self, &key(number), home, true, room, || panic!("no other thread runs")) {
            Lookup::Inserted(index) => table::unlock(self, index, Tag::LIVE),
            Lookup::NoRoom => return false,
            other => panic!("flow {number}: {other:?}"),
        }
        true
    }

    fn close(&self, number: u32) {
        let index = self.find(number).expect("it is open");
        assert_eq!(table::lock(self, index, &key(number), Tag::AGENT_LOCKED).phase(), Tag::LIVE);
        table::remove(self, index);
    }
}

impl Storage for &Plain {
    type Key = FlowKey4;
    type Slot = u32;

    const LOCK_TRIES: u32 = 1;

    fn pause(self) {
        panic!("no other thread runs");
    }

    fn slot_count(self) -> u32 {
        self.slots.len() as u32
    }

    fn slot(self, index: u32) -> Option<u32> {
        (index < self.slot_count()).then_some(index)
    }

    fn tag(self, index: u32) -> Tag {
        Tag(self.slots[index as usize].tag.load(SeqCst))
    }

    fn swap_tag(self, index: u32, from: Tag, to: Tag) -> bool {
        self.slots[index as usize].tag.compare_exchange(from.0, to.0, SeqCst, SeqCst).is_ok()
    }

    fn store_tag(self, index: u32, tag: Tag) {
        self.slots[index as usize].tag.store(tag.0, SeqCst);
    }

    fn has_key(self, index: u32, key: &FlowKey4) -> bool {
        let [addresses, ports] = &self.slots[index as usize].key;
        addresses.load(SeqCst) == key.addresses && ports.load(SeqCst) == key.ports
    }

    fn set_key(self, index: u32, key: &FlowKey4) {
        let [addresses, ports] = &self.slots[index as usize].key;
        addresses.store(key.addresses, SeqCst);
        ports.store(key.ports, SeqCst);
    }

    fn last_ns(self, _: u32) -> u64 {
        0
    }

    fn directory_entry(self, home: u32) -> Option<DirectoryEntry> {
        self.directory.get(home as usize).map(|entry| DirectoryEntry(entry.load(SeqCst)))
    }

    fn swap_directory_entry(self, home: u32, from: DirectoryEntry, to: DirectoryEntry) -> bool {
        self.directory[home as usize].compare_exchange(from.0, to.0, SeqCst, SeqCst).is_ok()
    }

    fn add_to_directory_entry(self, home: u32, amount: u64) {
        self.directory[home as usize].fetch_add(amount, SeqCst);
    }
}

fn key(number: u32) -> FlowKey4 {
    let [a, b, c, d] = number.to_be_bytes();
    let client = Endpoint::v4([10, 8, a, b], u16::from_be_bytes([c, d]));
    FlowKey4::of(&FlowKey::new(client, Endpoint::v4([10, 9, 0, 2], 80), 0, 4).0)
}

#[test]
fn the_rated_number_of_flows_all_find_a_slot() {
    for rated in [64, 1_000, 100_000, 500_000] {
        let table = Plain::new(slots_for(rated));
        let refused = (0..rated).filter(|&number| !table.open(number)).count();
        assert_eq!(refused, 0, "of {rated} flows in {} slots", table.slots.len());
        assert!((0..rated).all(|number| table.find(number).is_some()));
    }
}

#[test]
fn the_directory_lists_every_flow_once() {
    let table = Plain::new(slots_for(1_000));
    (0..1_000).for_each(|number| assert!(table.open(number)));
    (0..1_000).step_by(3).for_each(|number| table.close(number));
    let directory = (0..).zip(&table.directory);
    let listed = directory
        .flat_map(|(home, entry)| DirectoryEntry(entry.load(SeqCst)).slots(home, table.slot_count()));
    let mut listed: Vec<u32> = listed.collect();
    let mut open: Vec<u32> = (0..1_000).filter_map(|number| table.find(number)).collect();
    listed.sort_unstable();
    open.sort_unstable();
    assert_eq!(open.len(), 666);
    assert_eq!(listed, open);
}

/// The table stays at its guaranteed number of flows while each new flow replaces a random one.
#[test]
fn a_full_table_takes_a_new_flow_for_each_closed_one() {
    let rated = 50_000;
    let table = Plain::new(slots_for(rated));
    (0..rated).for_each(|number| assert!(table.open(number)));
    let mut random = 0x5eed_0ff1_0a7a_b1e5_u64;
    let mut open: Vec<u32> = (0..rated).collect();
    for number in rated..rated * 6 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let chosen = (random % u64::from(rated)) as usize;
        table.close(std::mem::replace(&mut open[chosen], number));
        assert!(table.open(number), "flow {number}");
    }
    open.iter().for_each(|&number| table.close(number));
    assert!(
        table.directory.iter().all(|entry| DirectoryEntry(entry.load(SeqCst)).probes() == 0),
        "the directory is empty"
    );
    assert!(table.slots.iter().all(|slot| Tag(slot.tag.load(SeqCst)).phase() == Tag::FREE));
}

/// The reason for the directory: probing 8 neighbours, which needs none, refuses about one flow in a
/// thousand although more than half of the table is empty.
#[test]
fn probing_eight_neighbours_refuses_flows_in_a_half_empty_table() {
    let (slots, flows) = (262_144, 100_000);
    let mut taken = vec![false; slots as usize];
    let mut refused = 0;
    for number in 0..flows {
        let home = HomeSlot::of(&key(number), &SECRET, slots).index;
        match (home..home + 8).map(|index| (index % slots) as usize).find(|&index| !taken[index]) {
            Some(index) => taken[index] = true,
            None => refused += 1,
        }
    }
    assert!((60..160).contains(&refused), "{refused} refused");
}

#[test]
fn a_slot_and_its_probe_number_give_the_home_slot() {
    let slots = slots_for(1);
    for home in [0, 1, 700, slots - 1] {
        let mut seen = vec![false; slots as usize];
        let home = (0..u32::MAX)
            .map(|number| HomeSlot::of(&key(number), &SECRET, slots))
            .find(|found| found.index == home)
            .expect("some key has it");
        for probe in 0..table::MAX_PROBES {
            let index = home.slot_at(probe);
            assert_eq!(HomeSlot::of_slot(index, probe, slots), home);
            assert!(!std::mem::replace(&mut seen[index as usize], true), "a slot twice");
        }
    }
}

/// Consecutive keys share home slots no more often than random numbers do, with any secret.
#[test]
fn consecutive_keys_are_spread_like_random_ones() {
    const KEYS: u32 = 1 << 16;
    let v4 = |address: u32, port: u16| {
        let client = Endpoint { address: [0, 0xffff_0000_0000 | u64::from(address)], port };
        FlowKey::new(client, Endpoint::v4([192, 0, 2, 1], 443), 0, 4).0
    };
    let v6 = |high: u64, low: u64, port: u16| {
        let client = Endpoint { address: [high, low], port };
        FlowKey::new(client, Endpoint { address: [0x2001_0db8 << 32, 1], port: 443 }, 0, 6).0
    };
    let series: [&dyn Fn(u32) -> FlowKey; 6] = [
        &|number| v4(0x0a00_0001, number as u16),
        &|number| v4(0x0a00_0000 + number, 40_000),
        &|number| v4(0x0a00_0000 + (number >> 8 << 16), (number & 0xff) as u16 * 256),
        &|number| v6(0x2001_0db8 << 32, u64::from(number), 40_000),
        &|number| v6((0x2001_0db8 << 32) + (u64::from(number) << 16), 1, 40_000),
        &|number| v6(0x2001_0db8 << 32 | u64::from(number & 0xff), 1, (number >> 8) as u16),
    ];
    let mut random = 0x5eed_0ff1_0a7a_b1e5_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as u32
    };
    for round in 0..40 {
        let secret = Secret([[(); 2]; 5].map(|pair| pair.map(|()| next())));
        for (number, key_of) in series.iter().enumerate() {
            let mut homes = vec![0u32; KEYS as usize];
            for key in (0..KEYS).map(key_of) {
                let home = match key.family {
                    4 => HomeSlot::of(&FlowKey4::of(&key), &secret, KEYS),
                    _ => HomeSlot::of(&key, &secret, KEYS),
                };
                homes[home.index as usize] += 1;
            }
            let pairs: u32 = homes.iter().map(|&flows| flows * flows.saturating_sub(1) / 2).sum();
            // As many homes as keys: KEYS / 2 pairs, with a deviation of the square root of that.
            assert!(pairs < KEYS / 2 * 11 / 10, "secret {round}, series {number}: {pairs} pairs of one home");
            assert!(
                homes.iter().all(|&flows| flows <= 12),
                "secret {round}, series {number}: a crowded home"
            );
        }
    }
}
