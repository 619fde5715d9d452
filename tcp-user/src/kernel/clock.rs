//! Relates the kernel's two clocks: jiffies, which are cheap enough to read for every packet, and the
//! monotonic clock.

use std::time::Duration;

use tcp_common::record::Clocks;

use super::{CLOCKS, Kernel, KernelError, ProgramName, failed};

/// How jiffies convert to nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jiffies {
    /// Length of a jiffy, ns.
    pub length_ns: u64,
    /// Monotonic time of jiffy 0, ns, wrapping. Never too late, so that no packet is seen in the future.
    pub start_ns: u64,
    /// Monotonic time of the last reading, ns.
    read_at_ns: u64,
}

impl Kernel {
    /// Reads both clocks several times and writes their relation to the settings.
    ///
    /// Must be repeated from time to time, because NTP adjusts the monotonic clock and not the jiffies.
    pub fn relate_clocks(&mut self) -> Result<(), KernelError> {
        let (count, between) = if self.jiffies.is_none() { FIRST_READINGS } else { LATER_READINGS };
        let mut readings = Vec::new();
        for _ in 0..count {
            readings.push(self.read_clocks()?);
            std::thread::sleep(between);
        }
        self.jiffies = relate(&readings, self.jiffies);
        // Without a relation, every packet reads the monotonic clock.
        let (length_ns, start_ns) =
            self.jiffies.map_or((0, 0), |jiffies| (jiffies.length_ns, jiffies.start_ns));
        self.current.jiffy_ns = length_ns;
        self.current.jiffies_at_ns = start_ns;
        self.apply_settings()
    }

    fn read_clocks(&self) -> Result<Clocks, KernelError> {
        self.test_run(ProgramName::Clocks, &[0; 64], 1)?;
        let clocks = self.clocks.get(&0, 0);
        Ok(clocks.map_err(|error| failed(format!("reading map {CLOCKS}"), error))?.0)
    }
}

/// Returns the relation that fits all readings and the one before, if there is one.
///
/// A reading may lie anywhere within its jiffy, and later: jiffies stand still while the CPU that counts them does not
/// run. Since they catch up, the earliest start is the right one, but for what NTP has adjusted since then.
fn relate(readings: &[Clocks], before: Option<Jiffies>) -> Option<Jiffies> {
    let (first, last) = (readings.first()?, readings.last()?);
    let length_ns = match before {
        Some(before) => before.length_ns,
        None => {
            let jiffies = last.jiffies.checked_sub(first.jiffies).filter(|&jiffies| jiffies > 0)?;
            let measured = (last.monotonic_ns - first.monotonic_ns) / jiffies;
            // CONFIG_HZ is one of `HZ`. The mean over a few jiffies is accurate enough to say which.
            HZ.into_iter().map(|hz| 1_000_000_000 / hz).min_by_key(|length| length.abs_diff(measured))?
        }
    };
    let starts =
        readings.iter().map(|read| read.monotonic_ns.wrapping_sub(read.jiffies.wrapping_mul(length_ns)));
    let latest = before.map(|before| {
        let since_ns = last.monotonic_ns.saturating_sub(before.read_at_ns);
        before.start_ns.wrapping_add(since_ns / ADJUSTMENT)
    });
    let start_ns = starts.chain(latest).min_by_key(|&start| start as i64)?;
    Some(Jiffies { length_ns, start_ns, read_at_ns: last.monotonic_ns })
}

/// The part of a time by which the kernel adjusts the monotonic clock at most: 1/1000. NTP's limit is 500 ppm, and a
/// changed tick adds to it (`adjtimex`).
const ADJUSTMENT: u64 = 1000;

/// Number of readings and the pause between them. Long enough to distinguish the values of `HZ`.
const FIRST_READINGS: (usize, Duration) = (12, Duration::from_millis(5));
/// Number of readings and the pause between them once the length of a jiffy is known.
const LATER_READINGS: (usize, Duration) = (8, Duration::from_micros(100));
/// Possible values of CONFIG_HZ.
const HZ: [u64; 5] = [100, 250, 300, 500, 1000];

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(hz: u64, boot_ns: u64) -> Vec<Clocks> {
        let length = 1_000_000_000 / hz;
        (0..12u64)
            .map(|step| {
                let monotonic_ns = boot_ns + step * 5_300_000;
                // INITIAL_JIFFIES: the counter starts five minutes before its lower half wraps.
                let jiffies = (u64::from(u32::MAX) - 300 * hz).wrapping_add(monotonic_ns / length);
                Clocks { jiffies, monotonic_ns }
            })
            .collect()
    }

    #[test]
    fn the_length_of_a_jiffy_is_found_and_no_time_lies_in_the_future() {
        for hz in HZ {
            let readings = readings(hz, 77_123_456_789);
            let related = relate(&readings, None).unwrap();
            assert_eq!(related.length_ns, 1_000_000_000 / hz);
            for read in &readings {
                let coarse = read.jiffies.wrapping_mul(related.length_ns).wrapping_add(related.start_ns);
                assert!(coarse <= read.monotonic_ns, "{hz} Hz");
                assert!(read.monotonic_ns - coarse < 2 * related.length_ns, "{hz} Hz");
            }
        }
    }

    #[test]
    fn jiffies_that_lag_do_not_put_later_packets_in_the_future() {
        let right = relate(&readings(250, 77_000_000_000), None).unwrap();
        // The CPU that counts jiffies does not run for 40 ms.
        let lag = |read: Clocks| Clocks { jiffies: read.jiffies - 10, ..read };
        let lagging: Vec<_> = readings(250, 79_000_000_000).into_iter().map(lag).collect();
        let related = relate(&lagging, Some(right)).unwrap();
        for read in readings(250, 79_000_000_000) {
            let coarse = read.jiffies.wrapping_mul(related.length_ns).wrapping_add(related.start_ns);
            assert!(coarse <= read.monotonic_ns + 2_100_000, "more than NTP may have adjusted in 2 s");
        }
        let caught_up = relate(&readings(250, 81_000_000_000), Some(related)).unwrap();
        assert_eq!(caught_up.start_ns, right.start_ns);
    }

    #[test]
    fn the_monotonic_clock_may_be_adjusted_by_a_thousandth() {
        let right = relate(&readings(250, 77_000_000_000), None).unwrap();
        let faster = |read: Clocks| Clocks { monotonic_ns: read.monotonic_ns + 1_000_000, ..read };
        let adjusted: Vec<_> = readings(250, 80_000_000_000).into_iter().map(faster).collect();
        assert_eq!(relate(&adjusted, Some(right)).unwrap().start_ns, right.start_ns + 1_000_000);
    }

    #[test]
    fn a_clock_that_stands_still_relates_to_nothing() {
        let still = [Clocks { jiffies: 5, monotonic_ns: 9 }; 3];
        assert_eq!(relate(&still, None), None);
    }
}
