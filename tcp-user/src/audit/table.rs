//! The report for people.

use std::io::{self, Write};

use super::{ConntrackCounts, Finding, Ours, Reason, Report, Socket, Verdict, VerdictCounts};
use crate::output::{Palette, TextTable, duration};
use crate::view::State;

/// Writes the findings and one line of totals.
pub fn write(report: &Report, out: &mut impl Write, palette: Palette) -> io::Result<()> {
    if !report.findings.is_empty() {
        let asked = report.conntrack.is_some();
        let titles = [
            "VERDICT",
            "LOCAL",
            "REMOTE",
            "OURS",
            "KERNEL",
            "PEER",
            "CONNTRACK",
            "CLOSE",
            "IDLE",
            "TIMER",
            "WHY",
        ];
        let shown =
            |row: [String; 11]| row.into_iter().enumerate().filter(move |&(column, _)| asked || column != 6);
        let titles: Vec<_> = shown(titles.map(str::to_owned)).map(|(_, title)| title).collect();
        let mut table = TextTable::new(titles.iter().map(String::as_str));
        for finding in &report.findings {
            table.row(shown(row(finding, report)).map(|(_, cell)| cell));
        }
        table.write(out, palette)?;
        writeln!(out)?;
    }
    writeln!(out, "{}", summary(report))?;
    report.conntrack.as_ref().map_or(Ok(()), |counts| writeln!(out, "{}", conntrack_summary(counts)))
}

fn row(finding: &Finding, report: &Report) -> [String; 11] {
    let address = |address: super::Address| match &finding.scope {
        Some(scope) => format!("[{}%{scope}]:{}", address.address, address.port),
        None => std::net::SocketAddr::from(address).to_string(),
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let ours = finding.ours.as_ref();
    let idle = |ours: &Ours| {
        duration(report.at.duration_since(ours.connection.last_seen_at).as_secs_f64().max(0.0) * 1000.0)
    };
    [
        mark(finding).to_owned(),
        address(finding.local),
        address(finding.remote),
        or_dash(
            ours.map(|ours| format!("{}{}", state(ours.state), if ours.is_assumed() { "?" } else { "" })),
        ),
        finding.kernel.as_ref().map_or("no socket", |socket| socket.state.rfc_name()).to_owned(),
        or_dash(ours.map(|ours| state(ours.peer_state).to_owned())),
        or_dash(finding.conntrack.map(|conntrack| {
            format!("{}{}", conntrack.state, if conntrack.differs() { " (differs)" } else { "" })
        })),
        or_dash(ours.map(|ours| ours.connection.close_word().to_owned())),
        or_dash(ours.map(idle).or_else(|| {
            let silent_ms = finding.kernel.as_ref()?.silent_ms?;
            Some(duration(f64::from(silent_ms)))
        })),
        or_dash(finding.kernel.as_ref().and_then(timer)),
        finding.reason.map_or("", Reason::explain).to_owned(),
    ]
}

/// The name of a state, or `-` for UNKNOWN.
fn state(state: State) -> &'static str {
    if state == State::Unknown { "-" } else { state.rfc_name() }
}

fn mark(finding: &Finding) -> &'static str {
    match (finding.verdict, finding.reason) {
        (Verdict::Agree, _) => "ok",
        (Verdict::Differ, _) => "DIFFER",
        (Verdict::Explained, _) => "explained",
        (Verdict::OnlyKernel, Some(Reason::Missed)) => "MISSED",
        (Verdict::OnlyKernel, _) => "kernel",
        (Verdict::OnlyOurs, _) => "ours",
    }
}

fn timer(socket: &Socket) -> Option<String> {
    Some(format!("{}:{}", socket.timer?, duration(f64::from(socket.expires_ms?))))
}

fn summary(report: &Report) -> String {
    let counts = &report.counts;
    format!(
        "{} endpoints match, {} differ, {} differ for a known reason; {} known to finwait only, {} to the kernel only \
         ({} missed); {} changed between the samples; {}",
        counts.agree,
        counts.differ,
        counts.explained,
        counts.only_ours,
        counts.only_kernel,
        counts.missed,
        counts.unsettled,
        not_compared(counts)
    )
}

/// The sockets that were not compared: their number, and the number for each reason.
fn not_compared(counts: &VerdictCounts) -> String {
    let listening = (counts.listening != 0).then_some(("listening", counts.listening));
    let others = counts.not_compared.iter().map(|(reason, &count)| (reason.as_str(), count));
    let all: Vec<_> = listening.into_iter().chain(others).collect();
    let total: u64 = all.iter().map(|&(_, count)| count).sum();
    let reasons: Vec<_> = all.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    format!("{total} sockets not compared{reasons}")
}

fn conntrack_summary(counts: &ConntrackCounts) -> String {
    if counts.entries == 0 {
        return "conntrack: no entries, because no rule of this namespace uses it".to_owned();
    }
    format!(
        "conntrack: {} entries; compatible endpoints: {}; conflicts with finwait only: {}, with the kernel only: {}, \
         with both: {}; not tracked: {}",
        counts.entries,
        counts.fits,
        counts.differs_from_ours,
        counts.differs_from_kernel,
        counts.differs_from_both,
        counts.untracked
    )
}
