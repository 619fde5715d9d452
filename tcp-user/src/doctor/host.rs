//! The kernel's counters and settings of this network namespace, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{DoctorFinding, FindingKind, Likelihood, Thresholds};
use crate::sockets::HostCounters;

/// Counters and settings, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct HostReading {
    counters: Option<HostCounters>,
    /// TIME-WAIT sockets of this namespace.
    time_waits: Option<u64>,
    settings: HashMap<&'static str, u64>,
}

impl HostReading {
    /// Reads the namespace of this process. What this kernel does not show is left out.
    pub fn read() -> HostReading {
        HostReading {
            counters: HostCounters::read(),
            time_waits: fs::read_to_string("/proc/self/net/sockstat").ok().as_deref().and_then(time_waits),
            settings: SETTINGS
                .into_iter()
                .filter_map(|name| Some((name, setting(name).ok()?.trim().parse().ok()?)))
                .collect(),
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.counters.as_ref().and_then(|counters| counters.get(name)).unwrap_or(0)
    }

    fn setting(&self, name: &str) -> Option<u64> {
        self.settings.get(name).copied()
    }
}

/// The findings of two readings of one namespace.
pub(super) fn findings(
    before: &HostReading,
    after: &HostReading,
    thresholds: Thresholds,
) -> Vec<DoctorFinding> {
    let host = TwoReadings { before, after, thresholds };
    [
        host.conntrack_full(),
        host.listen_overflow(),
        host.time_wait_overflow(),
        host.tw_reuse_without_timestamps(),
        host.fin_timeout_changed(),
        host.conntrack_timeout_short(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct TwoReadings<'a> {
    before: &'a HostReading,
    after: &'a HostReading,
    thresholds: Thresholds,
}

impl TwoReadings<'_> {
    fn conntrack_full(&self) -> Option<DoctorFinding> {
        let (count, max) = (self.after.setting(CONNTRACK_COUNT)?, self.after.setting(CONNTRACK_MAX)?);
        let percent = (count * 100).checked_div(max).filter(|&percent| percent >= NEARLY_FULL)?;
        Some(DoctorFinding::new(
            FindingKind::ConntrackFull,
            Likelihood::High,
            format!("nf_conntrack's table is {percent} % full"),
            vec![format!("{count} entries of at most {max}")],
        ))
    }

    fn listen_overflow(&self) -> Option<DoctorFinding> {
        let summary = |total| format!("Queues of listeners overflowed {total} times since the host started");
        self.overflow(FindingKind::ListenOverflow, "ListenOverflows", summary)
    }

    fn time_wait_overflow(&self) -> Option<DoctorFinding> {
        let summary =
            |total| format!("{total} TIME-WAITs were skipped since the host started: the table was full");
        let mut finding = self.overflow(FindingKind::TimeWaitOverflow, "TCPTimeWaitOverflow", summary)?;
        if let (Some(count), Some(max)) = (self.after.time_waits, self.after.setting(MAX_TW_BUCKETS)) {
            finding.evidence.push(format!("{count} TIME-WAIT sockets, tcp_max_tw_buckets is {max}"));
        }
        Some(finding)
    }

    /// A counter that should be 0. While it grows the finding is sure; if it does not, it may be of long ago.
    fn overflow(
        &self,
        kind: FindingKind,
        counter: &str,
        summary: impl Fn(u64) -> String,
    ) -> Option<DoctorFinding> {
        let total = self.after.counter(counter);
        if total < self.thresholds.count.max(1) {
            return None;
        }
        let grown = total.saturating_sub(self.before.counter(counter));
        let confidence = if grown > 0 { Likelihood::High } else { Likelihood::Low };
        let evidence = vec![format!("{counter} {total}, {grown} of them during the check")];
        Some(DoctorFinding::new(kind, confidence, summary(total), evidence))
    }

    fn tw_reuse_without_timestamps(&self) -> Option<DoctorFinding> {
        let (reuse, timestamps) = (self.after.setting(TW_REUSE)?, self.after.setting(TIMESTAMPS)?);
        (reuse == 1 && timestamps == 0).then(|| {
            DoctorFinding::new(
                FindingKind::TwReuseWithoutTimestamps,
                Likelihood::High,
                "tcp_tw_reuse is on and has no effect".into(),
                vec![format!("tcp_tw_reuse {reuse}, tcp_timestamps {timestamps}")],
            )
        })
    }

    fn fin_timeout_changed(&self) -> Option<DoctorFinding> {
        let seconds = self.after.setting(FIN_TIMEOUT).filter(|&seconds| seconds != FIN_TIMEOUT_DEFAULT)?;
        Some(DoctorFinding::new(
            FindingKind::FinTimeoutChanged,
            Likelihood::Medium,
            format!("tcp_fin_timeout is {seconds} s, which does not change TIME-WAIT"),
            vec![format!("the kernel's default is {FIN_TIMEOUT_DEFAULT} s")],
        ))
    }

    fn conntrack_timeout_short(&self) -> Option<DoctorFinding> {
        let (timeout, keepalive) =
            (self.after.setting(CONNTRACK_ESTABLISHED)?, self.after.setting(KEEPALIVE_TIME)?);
        let tracked = self.after.setting(CONNTRACK_COUNT)?;
        (timeout <= keepalive && tracked > 0).then(|| {
            DoctorFinding::new(
                FindingKind::ConntrackTimeoutShort,
                Likelihood::Medium,
                format!("nf_conntrack forgets an idle connection after {timeout} s"),
                vec![
                    format!("tcp_keepalive_time is {keepalive} s"),
                    format!("nf_conntrack has {tracked} entries in this namespace"),
                ],
            )
        })
    }
}

/// `tw` of the line `TCP:`.
fn time_waits(sockstat: &str) -> Option<u64> {
    let words: Vec<_> = sockstat.lines().find(|line| line.starts_with("TCP:"))?.split(' ').collect();
    let at = words.iter().position(|&word| word == "tw")?;
    words.get(at + 1)?.parse().ok()
}

fn setting(name: &str) -> io::Result<String> {
    fs::read_to_string(Path::new("/proc/sys/net").join(name))
}

const CONNTRACK_COUNT: &str = "netfilter/nf_conntrack_count";
const CONNTRACK_MAX: &str = "netfilter/nf_conntrack_max";
const CONNTRACK_ESTABLISHED: &str = "netfilter/nf_conntrack_tcp_timeout_established";
const KEEPALIVE_TIME: &str = "ipv4/tcp_keepalive_time";
const MAX_TW_BUCKETS: &str = "ipv4/tcp_max_tw_buckets";
const TW_REUSE: &str = "ipv4/tcp_tw_reuse";
const TIMESTAMPS: &str = "ipv4/tcp_timestamps";
const FIN_TIMEOUT: &str = "ipv4/tcp_fin_timeout";
const SETTINGS: [&str; 8] = [
    CONNTRACK_COUNT,
    CONNTRACK_MAX,
    CONNTRACK_ESTABLISHED,
    KEEPALIVE_TIME,
    MAX_TW_BUCKETS,
    TW_REUSE,
    TIMESTAMPS,
    FIN_TIMEOUT,
];
/// Default of `tcp_fin_timeout`, in seconds (`TCP_FIN_TIMEOUT`).
const FIN_TIMEOUT_DEFAULT: u64 = 60;
/// Percent of a table.
const NEARLY_FULL: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_waits_are_read_from_sockstat() {
        assert_eq!(time_waits("sockets: used 9\nTCP: inuse 4 orphan 0 tw 12 alloc 5 mem 1\n"), Some(12));
    }
}
