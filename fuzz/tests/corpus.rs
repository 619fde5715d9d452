//! Every target, over the committed corpus and over mutations of it. Each run has the same mutations.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use finwait_fuzz::TARGETS;

/// Mutations for each target.
const MUTATIONS: u64 = 20_000;

#[test]
fn every_target_accepts_its_corpus_and_mutations_of_it() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        for bytes in &corpus {
            target(bytes);
        }
        let mut random = Random(9_293);
        for _ in 0..MUTATIONS {
            let bytes = mutated(&corpus, &mut random);
            if catch_unwind(|| target(&bytes)).is_err() {
                panic!("{name} panics on {:?}", bytes.escape_ascii().to_string());
            }
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has a corpus");
    paths.iter().map(|path| fs::read(path).expect("a file of the corpus")).collect()
}

/// A file of the corpus with a few bytes changed, inserted, cut off, or replaced by the end of another
/// file.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes.insert(at, random.below(256) as u8),
            3 => bytes.truncate(at),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                bytes.truncate(at);
                bytes.extend(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    bytes
}

/// A pseudorandom generator (SplitMix64): the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }
}
