//! The clocks. Tests replace them through the settings.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use tcp_common::record::Settings;

use crate::maps::CLOCKS;

/// Reads the kernel's monotonic clock, ns.
#[inline(always)]
pub(crate) fn now_ns(settings: &Settings) -> u64 {
    if settings.clock_ns != 0 {
        return settings.clock_ns;
    }
    // SAFETY: the helper has no arguments and only returns a number.
    unsafe { bpf_ktime_get_ns() }
}

/// Reads the monotonic clock by way of jiffies, ns. Up to a jiffy late, but one load instead of a call of some 30 ns.
#[inline(always)]
pub(crate) fn coarse_ns(settings: &Settings) -> u64 {
    if settings.jiffy_ns == 0 {
        return now_ns(settings);
    }
    // SAFETY: the helper has no arguments and only returns a number.
    unsafe { bpf_jiffies64() }.wrapping_mul(settings.jiffy_ns).wrapping_add(settings.jiffies_at_ns)
}

/// Reads both clocks, one right after the other, for the agent.
#[inline(always)]
pub(crate) fn read_both() {
    if let Some(clocks) = CLOCKS.get_ptr_mut(0) {
        // SAFETY: a map value that only `finwait_clocks` writes, which the agent runs from one thread at a time. The
        // helpers have no arguments and only return numbers.
        unsafe {
            (*clocks).jiffies = bpf_jiffies64();
            (*clocks).monotonic_ns = bpf_ktime_get_ns();
        }
    }
}
