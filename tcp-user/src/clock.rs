//! The clock of flow records, which is the kernel programs' clock, and its relation to wall time.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Relation of the flow records' clock to wall time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Wall time at which the records' clock was 0, in ns since the epoch.
    pub epoch_ns: i128,
}

impl Clock {
    /// Relates CLOCK_MONOTONIC, which the kernel programs use, to the present wall time.
    pub fn monotonic() -> Clock {
        Clock { epoch_ns: Timestamp::now().as_nanosecond() - i128::from(monotonic_ns()) }
    }

    /// Wall time of a moment on the records' clock, in ns. The epoch if no timestamp can hold it.
    pub fn wall(&self, ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.epoch_ns + i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// CLOCK_MONOTONIC in ns, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    Duration::from(time).as_nanos() as u64
}
