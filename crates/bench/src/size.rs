//! The extent of the measurements, limited by memory.

use std::fs;

use anyhow::{Context as _, Result};

/// The extent of the measurements.
pub(crate) struct Size {
    /// Interleaved rounds.
    pub(crate) rounds: usize,
    /// Interleaved rounds of slow measurements.
    pub(crate) long_rounds: usize,
    /// Runs of one frame per system call.
    pub(crate) repeat: u32,
    /// Frames per round with a system call each.
    pub(crate) stream: u32,
    /// Frames per round and case with many connections.
    pub(crate) frames: u32,
    /// Numbers of connections in the kernel programs alone, ascending.
    pub(crate) flows: &'static [u32],
    /// Numbers of new connections per round, ascending. The highest that fits in memory is used.
    pub(crate) opens: &'static [u32],
    /// SYNs per round.
    pub(crate) flood: u32,
    /// Real connections per round.
    pub(crate) connects: usize,
    /// Seconds of load per round.
    pub(crate) wrk: u32,
    /// Groups of numbers of connections in the agent. Each group has a table for its highest number.
    pub(crate) agent: &'static [&'static [u32]],
    /// Seconds of closes for the history on disk.
    pub(crate) history: u32,
    /// The agent's `--msl`: half the duration of its TIME-WAITs.
    pub(crate) msl: &'static str,
}

/// The extent with `--quick`.
pub(crate) const QUICK: Size = Size {
    rounds: 7,
    long_rounds: 7,
    repeat: 100_000,
    stream: 10_000,
    frames: 50_000,
    flows: &[1, 10_000, 100_000],
    opens: &[50_000],
    flood: 100_000,
    connects: 5_000,
    wrk: 1,
    agent: &[&[1, 100_000]],
    history: 10,
    msl: "6s",
};

/// The extent of a whole run.
pub(crate) const WHOLE: Size = Size {
    rounds: 11,
    long_rounds: 7,
    repeat: 400_000,
    stream: 50_000,
    frames: 200_000,
    flows: &[1, 10_000, 100_000, 1_000_000, 4_000_000],
    opens: &[100_000, 1_000_000],
    flood: 400_000,
    connects: 20_000,
    wrk: 2,
    agent: &[&[1, 10_000, 100_000, 1_000_000], &[1, 4_000_000]],
    history: 60,
    msl: MSL,
};

/// The numbers of connections that fit twice in memory, in all trackers together.
pub(crate) fn fitting_in_memory(flows: &[u32]) -> Result<Vec<u32>> {
    let text = fs::read_to_string("/proc/meminfo").context("reading the available memory")?;
    let available =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("MemAvailable")?;
    let kib: u64 = available.trim().trim_end_matches(" kB").parse().context("MemAvailable")?;
    let (fit, left_out): (Vec<u32>, Vec<u32>) =
        flows.iter().partition(|&&flows| 2 * u64::from(flows) * BYTES_PER_CONNECTION < kib * 1024);
    if !left_out.is_empty() {
        println!("left out, since memory is short: {left_out:?} connections");
    }
    Ok(fit)
}

/// finwait's default MSL.
pub(crate) const MSL: &str = "30s";
/// Bytes per connection of finwait, the hash map and nf_conntrack together, and of the memory for cache
/// misses.
const BYTES_PER_CONNECTION: u64 = 1500;
