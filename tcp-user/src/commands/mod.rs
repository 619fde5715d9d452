//! What the commands do: ask the agent, or be it, and write the answer.

mod audit;
mod live;
mod replay;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table, presets};
use tokio::runtime::Runtime;

use crate::agent;
use crate::agent::privileges::PrivilegeError;
use crate::api::client::{self, NotReachable};
use crate::api::{Stats, Status};
use crate::cli::{self, Cli, Command, ReportArgs, ReportFormat, SocketArgs, UnknownTerm, UsageError};
#[cfg(feature = "lab")]
use crate::demo;
use crate::filter::FilterError;
use crate::kernel::{AttachError, KernelError};
#[cfg(feature = "lab")]
use crate::lab::LabError;
use crate::options::ConfigError;
use crate::replay::ReplayError;
use crate::sockets::SocketsError;

/// Runs a command. Exit status: 0 success, 1 nothing found or a difference. Errors have an [`exit_code`] of their own.
pub fn execute(cli: Cli) -> Result<ExitCode> {
    let agent = &cli.socket;
    match cli.command {
        Command::Run(options) => {
            for name in cli::unknown_variables() {
                tracing::warn!("environment variable {name} is no option of finwait and is ignored");
            }
            // Called while the process has one thread: the agent drops privileges before it starts others.
            agent::run(&options).map(|()| ExitCode::SUCCESS)
        }
        Command::Ls(args) => wait_for(live::ls(agent, &args)),
        Command::Watch(args) => wait_for(live::watch(agent, &args)),
        Command::Stats(args) => wait_for(stats(agent, &args)),
        Command::Status(args) => wait_for(status(agent, &args)),
        Command::Audit(args) => wait_for(audit::run(agent, &args)),
        Command::Replay(args) => replay::run(&args),
        #[cfg(feature = "lab")]
        Command::Demo(args) => wait_for(demo::run(args.ingress)),
        Command::Glossary { words } => print_text(&cli::glossary(&words)?),
        Command::Completions { shell } => {
            cli::completions(shell, &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            cli::man(command.as_deref(), &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Generate { folder } => {
            cli::generate(&folder).with_context(|| format!("cannot write into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print_text(text: &str) -> Result<ExitCode> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Context of an answer that is no JSON of this version.
const NOT_UNDERSTOOD: &str = "cannot understand the agent's answer";

fn wait_for(answer: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    Runtime::new()?.block_on(answer)
}

async fn stats(agent: &SocketArgs, args: &ReportArgs) -> Result<ExitCode> {
    let body = client::get(agent.path(), "/stats").await?.whole().await?;
    let stats: Stats = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    print(args, &body, || stats_text(&stats))
}

async fn status(agent: &SocketArgs, args: &ReportArgs) -> Result<ExitCode> {
    let body = client::get(agent.path(), "/status").await?.whole().await?;
    let status: Status = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    print(args, &body, || status_text(&status))
}

/// The exit code that an error stands for.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if cause.is::<NotReachable>() {
            return ExitCode::from(3);
        }
        #[cfg(feature = "lab")]
        if cause.is::<LabError>() {
            return ExitCode::from(4);
        }
        #[cfg(feature = "lab")]
        if cause.is::<demo::Interrupted>() {
            return ExitCode::from(130);
        }
        let denied = |io: &io::Error| io.kind() == io::ErrorKind::PermissionDenied;
        if let Some(ConfigError::Unreadable { source, .. }) = cause.downcast_ref()
            && denied(source)
        {
            return ExitCode::from(4);
        }
        if cause.is::<FilterError>()
            || cause.is::<ConfigError>()
            || cause.is::<UsageError>()
            || cause.is::<UnknownTerm>()
        {
            return ExitCode::from(2);
        }
        if cause.is::<KernelError>()
            || cause.is::<AttachError>()
            || cause.is::<SocketsError>()
            || cause.is::<audit::OtherNamespace>()
            || cause.is::<PrivilegeError>()
            || cause.downcast_ref().is_some_and(denied)
            || cause.downcast_ref().is_some_and(ReplayError::is_denied)
        {
            return ExitCode::from(4);
        }
    }
    ExitCode::from(FAILURE)
}

/// Exit status of errors that have none of their own.
const FAILURE: u8 = 5;

fn found(any: bool) -> ExitCode {
    if any { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn print(args: &ReportArgs, body: &[u8], text: impl FnOnce() -> String) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.output {
        ReportFormat::Table => writeln!(out, "{}", text())?,
        ReportFormat::Json => {
            out.write_all(body)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn stats_text(stats: &Stats) -> String {
    let mut table = new_table(["WHAT", "WHICH", "COUNT"]);
    let groups = [
        ("ends", &stats.endpoints),
        ("opened", &stats.opened),
        ("closed", &stats.closed),
        ("resets", &stats.resets),
        ("segments", &stats.segments),
    ];
    for (what, group) in groups {
        for (first, counts) in group {
            for (second, count) in counts.iter().filter(|(_, count)| **count > 0) {
                table.add_row([what.to_owned(), format!("{first} {second}"), count.to_string()]);
            }
        }
    }
    for (what, counts) in
        [("time-wait", &stats.time_wait), ("unmoved", &stats.unmoved), ("ignored", &stats.packets_ignored)]
    {
        for (which, count) in counts.iter().filter(|(_, count)| **count > 0) {
            table.add_row([what.to_owned(), which.clone(), count.to_string()]);
        }
    }
    table.add_row(["packets".to_owned(), "seen".into(), stats.packets_seen.to_string()]);
    table.add_row(["packets".to_owned(), "tracked".into(), stats.packets_tracked.to_string()]);
    table.add_row(["events".to_owned(), "lost".into(), stats.events_lost.to_string()]);
    table.to_string()
}

fn status_text(status: &Status) -> String {
    let mut table = new_table(["INTERFACE", "INGRESS", "EGRESS", "TROUBLE"]);
    for watched in &status.interfaces {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        table.add_row([
            watched.interface.clone(),
            or_dash(&watched.ingress),
            or_dash(&watched.egress),
            or_dash(&watched.error),
        ]);
    }
    let classes: Vec<_> = status
        .table_classes
        .iter()
        .map(|(class, count)| format!("{count} {}", class.replace('_', "-")))
        .collect();
    format!(
        "finwait {} (pid {}) since {:.0}\nflow table: {} of {} connections ({}), {:.1} MiB\npackets: {}, events lost: {}, deferred: {}, evicted: {}, refused: {}\n\n{table}",
        status.version,
        status.pid,
        status.started_at,
        status.table_used,
        status.table_capacity,
        classes.join(", "),
        status.table_bytes as f64 / f64::from(1 << 20),
        status.packets,
        status.events_lost,
        status.deferred,
        status.evicted,
        status.refused
    )
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}
