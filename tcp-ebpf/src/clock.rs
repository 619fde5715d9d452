//! Time enters the programs here. Tests replace it through the settings.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use tcp_common::record::Settings;

use crate::maps::CLOCKS;

/// The kernel's monotonic clock, ns.
#[inline(always)]
pub fn now_ns(settings: &Settings) -> u64 {
    if settings.clock_ns != 0 {
        return settings.clock_ns;
    }
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_ktime_get_ns() }
}

/// The same, up to a jiffy late: reading jiffies is one load, reading the clock a call and some 30 ns.
#[inline(always)]
pub fn coarse_ns(settings: &Settings) -> u64 {
    if settings.jiffy_ns == 0 {
        return now_ns(settings);
    }
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_jiffies64() }.wrapping_mul(settings.jiffy_ns).wrapping_add(settings.jiffies_at_ns)
}

/// Reads both clocks at one moment, as near as it gets.
#[inline(always)]
pub fn read_both() {
    if let Some(clocks) = CLOCKS.get_ptr_mut(0) {
        // SAFETY: the map's only value, which this program alone writes; the helpers take nothing.
        unsafe {
            (*clocks).jiffies = bpf_jiffies64();
            (*clocks).monotonic_ns = bpf_ktime_get_ns();
        }
    }
}
