//! Sets of ports.

use std::ops::RangeInclusive;

/// A set of port numbers. Takes 8 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortSet {
    words: Box<[u64]>,
}

impl Default for PortSet {
    fn default() -> PortSet {
        PortSet { words: vec![0; (1 << 16) / 64].into() }
    }
}

impl PortSet {
    /// Adds a port.
    pub(crate) fn insert(&mut self, port: u16) {
        self.words[usize::from(port) / 64] |= 1 << (port % 64);
    }

    /// Whether the port is in the set.
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port) / 64] >> (port % 64) & 1 == 1
    }

    /// Number of ports of a range that are in the set.
    pub(crate) fn count_in(&self, range: RangeInclusive<u16>) -> u32 {
        range.map(|port| u32::from(self.contains(port))).sum()
    }
}
