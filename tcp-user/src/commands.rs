//! The commands of `finwait`: the one module that names clap.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use tcp_common::{Rules, State};

use crate::agent::report::Stats;
use crate::agent::server::Status;
use crate::client::{self, NotReachable};
use crate::filter::{Filter, FilterError};
use crate::kernel::{AttachError, Ingress, KernelError};
use crate::lab::LabError;
use crate::view::{Connection, Event};
use crate::{agent, demo};

/// Follows both ends of every TCP connection of this host, above all the close.
#[derive(Parser)]
#[command(name = "finwait", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this host: attach, track, serve metrics and queries (needs root).
    Run(RunArgs),
    /// List connections with the states of both ends.
    #[command(after_help = "Example: finwait ls 'state time-wait and dport = :443'")]
    Ls {
        #[command(flatten)]
        query: QueryArgs,
        /// Show too what is over and only remembered for late segments.
        #[arg(long)]
        all: bool,
        /// Which ones, close to the words of `ss`.
        filter: Vec<String>,
    },
    /// Show transitions and closes as they happen.
    Watch {
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Totals: states, opens, closes, resets, losses.
    Stats {
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Is the agent well: what sits where, table fill, losses.
    Status {
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Prove it: real connections closed in many ways, our states beside the kernel's (needs root).
    Demo {
        /// How to watch ingress.
        #[arg(long, value_enum, default_value_t = IngressArg::Xdp)]
        ingress: IngressArg,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Interface to watch, repeatable; every one that is up if none is given.
    #[arg(short, long = "interface", value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Where Prometheus scrapes; port 0 takes any.
    #[arg(long, env = "FINWAIT_LISTEN", default_value = "127.0.0.1:9817", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// The query socket.
    #[arg(long, env = "FINWAIT_SOCKET", default_value = SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// How to watch ingress.
    #[arg(long, value_enum, default_value_t = IngressArg::Auto)]
    ingress: IngressArg,
    /// Places in the flow table, 320 bytes each; rounded up to a power of two.
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(64..=67_108_864))]
    max_flows: u32,
    /// Maximum segment lifetime; TIME-WAIT lasts twice as long.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    msl: std::time::Duration,
    /// Do not believe RST in TIME-WAIT (RFC 1337).
    #[arg(long)]
    rfc1337: bool,
    /// What restarts TIME-WAIT: the peer's FIN only, or as on Linux any segment with an ACK.
    #[arg(long, value_enum, default_value_t = Restart::Fin)]
    tw_restart: Restart,
    /// Limit of silence of a state, repeatable, at least 1s: `established=12h`.
    #[arg(long = "timeout", value_name = "STATE=DURATION", value_parser = parse_timeout)]
    timeouts: Vec<(State, std::time::Duration)>,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct QueryArgs {
    /// The agent's query socket.
    #[arg(long, env = "FINWAIT_SOCKET", default_value = SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Ndjson,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IngressArg {
    Auto,
    Xdp,
    Tc,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Restart {
    Fin,
    Linux,
}

impl From<IngressArg> for Ingress {
    fn from(arg: IngressArg) -> Ingress {
        match arg {
            IngressArg::Auto => Ingress::Auto,
            IngressArg::Xdp => Ingress::Xdp,
            IngressArg::Tc => Ingress::Tc,
        }
    }
}

impl RunArgs {
    fn options(self) -> agent::Options {
        let mut rules = Rules::AGENT;
        rules.time_wait_local_ns = 2 * self.msl.as_nanos() as u64;
        rules.time_wait_remote_ns = rules.time_wait_local_ns;
        rules.rfc1337 = u32::from(self.rfc1337);
        rules.linux_restart_local = u32::from(self.tw_restart == Restart::Linux);
        for (state, limit) in self.timeouts {
            rules.silence_ns[state as usize] = limit.as_nanos() as u64;
        }
        agent::Options {
            interfaces: self.interfaces,
            ingress: self.ingress.into(),
            listen: self.listen,
            socket: self.socket,
            max_flows: self.max_flows,
            rules,
            dry_run: self.dry_run,
        }
    }
}

fn parse_timeout(text: &str) -> Result<(State, std::time::Duration), String> {
    let (name, limit) = text.split_once('=').ok_or("expected STATE=DURATION, as in close_wait=2h")?;
    let wanted = name.trim().to_ascii_lowercase().replace('-', "_");
    let state = State::ALL.into_iter().find(|state| state.name() == wanted).ok_or_else(|| {
        let known: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
        format!("{name:?} is no state; the states are {}", known.join(", "))
    })?;
    let limit = humantime::parse_duration(limit).map_err(|error| error.to_string())?;
    if limit < std::time::Duration::from_secs(1) {
        return Err("a limit of silence is at least 1s".into());
    }
    Ok((state, limit))
}

/// Runs the command. The exit code is the design's: 0 fine, 1 nothing found or a difference, 2 usage, 3 agent not
/// reachable, 4 not permitted or not supported here.
pub async fn execute(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Run(arguments) => agent::run(arguments.options()).await.map(|()| ExitCode::SUCCESS),
        Command::Ls { query, all, filter } => ls(&query, all, &filter.join(" ")).await,
        Command::Watch { query } => watch(&query).await,
        Command::Stats { query } => {
            let body = client::get(&query.socket, "/stats").await?.whole().await?;
            let stats: Stats = serde_json::from_slice(&body).context("reading the agent's answer")?;
            print(&query, &body, || stats_text(&stats))
        }
        Command::Status { query } => {
            let body = client::get(&query.socket, "/status").await?.whole().await?;
            let status: Status = serde_json::from_slice(&body).context("reading the agent's answer")?;
            print(&query, &body, || status_text(&status))
        }
        Command::Demo { ingress } => {
            let agreed = tokio::task::spawn_blocking(move || demo::run(ingress.into())).await??;
            Ok(if agreed { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}

/// The exit code that an error stands for.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if cause.is::<NotReachable>() {
            return ExitCode::from(3);
        }
        if cause.is::<FilterError>() {
            return ExitCode::from(2);
        }
        if cause.is::<KernelError>() || cause.is::<AttachError>() || cause.is::<LabError>() {
            return ExitCode::from(4);
        }
    }
    ExitCode::from(1)
}

async fn ls(query: &QueryArgs, all: bool, filter: &str) -> Result<ExitCode> {
    let filter = Filter::from_str(filter)?;
    let mut answer =
        client::get(&query.socket, if all { "/connections?all=true" } else { "/connections" }).await?;
    let (now, mut found) = (Timestamp::now(), 0u64);
    let mut table = new_table(["CLIENT", "STATE", "SERVER", "STATE", "CLOSE", "CLOSER", "TIMER"]);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if query.output == Output::Json {
        write!(out, r#"{{"schema":"finwait.connections/1","connections":["#)?;
    }
    while let Some(line) = answer.line().await? {
        let connection: Connection = serde_json::from_slice(&line).context("reading the agent's answer")?;
        if !filter.matches(&connection, now) {
            continue;
        }
        match query.output {
            Output::Table => {
                table.add_row(row(&connection));
            }
            Output::Json => {
                if found > 0 {
                    out.write_all(b",")?;
                }
                out.write_all(&line)?;
            }
            Output::Ndjson => {
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            }
        }
        found += 1;
    }
    match query.output {
        Output::Table if found > 0 => writeln!(out, "{table}")?,
        Output::Table | Output::Ndjson => {}
        Output::Json => writeln!(out, "]}}")?,
    }
    out.flush()?;
    Ok(if found > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A state that the end's own segments do not prove yet carries a `?`; the ends of this host carry a `*`.
fn row(connection: &Connection) -> [String; 7] {
    let address = |end: &crate::view::Endpoint| {
        format!("{}{}", end.socket_address(), if end.local { " *" } else { "" })
    };
    let state = |end: &crate::view::Endpoint| {
        format!("{}{}", end.state.rfc_name(), if end.confirmed { "" } else { "?" })
    };
    let close = connection.close.as_ref();
    [
        address(&connection.client),
        state(&connection.client),
        address(&connection.server),
        state(&connection.server),
        close.map_or("-".into(), |close| close.kind.name().into()),
        close.and_then(|close| close.closer).map_or("-".into(), |closer| closer.to_string()),
        connection
            .time_wait
            .as_ref()
            .map_or("-".into(), |wait| format!("{:.1}s", wait.expires_in_ms as f64 / 1e3)),
    ]
}

async fn watch(query: &QueryArgs) -> Result<ExitCode> {
    let mut answer = client::get(&query.socket, "/events").await?;
    while let Some(line) = answer.line().await? {
        let mut out = std::io::stdout().lock();
        if query.output != Output::Table {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            continue;
        }
        match serde_json::from_slice::<Event>(&line) {
            Ok(Event::Transition(t)) => writeln!(
                out,
                "{:.6} {} -> {} {} {} -> {} ({})",
                t.at,
                t.client.socket_address(),
                t.server.socket_address(),
                t.side,
                t.from.rfc_name(),
                t.to.rfc_name(),
                t.cause
            )?,
            Ok(Event::Close(close)) => writeln!(
                out,
                "{:.6} {} -> {} over: {}",
                close.closed_at.unwrap_or_default(),
                close.connection.client.socket_address(),
                close.connection.server.socket_address(),
                close.connection.close_kind().name()
            )?,
            Err(_) => writeln!(out, "{}", String::from_utf8_lossy(&line))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(query: &QueryArgs, body: &[u8], text: impl FnOnce() -> String) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if query.output == Output::Table {
        writeln!(out, "{}", text())?;
    } else {
        out.write_all(body)?;
        out.write_all(b"\n")?;
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
    format!(
        "finwait {} (pid {}) since {:.0}\nflow table: {} of {} slots, {:.1} MiB\npackets: {}, events lost: {}, deferred: {}, evicted: {}\n\n{table}",
        status.version,
        status.pid,
        status.started_at,
        status.table_used,
        status.table_capacity,
        status.table_bytes as f64 / f64::from(1 << 20),
        status.packets,
        status.events_lost,
        status.deferred,
        status.evicted
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

const SOCKET: &str = "/run/finwait/finwait.sock";
