//! The agent itself: what it lost, what it does not watch, and what it counted.

use super::{DoctorFinding, FindingKind, Likelihood, Thresholds};
use crate::api::{Stats, Status};

pub(super) fn findings(status: &Status, stats: &Stats, thresholds: Thresholds) -> Vec<DoctorFinding> {
    let mut findings: Vec<_> = losses(status, stats).into_iter().collect();
    findings.extend(retransmissions(stats, thresholds));
    findings
}

fn losses(status: &Status, stats: &Stats) -> Option<DoctorFinding> {
    let count = |number: u64, what: &str| (number > 0).then(|| format!("{number} {what}"));
    let mut evidence: Vec<_> = [
        count(status.events_lost, "events lost because a ring was full"),
        count(status.refused, "packets of connections for which the table had no room"),
        count(
            sum(stats, "finwait_flows_evicted_total", "reason", "half_open"),
            "attempts to connect removed from the full table",
        ),
        count(
            sum(stats, "finwait_flows_evicted_total", "reason", "time_wait"),
            "TIME-WAITs removed from the full table",
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let unwatched = status.interfaces.iter().filter_map(|interface| {
        let error = interface.error.as_ref()?;
        Some(format!("{} is not watched: {error}", interface.interface))
    });
    evidence.extend(unwatched);
    if let Some(full) =
        status.table_used.checked_mul(100).and_then(|used| used.checked_div(status.table_capacity))
        && full >= NEARLY_FULL
    {
        evidence.push(format!(
            "the flow table is {full} % full: {} of {}",
            status.table_used, status.table_capacity
        ));
    }
    let summary = "finwait does not see everything".into();
    (!evidence.is_empty())
        .then(|| DoctorFinding::new(FindingKind::AgentLosses, Likelihood::High, summary, evidence))
}

/// Segments of handshake and close that were sent again, where they are more than a few of all.
fn retransmissions(stats: &Stats, thresholds: Thresholds) -> Option<DoctorFinding> {
    let shares = KINDS.map(|(kind, name)| {
        let again = sum(stats, "finwait_retransmitted_segments_total", "kind", kind);
        (name, again, sum(stats, "finwait_segments_total", "kind", kind))
    });
    let many = |&&(_, again, all): &&(&str, u64, u64)| {
        again >= thresholds.count.max(1) && again * 100 >= all * FEW_PERCENT
    };
    let evidence: Vec<_> = shares
        .iter()
        .filter(many)
        .map(|(name, again, all)| {
            format!("{again} of {all} {name} were retransmissions since the agent started")
        })
        .collect();
    let summary = "Segments of handshakes or closes are sent again".into();
    (!evidence.is_empty()).then(|| {
        DoctorFinding::new(FindingKind::RetransmittedHandshakes, Likelihood::Medium, summary, evidence)
    })
}

/// Sum of a metric's samples with this value of a label.
fn sum(stats: &Stats, metric: &str, label: &str, value: &str) -> u64 {
    let samples = stats.metrics.get(metric).into_iter().flatten();
    let selected = samples.filter(|sample| sample.labels.get(label).is_some_and(|found| found == value));
    selected.filter_map(|sample| sample.value.as_u64()).sum()
}

/// Labels and names of the segments.
const KINDS: [(&str, &str); 3] = [("syn", "SYNs"), ("syn_ack", "SYNs with ACK"), ("fin", "FINs")];
/// Percent of the table.
const NEARLY_FULL: u64 = 90;
/// Percent of retransmissions that a network may have.
const FEW_PERCENT: u64 = 2;
