//! The flow table in ordinary memory, by the code that the kernel programs and the agent run: as many flows as were asked
//! for find a place, also after the table has been filled and emptied many times over.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tcp_common::table::{self, Home, Memory, NOWHERE, Tag, Took, Victim, Word, places_for};
use tcp_common::{Endpoint, FlowKey, FlowKey4, Secret, TableKey as _};

const SECRET: Secret = Secret([[0x5eed_0ff1, 0x0a7a_b1e5]; 5]);

struct Place {
    tag: AtomicU64,
    key: [AtomicU64; 2],
}

/// Tags, keys and the directory; there are no flows in it.
struct Plain {
    places: Vec<Place>,
    words: Vec<AtomicU64>,
}

impl Plain {
    fn new(places: u32) -> Plain {
        let place = |_| Place { tag: AtomicU64::new(0), key: [AtomicU64::new(0), AtomicU64::new(0)] };
        Plain {
            places: (0..places).map(place).collect(),
            words: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn home(&self, number: u32) -> Home {
        Home::of(&key(number), &SECRET, self.places())
    }

    fn find(&self, number: u32) -> Option<u32> {
        let index = table::find(self, &key(number), self.home(number), &mut Word(0));
        (index != NOWHERE).then_some(index)
    }

    /// Whether the flow found a place.
    fn open(&self, number: u32) -> bool {
        let home = self.home(number);
        let room = || table::make_room(self, home, &mut Victim::NOBODY.clone());
        match table::take(self, &key(number), home, true, room, || panic!("nobody else is here")) {
            Took::Made(index) => table::let_go(self, index, Tag::LIVE),
            Took::NoRoom => return false,
            other => panic!("flow {number}: {other:?}"),
        }
        true
    }

    fn close(&self, number: u32) {
        let index = self.find(number).expect("it is open");
        assert_eq!(table::seize(self, index, &key(number), Tag::HELD).phase(), Tag::LIVE);
        table::retire(self, index);
    }
}

impl Memory for &Plain {
    type Key = FlowKey4;
    type Place = u32;

    const TRIES: u32 = 1;

    fn pause(self) {
        panic!("nobody else is here");
    }

    fn places(self) -> u32 {
        self.places.len() as u32
    }

    fn place(self, index: u32) -> Option<u32> {
        (index < self.places()).then_some(index)
    }

    fn tag(self, index: u32) -> Tag {
        Tag(self.places[index as usize].tag.load(SeqCst))
    }

    fn swap_tag(self, index: u32, from: Tag, to: Tag) -> bool {
        self.places[index as usize].tag.compare_exchange(from.0, to.0, SeqCst, SeqCst).is_ok()
    }

    fn store_tag(self, index: u32, tag: Tag) {
        self.places[index as usize].tag.store(tag.0, SeqCst);
    }

    fn has_key(self, index: u32, key: &FlowKey4) -> bool {
        let [addresses, ports] = &self.places[index as usize].key;
        addresses.load(SeqCst) == key.addresses && ports.load(SeqCst) == key.ports
    }

    fn set_key(self, index: u32, key: &FlowKey4) {
        let [addresses, ports] = &self.places[index as usize].key;
        addresses.store(key.addresses, SeqCst);
        ports.store(key.ports, SeqCst);
    }

    fn last_ns(self, _: u32) -> u64 {
        0
    }

    fn word(self, home: u32) -> Option<Word> {
        self.words.get(home as usize).map(|word| Word(word.load(SeqCst)))
    }

    fn swap_word(self, home: u32, from: Word, to: Word) -> bool {
        self.words[home as usize].compare_exchange(from.0, to.0, SeqCst, SeqCst).is_ok()
    }

    fn add_word(self, home: u32, amount: u64) {
        self.words[home as usize].fetch_add(amount, SeqCst);
    }
}

fn key(number: u32) -> FlowKey4 {
    let [a, b, c, d] = number.to_be_bytes();
    let client = Endpoint::v4([10, 8, a, b], u16::from_be_bytes([c, d]));
    FlowKey4::of(&FlowKey::new(client, Endpoint::v4([10, 9, 0, 2], 80), 0, 4).0)
}

#[test]
fn the_rated_number_of_flows_all_find_a_place() {
    for rated in [64, 1_000, 100_000, 500_000] {
        let table = Plain::new(places_for(rated));
        let refused = (0..rated).filter(|&number| !table.open(number)).count();
        assert_eq!(refused, 0, "of {rated} flows in {} places", table.places.len());
        assert!((0..rated).all(|number| table.find(number).is_some()));
    }
}

#[test]
fn the_directory_lists_every_flow_once() {
    let table = Plain::new(places_for(1_000));
    (0..1_000).for_each(|number| assert!(table.open(number)));
    (0..1_000).step_by(3).for_each(|number| table.close(number));
    let words = (0..).zip(&table.words);
    let listed = words.flat_map(|(home, word)| Word(word.load(SeqCst)).places(home, table.places()));
    let mut listed: Vec<u32> = listed.collect();
    let mut open: Vec<u32> = (0..1_000).filter_map(|number| table.find(number)).collect();
    listed.sort_unstable();
    open.sort_unstable();
    assert_eq!(open.len(), 666);
    assert_eq!(listed, open);
}

/// Only live flows, the table always as full as it may be: the places fill up behind those that come free.
#[test]
fn and_so_do_those_that_come_after_them() {
    let rated = 50_000;
    let table = Plain::new(places_for(rated));
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
    assert!(table.words.iter().all(|word| Word(word.load(SeqCst)).steps() == 0), "nothing is listed");
    assert!(table.places.iter().all(|place| Tag(place.tag.load(SeqCst)).phase() == Tag::FREE));
}

/// Why there is a directory: a window of 8 neighbours, which can be looked through without one, turns about one flow in a
/// thousand away though more than half of the table is empty.
#[test]
fn a_window_of_neighbours_would_not_do() {
    let (places, flows) = (262_144, 100_000);
    let mut taken = vec![false; places as usize];
    let mut refused = 0;
    for number in 0..flows {
        let home = Home::of(&key(number), &SECRET, places).index;
        match (home..home + 8).map(|index| (index % places) as usize).find(|&index| !taken[index]) {
            Some(index) => taken[index] = true,
            None => refused += 1,
        }
    }
    assert!((60..160).contains(&refused), "{refused} refused");
}

#[test]
fn a_place_leads_back_to_its_home() {
    let places = places_for(1);
    for home in [0, 1, 700, places - 1] {
        let mut seen = vec![false; places as usize];
        let home = (0..u32::MAX)
            .map(|number| Home::of(&key(number), &SECRET, places))
            .find(|found| found.index == home)
            .expect("some key has it");
        for step in 0..table::REACH {
            let index = home.at(step);
            assert_eq!(Home::back(index, step, places), home);
            assert!(!std::mem::replace(&mut seen[index as usize], true), "a place twice");
        }
    }
}

/// Keys that count up make no more pairs of one home than random numbers do, whatever the secret.
#[test]
fn neighbouring_keys_are_spread_as_random_ones_are() {
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
                    4 => Home::of(&FlowKey4::of(&key), &secret, KEYS),
                    _ => Home::of(&key, &secret, KEYS),
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
