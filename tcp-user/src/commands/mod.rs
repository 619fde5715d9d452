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
use crate::cli::{self, Command, ConfigError, Report, ReportArgs, RunArgs, RunOptions, UsageError};
#[cfg(feature = "lab")]
use crate::demo;
use crate::filter::FilterError;
use crate::kernel::{AttachError, Ingress, KernelError};
#[cfg(feature = "lab")]
use crate::lab::LabError;
use crate::replay::ReplayError;
use crate::sockets::SocketsError;

/// Runs the command. The exit code is the design's: 0 fine, 1 nothing found or a difference, 2 usage, 3 agent not
/// reachable, 4 not permitted or not supported here.
pub fn execute(command: Command) -> Result<ExitCode> {
    match command {
        // Called while there is one thread: see there.
        Command::Run(args) => agent::run(&run_options(&args)?).map(|()| ExitCode::SUCCESS),
        Command::Ls(args) => wait_for(live::ls(&args)),
        Command::Watch(args) => wait_for(live::watch(&args)),
        Command::Stats(args) => wait_for(stats(&args)),
        Command::Status(args) => wait_for(status(&args)),
        Command::Audit(args) => wait_for(audit::run(&args)),
        Command::Replay(args) => replay::run(&args),
        #[cfg(feature = "lab")]
        Command::Demo(args) => wait_for(demo::run(args.ingress.into())),
        Command::Completions { shell } => {
            cli::completions(shell, &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            cli::man(command.as_deref(), &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Generate { folder } => {
            cli::generate(&folder).with_context(|| format!("writing into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn wait_for(answer: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    Runtime::new()?.block_on(answer)
}

async fn stats(args: &ReportArgs) -> Result<ExitCode> {
    let body = client::get(args.socket.path(), "/stats").await?.whole().await?;
    let stats: Stats = serde_json::from_slice(&body).context("reading the agent's answer")?;
    print(args, &body, || stats_text(&stats))
}

async fn status(args: &ReportArgs) -> Result<ExitCode> {
    let body = client::get(args.socket.path(), "/status").await?.whole().await?;
    let status: Status = serde_json::from_slice(&body).context("reading the agent's answer")?;
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
        if cause.is::<FilterError>() || cause.is::<ConfigError>() || cause.is::<UsageError>() {
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
    ExitCode::from(1)
}

fn run_options(args: &RunArgs) -> Result<agent::Options> {
    let RunOptions { interfaces, listen, socket, ingress, max_flows, user, audit_interval, rules, dry_run } =
        RunOptions::resolve(args)?;
    Ok(agent::Options {
        interfaces,
        ingress: ingress.into(),
        listen,
        socket,
        max_flows,
        user,
        audit_interval,
        rules,
        dry_run,
    })
}

fn found(any: bool) -> ExitCode {
    if any { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

impl From<cli::Ingress> for Ingress {
    fn from(ingress: cli::Ingress) -> Ingress {
        match ingress {
            cli::Ingress::Auto => Ingress::Auto,
            cli::Ingress::Xdp => Ingress::Xdp,
            cli::Ingress::Tc => Ingress::Tc,
        }
    }
}
fn print(args: &ReportArgs, body: &[u8], text: impl FnOnce() -> String) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.output {
        Report::Table => writeln!(out, "{}", text())?,
        Report::Json => {
            out.write_all(body)?;
            out.write_all(
                b"
",
            )?;
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
