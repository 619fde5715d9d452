//! A way round the table that is gone at an even pace, in strides between which there may be anything else.

use std::ops::Range;
use std::time::Duration;

/// Who goes round all places, again and again.
pub(super) struct PacedScan {
    places: u32,
    next: u32,
    /// How many places the walk is behind, and the rest that makes no whole place yet, in parts of `PARTS`.
    backlog: u64,
}

impl PacedScan {
    /// Round so many places, at least one.
    pub(super) fn round(places: u32) -> PacedScan {
        PacedScan { places, next: 0, backlog: 0 }
    }

    /// Time has passed, at a pace of once round in `round_ns`. No more than once round is ever backlog.
    pub(super) fn time_passed(&mut self, elapsed: Duration, round_ns: u64) {
        let elapsed_ns = elapsed.as_nanos().min(u128::from(round_ns)) as u64;
        let part = (u128::from(elapsed_ns) * u128::from(PARTS) / u128::from(round_ns)) as u64;
        let places = u64::from(self.places);
        self.backlog = (self.backlog + places * part).min(places * PARTS);
    }

    /// Whether there are places to go to by now.
    pub(super) fn is_behind(&self) -> bool {
        self.backlog >= PARTS
    }

    /// The next stride: at least one place, at most [`STRIDE`], and not across the table's end.
    pub(super) fn next_stride(&self) -> Range<u32> {
        let count = (self.backlog / PARTS).clamp(1, u64::from(STRIDE)) as u32;
        self.next..self.places.min(self.next + count)
    }

    /// The places before this one have been seen to.
    pub(super) fn advance(&mut self, end: u32) {
        self.backlog = self.backlog.saturating_sub(u64::from(end - self.next) * PARTS);
        self.next = end % self.places;
    }
}

/// Places of a stride: so many looks take well under a millisecond.
pub(super) const STRIDE: u32 = 128;
/// Of a time round: 2 to the 24th is finer than any turn, and 2 to the 32nd places of so many parts are a `u64`.
const PARTS: u64 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes to all that is backlog; returns how many places that was.
    fn catch_up(walk: &mut PacedScan) -> u32 {
        let mut gone = 0;
        while walk.is_behind() {
            let Range { start, end } = walk.next_stride();
            assert!(start < end && end <= walk.places && end - start <= STRIDE);
            walk.advance(end);
            gone += end - start;
        }
        gone
    }

    #[test]
    fn a_round_takes_its_time_whatever_the_turns() {
        for turn_ms in [1, 3, 8, 250, 1_000] {
            let mut walk = PacedScan::round(1_000_003);
            let turns = 8_000_u64.div_ceil(turn_ms);
            let gone: u32 = (0..turns)
                .map(|_| {
                    walk.time_passed(Duration::from_millis(turn_ms), 4_000_000_000);
                    catch_up(&mut walk)
                })
                .sum();
            let due = 1_000_003 * turns * turn_ms / 4_000;
            assert!(
                u64::from(gone).abs_diff(due) <= 1_000,
                "{gone} places in turns of {turn_ms} ms, not {due}"
            );
        }
    }

    #[test]
    fn after_a_long_pause_once_round_is_enough() {
        let mut walk = PacedScan::round(700);
        walk.time_passed(Duration::from_secs(3_600), 250_000_000);
        assert_eq!(catch_up(&mut walk), 700);
    }

    #[test]
    fn a_stride_cut_short_is_gone_on_from() {
        let mut walk = PacedScan::round(u32::MAX);
        walk.time_passed(Duration::from_secs(1), 1_000_000_000);
        walk.advance(100);
        assert_eq!(walk.next_stride(), 100..100 + STRIDE);
    }
}
