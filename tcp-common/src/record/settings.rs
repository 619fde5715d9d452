//! What the agent sets for the kernel programs.

use crate::flow::Rules;
use crate::key::Secret;

/// The settings of the kernel programs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The rules of the state machine.
    pub rules: Rules,
    /// Key of the hash that selects a flow's home slot.
    pub secret: Secret,
    /// Time to use instead of the kernel's clock, ns; 0 = the kernel's clock. For tests, with `jiffy_ns` 0.
    pub clock_ns: u64,
    /// [`Rules::steady_silence_ns`]; 0 if no segment may be predicted.
    pub steady_silence_ns: u64,
    /// Length of a jiffy, ns; 0 = unknown, so that every packet reads the monotonic clock.
    pub jiffy_ns: u64,
    /// Monotonic time of jiffy 0, ns, wrapping.
    pub jiffies_at_ns: u64,
    /// Number of slots of the IPv4 table.
    pub slots_v4: u32,
    /// Number of slots of the IPv6 table.
    pub slots_v6: u32,
    /// 1 if the VLAN tags of a packet are part of its key, otherwise 0.
    pub key_by_vlan: u32,
    /// Number of events that one CPU's ring holds, a power of two.
    pub ring_len: u32,
}

impl Settings {
    /// The settings before the agent has written any.
    pub const NONE: Settings = Settings {
        rules: Rules::RFC,
        secret: Secret([[0; 2]; 5]),
        clock_ns: 0,
        steady_silence_ns: 0,
        jiffy_ns: 0,
        jiffies_at_ns: 0,
        slots_v4: 0,
        slots_v6: 0,
        key_by_vlan: 0,
        ring_len: 0,
    };
}

const _: () = assert!(size_of::<Settings>() == 216);

/// The two clocks of the kernel, read one right after the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// `bpf_jiffies64`.
    pub jiffies: u64,
    /// `bpf_ktime_get_ns`, ns.
    pub monotonic_ns: u64,
}
