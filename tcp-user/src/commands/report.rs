//! `finwait stats` and `finwait status`: one document of the agent.

use std::io::{self, StdoutLock, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::NOT_UNDERSTOOD;
use crate::api::{Stats, Status, client};
use crate::cli::{ReportArgs, ReportFormat, SocketArgs};
use crate::output::{Cell, Palette, TextTable};

/// Prints the totals.
pub(super) async fn stats(agent: &SocketArgs, args: &ReportArgs) -> Result<ExitCode> {
    let body = client::get(agent.path(), "/stats").await?.whole().await?;
    let stats: Stats = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    print(args, &body, |out| stats_table(&stats).write(out, Palette::for_stdout()))
}

/// Prints the state of the agent.
pub(super) async fn status(agent: &SocketArgs, args: &ReportArgs) -> Result<ExitCode> {
    let body = client::get(agent.path(), "/status").await?.whole().await?;
    let status: Status = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    print(args, &body, |out| {
        writeln!(out, "{}\n", summary(&status))?;
        interfaces(&status).write(out, Palette::for_stdout())
    })
}

fn print(
    args: &ReportArgs,
    body: &[u8],
    table: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>,
) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.output {
        ReportFormat::Table => table(&mut out)?,
        ReportFormat::Json => {
            out.write_all(body)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every counter that is not zero, with its labels.
fn stats_table(stats: &Stats) -> TextTable {
    let mut table = TextTable::new(["COUNTER", "LABELS", "VALUE"]);
    let mut add = |counter: &str, labels: String, value: u64| {
        table.row([Cell::from(counter), labels.into(), value.to_string().into()]);
    };
    let by_two_labels = [
        ("endpoints", "side", "state", &stats.endpoints),
        ("opened", "role", "family", &stats.opened),
        ("closed", "kind", "closer", &stats.closed),
        ("resets", "reason", "origin", &stats.resets),
        ("segments", "direction", "kind", &stats.segments),
    ];
    for (counter, first_label, second_label, groups) in by_two_labels {
        for (first, counts) in groups {
            for (second, value) in counts.iter().filter(|(_, value)| **value > 0) {
                add(counter, format!("{first_label}={first},{second_label}={second}"), *value);
            }
        }
    }
    let by_one_label = [
        ("time_wait", "event", &stats.time_wait),
        ("segments_without_effect", "cause", &stats.unmoved),
        ("packets_ignored", "reason", &stats.packets_ignored),
    ];
    for (counter, label, counts) in by_one_label {
        for (name, value) in counts.iter().filter(|(_, value)| **value > 0) {
            add(counter, format!("{label}={name}"), *value);
        }
    }
    add("packets_seen", "-".into(), stats.packets_seen);
    add("packets_tracked", "-".into(), stats.packets_tracked);
    add("events_lost", "-".into(), stats.events_lost);
    table
}

fn summary(status: &Status) -> String {
    let class = |(class, count): (&String, &u64)| format!("{count} {}", class.replace('_', "-"));
    let classes: Vec<_> = status.table_classes.iter().map(class).collect();
    let table = |(family, capacity): (&String, &u64)| {
        let used = status.table_used_by_family.get(family).unwrap_or(&0);
        format!("{used} of {capacity} {}", family.replace("ip", "IP"))
    };
    let tables: Vec<_> = status.table_capacity_by_family.iter().map(table).collect();
    format!(
        "finwait {} (pid {}) since {:.0}\n\
         flow table: {} connections ({}), {:.1} MiB\n\
         packets: {}, events lost: {}, deferred: {}, evicted: {}, refused: {}",
        status.version,
        status.pid,
        status.started_at,
        tables.join(" and "),
        classes.join(", "),
        status.table_bytes as f64 / f64::from(1 << 20),
        status.packets,
        status.events_lost,
        status.deferred,
        status.evicted,
        status.refused
    )
}

fn interfaces(status: &Status) -> TextTable {
    let mut table = TextTable::new(["INTERFACE", "INGRESS", "EGRESS", "ERROR"]);
    for interface in &status.interfaces {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        table.row([
            interface.interface.clone(),
            or_dash(&interface.ingress),
            or_dash(&interface.egress),
            or_dash(&interface.error),
        ]);
    }
    table
}
