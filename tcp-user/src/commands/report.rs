//! `finwait stats` and `finwait status`: one document of the agent.

use std::io::{self, StdoutLock, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::NOT_UNDERSTOOD;
use crate::api::{
    EgressPlace, HistoryFilesStatus, HistoryStatus, InterfaceStatus, MetricSample, OtherNetwork, Stats,
    Status, client,
};
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

/// Every counter and gauge that is not zero, with its labels, and those without labels in any case.
fn stats_table(stats: &Stats) -> TextTable {
    let mut table = TextTable::new(["METRIC", "LABELS", "VALUE"]);
    for (name, samples) in &stats.metrics {
        for MetricSample { labels, value } in samples {
            if labels.is_empty() || value.as_f64() != Some(0.0) {
                let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
                let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(",") };
                table.row([Cell::from(name.as_str()), labels.into(), value.to_string().into()]);
            }
        }
    }
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
    let foreign = status.other_network.as_ref().map(|OtherNetwork { ends: [a, b], connection, packet }| {
        format!(
            "\nanother network: packets with the addresses of {a} and {b}, a connection on {connection}, are seen on \
             {packet}; --key vlan distinguishes VLANs"
        )
    });
    let ended = status.interfaces.iter().filter_map(|interface| match interface.egress_place? {
        EgressPlace::Last => None,
        EgressPlace::First => {
            Some(format!("\n{}: {}", interface.interface, EgressPlace::First.description()))
        }
    });
    format!(
        "finwait {} (pid {}) since {:.0}\n\
         flow table: {} connections ({}), {:.1} MiB\n\
         packets: {}, events lost: {}, deferred: {}, evicted: {}, refused: {}{}{}{}{}{}",
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
        status.refused,
        status.history.as_ref().map(history).unwrap_or_default(),
        reset_reasons(status),
        status.history_files.as_ref().map(history_files).unwrap_or_default(),
        foreign.unwrap_or_default(),
        ended.collect::<String>()
    )
}

/// How far back the agent remembers, on a line of its own.
fn history(history: &HistoryStatus) -> String {
    if history.bytes == 0 {
        return "\nhistory: turned off".into();
    }
    let since = history.since.map_or_else(String::new, |since| format!(", since {since:.0}"));
    let withheld = match history.withheld {
        0 => String::new(),
        count => format!(", without {count} segments that came too fast"),
    };
    format!(
        "\nhistory: {} segments{since}{withheld}, {} connections that ended; {:.1} MiB at most",
        history.segments,
        history.connections,
        history.bytes as f64 / f64::from(1 << 20)
    )
}

/// Why the kernel's reasons for RSTs are missing, on a line of its own.
fn reset_reasons(status: &Status) -> String {
    let missing = |why: &String| format!("\nreasons of RSTs: not known from the kernel: {why}");
    status.reset_reasons_missing.as_ref().map(missing).unwrap_or_default()
}

/// What is on disk, on a line of its own.
fn history_files(files: &HistoryFilesStatus) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let some = |count: u64, text: &str| if count == 0 { String::new() } else { format!(", {count} {text}") };
    let error =
        files.error.as_ref().map_or_else(String::new, |error| format!("; the latest write failed: {error}"));
    format!(
        "\nhistory on disk: {} connections written{}{}{}, {:.1} of {:.1} MiB in {}{error}",
        files.written,
        some(files.dropped, "dropped"),
        some(files.attempts_left_out, "attempts left out"),
        some(files.set_aside, "damaged files set aside"),
        mebibytes(files.bytes),
        mebibytes(files.max_bytes),
        files.directory.display(),
    )
}

/// The egress hook, and the place among programs of others, if there are any.
fn egress(interface: &InterfaceStatus) -> String {
    let hook = interface.egress.as_deref().unwrap_or("-");
    match interface.egress_place {
        None => hook.into(),
        Some(EgressPlace::Last) => format!("{hook}, last"),
        Some(EgressPlace::First) => format!("{hook}, first"),
    }
}

fn interfaces(status: &Status) -> TextTable {
    let mut table = TextTable::new(["INTERFACE", "INGRESS", "EGRESS", "ERROR"]);
    for interface in &status.interfaces {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        table.row([
            interface.interface.clone(),
            or_dash(&interface.ingress),
            egress(interface),
            or_dash(&interface.error),
        ]);
    }
    table
}
