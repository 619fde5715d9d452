//! The report for people.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::{Finding, Ours, Reason, Report, Socket, Verdict};
use crate::output::duration;

/// Writes the findings and one line of totals.
pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if !report.findings.is_empty() {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "LOCAL", "REMOTE", "OURS", "KERNEL", "PEER", "CLOSE", "IDLE", "TIMER", "WHY"]);
        for finding in &report.findings {
            table.add_row(row(finding, report));
        }
        writeln!(out, "{table}\n")?;
    }
    writeln!(out, "{}", summary(report))
}

fn row(finding: &Finding, report: &Report) -> [String; 10] {
    let address = |address: super::Address| std::net::SocketAddr::from(address).to_string();
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
            ours.map(|ours| format!("{}{}", ours.state.rfc_name(), if ours.confirmed { "" } else { "?" })),
        ),
        finding.kernel.as_ref().map_or("no socket", |socket| socket.state.rfc_name()).to_owned(),
        or_dash(ours.map(|ours| ours.peer_state.rfc_name().to_owned())),
        or_dash(ours.map(|ours| ours.connection.close_kind().name().to_owned())),
        or_dash(ours.map(idle).or_else(|| {
            let silent_ms = finding.kernel.as_ref()?.silent_ms?;
            Some(duration(f64::from(silent_ms)))
        })),
        or_dash(finding.kernel.as_ref().and_then(timer)),
        finding.reason.map_or("", Reason::explain).to_owned(),
    ]
}

fn mark(finding: &Finding) -> &'static str {
    match (finding.verdict, finding.reason) {
        (Verdict::Agree, _) => "ok",
        (Verdict::Differ, _) => "DIFFER",
        (Verdict::OnlyKernel, Some(Reason::Missed)) => "MISSED",
        (Verdict::OnlyKernel, _) => "kernel's",
        (Verdict::OnlyOurs, _) => "ours",
    }
}

fn timer(socket: &Socket) -> Option<String> {
    Some(format!("{}:{}", socket.timer?, duration(f64::from(socket.expires_ms?))))
}

fn summary(report: &Report) -> String {
    let counts = &report.counts;
    format!(
        "{} ends agree with the kernel, {} differ; {} only ours, {} only the kernel's ({} missed); {} in motion, {} \
         listening sockets not counted",
        counts.agree,
        counts.differ,
        counts.only_ours,
        counts.only_kernel,
        counts.missed,
        counts.unsettled,
        counts.listening
    )
}
