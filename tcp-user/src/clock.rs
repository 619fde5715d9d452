//! The clock of flow records, which is the kernel programs' clock, and its relation to wall time.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Relation of the flow records' clock to wall time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Wall time at which the records' clock was 0, in ns since the epoch.
    pub epoch_ns: i128,
    /// The boot with which the records' clock began.
    pub boot: BootId,
}

/// Id of a boot of the machine, from which CLOCK_MONOTONIC counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// Stands for the clock of a capture, which counts from the epoch, and for a boot whose id is unknown.
    pub const NONE: BootId = BootId([0; 16]);

    /// The present boot; [`BootId::NONE`] without /proc.
    pub fn read() -> BootId {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits = text.trim().replace('-', "");
        u128::from_str_radix(&digits, 16).map_or(BootId::NONE, |id| BootId(id.to_be_bytes()))
    }
}

impl Clock {
    /// Relates CLOCK_MONOTONIC, which the kernel programs use, to the present wall time.
    pub fn monotonic() -> Clock {
        let epoch_ns = Timestamp::now().as_nanosecond() - i128::from(monotonic_ns());
        Clock { epoch_ns, boot: BootId::read() }
    }

    /// Replaces the relation by a later one if the wall clock was set in between. A smaller difference is an
    /// error of the readings: without one, a moment has the same wall time in every record.
    pub fn follow(&mut self, later: Clock) {
        if (self.epoch_ns - later.epoch_ns).abs() > READING_ERROR_NS {
            *self = later;
        }
    }

    /// Wall time of a moment on the records' clock, in ns. The epoch if no timestamp can hold it.
    pub fn wall(&self, ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.epoch_ns + i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Greatest error of a reading of both clocks, in ns: the time for which a thread may be off the CPU between the
/// two. NTP adjusts both clocks alike unless it sets the wall clock, which it does from 128 ms on.
const READING_ERROR_NS: i128 = 100_000_000;

/// CLOCK_MONOTONIC in ns, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    Duration::from(time).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_wall_time_until_the_wall_clock_is_set() {
        let at = |epoch_ns| Clock { epoch_ns, boot: BootId::NONE };
        let mut clock = at(1_000_000_000_000);
        let moment = clock.wall(5);
        clock.follow(at(1_000_000_000_000 + 99_000_000));
        assert_eq!(clock.wall(5), moment);
        let set = at(1_000_000_000_000 - 3_600_000_000_000);
        clock.follow(set);
        assert_eq!(clock.epoch_ns, set.epoch_ns);
    }

    #[test]
    fn this_boot_has_an_id() {
        assert_ne!(BootId::read(), BootId::NONE);
        assert_eq!(BootId::read(), BootId::read());
    }
}
