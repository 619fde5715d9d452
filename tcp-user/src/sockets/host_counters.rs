//! The counters that the kernel keeps of TCP in a network namespace.

use std::fs;

/// The counters of group `TcpExt` (`nstat`), at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCounters(String);

impl HostCounters {
    /// Reads the counters of this process' network namespace; `None` if the kernel does not show them.
    pub fn read() -> Option<HostCounters> {
        fs::read_to_string("/proc/self/net/netstat").ok().map(HostCounters)
    }

    /// A counter by its name, such as `TCPTimeWaitOverflow`; `None` if this kernel has none of that name.
    pub fn get(&self, name: &str) -> Option<u64> {
        let mut lines = self.0.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let (_, value) =
            names.split_whitespace().zip(values.split_whitespace()).find(|&(known, _)| known == name)?;
        value.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: A TCPTimeWaitOverflow B\nTcpExt: 1 22 3\nIpExt: A B\nIpExt: 7 8\n";
        let counters = HostCounters(text.into());
        assert_eq!(
            ["A", "TCPTimeWaitOverflow", "C"].map(|name| counters.get(name)),
            [Some(1), Some(22), None]
        );
        assert!(HostCounters::read().is_none_or(|host| host.get("TCPTimeWaitOverflow").is_some()));
    }
}
