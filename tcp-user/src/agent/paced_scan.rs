//! A cyclic scan at an even pace, in strides between which other work may be done.

use std::ops::Range;
use std::time::Duration;

/// A cyclic scan over the indices `0..length`.
pub(super) struct PacedScan {
    length: u32,
    next: u32,
    /// Indices that are due, in parts of 1/[`PARTS`].
    backlog: u64,
}

impl PacedScan {
    /// A scan over `length` indices, at least one.
    pub(super) fn round(length: u32) -> PacedScan {
        PacedScan { length, next: 0, backlog: 0 }
    }

    /// Adds what becomes due in `elapsed` at the pace of one round in `round_ns`. The backlog is one round at
    /// most.
    pub(super) fn time_passed(&mut self, elapsed: Duration, round_ns: u64) {
        let elapsed_ns = elapsed.as_nanos().min(u128::from(round_ns)) as u64;
        let part = (u128::from(elapsed_ns) * u128::from(PARTS) / u128::from(round_ns)) as u64;
        let length = u64::from(self.length);
        self.backlog = (self.backlog + length * part).min(length * PARTS);
    }

    /// Whether an index is due.
    pub(super) fn is_behind(&self) -> bool {
        self.backlog >= PARTS
    }

    /// The next stride: at least one index, at most [`STRIDE`], and not beyond the end.
    pub(super) fn next_stride(&self) -> Range<u32> {
        let count = (self.backlog / PARTS).clamp(1, u64::from(STRIDE)) as u32;
        self.next..self.length.min(self.next + count)
    }

    /// Continues at `end`: the indices before it are done.
    pub(super) fn advance(&mut self, end: u32) {
        self.backlog = self.backlog.saturating_sub(u64::from(end - self.next) * PARTS);
        self.next = end % self.length;
    }
}

/// Greatest length of a stride: that many visits take less than a millisecond.
pub(super) const STRIDE: u32 = 128;
/// Parts of an index. 2^24 are finer than any period between two calls, and 2^32 indices in these parts fit a
/// `u64`.
const PARTS: u64 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// Works off the backlog. Returns the number of indices.
    fn catch_up(scan: &mut PacedScan) -> u32 {
        let mut count = 0;
        while scan.is_behind() {
            let Range { start, end } = scan.next_stride();
            assert!(start < end && end <= scan.length && end - start <= STRIDE);
            scan.advance(end);
            count += end - start;
        }
        count
    }

    #[test]
    fn a_round_takes_its_time_whatever_the_turns() {
        for turn_ms in [1, 3, 8, 250, 1_000] {
            let mut scan = PacedScan::round(1_000_003);
            let turns = 8_000_u64.div_ceil(turn_ms);
            let gone: u32 = (0..turns)
                .map(|_| {
                    scan.time_passed(Duration::from_millis(turn_ms), 4_000_000_000);
                    catch_up(&mut scan)
                })
                .sum();
            let due = 1_000_003 * turns * turn_ms / 4_000;
            assert!(
                u64::from(gone).abs_diff(due) <= 1_000,
                "{gone} length in turns of {turn_ms} ms, not {due}"
            );
        }
    }

    #[test]
    fn after_a_long_pause_once_round_is_enough() {
        let mut scan = PacedScan::round(700);
        scan.time_passed(Duration::from_secs(3_600), 250_000_000);
        assert_eq!(catch_up(&mut scan), 700);
    }

    #[test]
    fn a_stride_cut_short_is_gone_on_from() {
        let mut scan = PacedScan::round(u32::MAX);
        scan.time_passed(Duration::from_secs(1), 1_000_000_000);
        scan.advance(100);
        assert_eq!(scan.next_stride(), 100..100 + STRIDE);
    }
}
