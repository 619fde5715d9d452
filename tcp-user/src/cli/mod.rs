//! The command line: the one definition of commands, from which help, completions and man pages come.
//!
//! This module decides nothing and prints nothing but what clap prints. [`parse`] joins the command line with
//! the environment and the configuration file.

mod generate;
mod glossary;
mod help;
mod manual;
mod query;

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use jiff::Timestamp;

pub use generate::{complete, completions, generate};
pub use glossary::{UnknownTerm, glossary};
pub use manual::man;
pub use query::{FilterArgs, FlowName, ReplayFormat, ReportFormat, SocketArgs, WhyFormat};

use crate::filter::FilterError;
use crate::options::{ConfigError, ConfigFile, KeyBy, Options, RuleOptions};
use crate::output::{Fact, Format, ListColumn, PortSortKey, SortKey};
use crate::store::PACKAGED_DIRECTORY;

/// Watch the TCP connections of this host: the state of both ends of each, and how it closes.
///
/// One agent per host (`finwait run`) follows every connection from the network side. The other commands
/// query it. `demo` and `replay` need no agent.
#[derive(Parser, Debug)]
#[command(name = "finwait", version, max_term_width = 110, propagate_version = true, after_help = help::EXIT_STATUS)]
pub struct Cli {
    /// Log more; repeat for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// The agent to query.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent: attach, track, serve metrics and queries
    ///
    /// Stays in the foreground. Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Never drops or modifies packets
    /// and never replaces another program.
    ///
    /// Every option except --config and --dry-run can be set in the file, under the option's name. Every
    /// option except --dry-run can be set in the environment, as FINWAIT_ and the name. A flag wins over the
    /// environment, the environment over the file. Timeouts are merged state by state.
    #[command(after_long_help = help::RUN)]
    Run(Options),

    /// List connections: states of both ends, timers, who closed
    #[command(after_help = help::LS, after_long_help = help::LS_LONG)]
    Ls(LsArgs),

    /// Print transitions, closes and ends of TIME-WAIT as they happen
    #[command(after_help = help::WATCH, after_long_help = help::WATCH_LONG)]
    Watch(WatchArgs),

    /// Explain one connection: its segments, what each end waits for, who closed and how
    ///
    /// FLOW is whatever names one connection: `:PORT`, `ADDRESS:PORT`, an id, or a filter. Connections that have ended
    /// are explained while the agent remembers them; `finwait status` says how far back that is.
    #[command(after_help = help::WHY, after_long_help = help::WHY_LONG)]
    Why(WhyArgs),

    /// Look for faults: leaks, piles, resets, overflows, settings without effect; exit 1 if there are any
    ///
    /// Checks the connections that the agent tracks and remembers, the kernel's counters and settings, and the agent
    /// itself. Each finding comes with its evidence, what it means, what to do and what not to do. With a FILE, a
    /// capture is checked instead, and no agent is needed.
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),

    /// Show how many local ports are left for each destination, and for how long
    ///
    /// Lists the destinations to which connections of the agent's network namespace hold ports of
    /// ip_local_port_range. A connect() fails with EADDRNOTAVAIL when no port is free for its destination.
    #[command(after_help = help::PORTS, after_long_help = help::PORTS_LONG)]
    Ports(PortsArgs),

    /// List connections that closed, from the files that the agent keeps
    ///
    /// The latest come first. States, ages and timers are those of the moment at which the close was complete. The agent
    /// keeps files if it was started with --history-dir, as the packaged service is.
    #[command(after_help = help::HISTORY, after_long_help = help::HISTORY_LONG)]
    History(HistoryArgs),

    /// Print totals: states, opens, closes by kind and closer, resets by reason, losses
    Stats(ReportArgs),

    /// Show agent status: attached interfaces, table usage, lost events, version
    Status(ReportArgs),

    /// Compare the agent's states with the kernel's sockets; exit 1 on a difference
    ///
    /// Reads every TCP socket of this network namespace twice and reports only differences present in both
    /// samples. A connection that is closed or unknown on both sides counts as a match.
    #[command(after_long_help = help::AUDIT_LONG)]
    Audit(AuditArgs),

    /// Follow the connections of a capture file; needs no root
    #[command(after_help = help::REPLAY, after_long_help = help::REPLAY_LONG)]
    Replay(ReplayArgs),

    /// Close real connections in many ways and show finwait's states beside the kernel's
    ///
    /// Works in network namespaces of its own and touches nothing else. If BPF or namespaces are not
    /// permitted, it names the missing permission and shows a recording.
    #[cfg(feature = "lab")]
    Demo(DemoArgs),

    /// Explain the words of the output, such as fin_3seg or midstream
    Glossary {
        /// Words to explain [default: all]
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },

    /// Print a completion script for a shell
    Completions {
        /// Shell to print the script for
        shell: generate::Shell,
    },

    /// Print a man page in roff
    #[command(hide = true)]
    Man {
        /// Command to print the page of [default: finwait itself]
        command: Option<String>,
    },

    /// Write the man pages and completions for a package
    #[command(hide = true)]
    Generate {
        /// Folder to write to
        folder: PathBuf,
    },
}

/// Arguments of `finwait ls`.
#[derive(Args, Debug)]
pub struct LsArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: Format,
    /// Also list closed connections that are kept to absorb late packets
    #[arg(short, long)]
    pub all: bool,
    /// List connections that have ended, the latest of them too that are no longer tracked but remembered
    #[arg(long)]
    pub closed: bool,
    /// Also list the agent's own connections: scrapes of its metrics
    #[arg(long = "self")]
    pub own: bool,
    /// Also show the process that owns each local socket; always shown by wide, json, ndjson and csv
    #[arg(short, long)]
    pub processes: bool,
    /// Sort by these keys, the first one above all; `-KEY` is descending: `--sort=-bytes,age`
    #[arg(long, value_name = "KEYS", value_delimiter = ',', allow_hyphen_values = true)]
    pub sort: Vec<SortKey>,
    /// Count connections by these keys and list the largest groups first: `--by dst_host,state`
    #[arg(long, value_name = "KEYS", value_delimiter = ',', conflicts_with_all = ["sort", "count", "output"])]
    pub by: Vec<Fact>,
    /// List at most this many connections or groups
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// Print only the number of connections
    #[arg(short, long, conflicts_with_all = ["sort", "limit", "output"])]
    pub count: bool,
    /// Leave out the titles of a table
    #[arg(long)]
    pub no_header: bool,
    /// Show only these columns of a table, in this order: `--columns client,server,close,age`
    ///
    /// Their names are the titles of `-o wide` in lower case: client_state, server_bytes.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', conflicts_with_all = ["by", "count"])]
    pub columns: Vec<ListColumn>,
    /// List again and again, after this time, until interrupted; at least 100ms
    #[arg(long, value_name = "DURATION", value_parser = query::pause)]
    pub watch: Option<Duration>,
    /// Connections to list.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Arguments of `finwait watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: Format,
    /// Connections to watch.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Arguments of `finwait why`.
#[derive(Args, Debug)]
pub struct WhyArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: WhyFormat,
    /// The connection: :PORT, ADDRESS:PORT, an id, or a filter that selects it
    #[arg(value_name = "FLOW", required = true)]
    words: Vec<String>,
}

impl WhyArgs {
    /// The name of the connection.
    pub fn flow(&self) -> Result<FlowName, FilterError> {
        self.words.join(" ").parse()
    }
}

/// Arguments of `finwait doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: ReportFormat,
    /// How long a state must last to be a fault: CLOSE-WAIT and FIN-WAIT-2
    ///
    /// Handshakes count after 3 s, and FINs without ACK after 10 s, if that is less.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    pub lasting: Duration,
    /// Number of connections from which on a fault is reported
    #[arg(long, value_name = "NUMBER", default_value = "10")]
    pub count: u64,
    /// A capture to check instead of this host
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Arguments of `finwait ports`.
#[derive(Args, Debug)]
pub struct PortsArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: Format,
    /// Sort by these keys, the first one above all; `-KEY` is descending [default: left,free]
    #[arg(long, value_name = "KEYS", value_delimiter = ',', allow_hyphen_values = true)]
    pub sort: Vec<PortSortKey>,
    /// List at most this many destinations
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// Leave out the line about the range and the titles of a table
    #[arg(long)]
    pub no_header: bool,
}

/// Arguments of `finwait history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: Format,
    /// Only closes since then: a duration before now, such as 2h, or a time, such as 2026-12-01T08:00
    #[arg(long, value_name = "TIME", value_parser = query::moment)]
    pub since: Option<Timestamp>,
    /// Only closes until then
    #[arg(long, value_name = "TIME", value_parser = query::moment)]
    pub until: Option<Timestamp>,
    /// List at most this many, the latest
    #[arg(long, value_name = "NUMBER", conflicts_with = "sql")]
    pub limit: Option<usize>,
    /// Leave out the titles of a table
    #[arg(long)]
    pub no_header: bool,
    /// Print what a statement of SQLite selects from the table `connections`
    ///
    /// Reads the files themselves, which takes the rights of the agent's user or root. The columns are those of `-o csv`.
    /// --since and --until choose the files of whole days.
    #[arg(long, value_name = "STATEMENT", conflicts_with_all = ["ipv4", "ipv6", "words"])]
    pub sql: Option<String>,
    /// Directory of the files, for --sql
    #[arg(
        long, value_name = "DIR", env = "FINWAIT_HISTORY_DIR", default_value = PACKAGED_DIRECTORY,
        value_hint = clap::ValueHint::DirPath
    )]
    pub history_dir: PathBuf,
    /// Connections to list.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Arguments of `finwait stats` and `finwait status`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: ReportFormat,
}

/// Arguments of `finwait audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: ReportFormat,
    /// Also list endpoints that match
    #[arg(short, long)]
    pub all: bool,
    /// Also show nf_conntrack's state and flag states incompatible with both; needs CAP_NET_ADMIN
    ///
    /// Differences of nf_conntrack do not change the exit status.
    #[arg(long)]
    pub conntrack: bool,
    /// Time between the two samples, at most 60s
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = query::interval)]
    pub interval: Duration,
    /// Connections to compare.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Arguments of `finwait replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A pcap or pcapng file, plain or compressed; `-` reads standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print transitions, closes and ends of TIME-WAIT in capture time, instead of the connections at the end of
    /// the capture
    #[arg(short, long)]
    pub events: bool,
    /// Explain one connection: its segments, what each end waits for, and what that means
    ///
    /// FLOW is `:PORT`, `ADDRESS:PORT`, an id, or a filter. If several connections match, they are listed.
    #[arg(long, value_name = "FLOW", conflicts_with = "events")]
    pub why: Option<FlowName>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: ReplayFormat,
    /// Drop segments with a bad TCP checksum, as their receiver does
    ///
    /// By default they are processed. Checksum offload makes bad checksums common in captures made by the
    /// sender.
    #[arg(long)]
    pub verify_checksums: bool,
    /// Do not look into tunnels
    ///
    /// By default the connections inside IP tunnels, GRE, MPLS, PPPoE, VXLAN, GENEVE, GTP-U, Teredo, LLC/SNAP
    /// and more than two VLAN tags are followed. With this option such frames are ignored, as they are live.
    #[arg(long)]
    pub no_decap: bool,
    /// What distinguishes connections
    #[arg(long, value_name = "KEY", value_enum, default_value = "addresses")]
    pub key: KeyBy,
    /// Follow the connections with the kernel programs; needs root
    ///
    /// Runs every frame through the XDP program, in capture time. Attaches nothing.
    #[arg(long)]
    pub kernel: bool,
    /// Rules of the state machine.
    #[command(flatten)]
    pub rules: RuleOptions,
    /// Connections to print.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Arguments of `finwait demo`.
#[cfg(feature = "lab")]
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Hook for incoming packets
    #[arg(long, value_name = "HOOK", value_enum, default_value = "xdp")]
    pub ingress: crate::kernel::Ingress,
}

/// Options that cannot be combined.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(Cow<'static, str>);

impl UsageError {
    /// A capture cannot be filtered by process.
    pub const PROCESS_IN_REPLAY: UsageError = UsageError(Cow::Borrowed(
        "`process` cannot be used with replay: a capture does not say which process owns a socket",
    ));

    /// The agent does not know owners.
    pub const PROCESS_IN_WHY: UsageError = UsageError(Cow::Borrowed(
        "`process` cannot be used with why: find the connection with `finwait ls process NAME -o wide`, and name it by its id",
    ));

    /// A name fits `count` connections, of which `listed` were printed.
    pub fn ambiguous(count: usize, listed: usize) -> UsageError {
        let which =
            if listed < count { format!("the first {listed} are listed") } else { "listed above".into() };
        UsageError(
            format!("{count} connections match ({which}): name one by both its ports or its id").into(),
        )
    }
}

impl ReplayArgs {
    /// Checks that the options can be combined.
    pub fn check(&self) -> Result<(), UsageError> {
        match (self.output, self.events, self.kernel) {
            (ReplayFormat::Zeek, true, _) => Err(usage(
                "--events and -o zeek cannot be combined: conn.log has one line for each connection",
            )),
            (ReplayFormat::Zeek, _, true) => Err(usage(
                "--kernel and -o zeek cannot be combined: the kernel programs keep no history of segments",
            )),
            _ => self.check_why(),
        }
    }

    fn check_why(&self) -> Result<(), UsageError> {
        use ReplayFormat::{List, Mermaid};
        if self.why.is_some() && self.filter != FilterArgs::default() {
            return Err(usage("--why chooses the connection: write the filter behind it, in quotes"));
        }
        match (&self.why, self.output) {
            (None, Mermaid) => Err(usage("-o mermaid draws one connection: choose it by --why FLOW")),
            (Some(_), List(Format::Table | Format::Wide | Format::Json) | Mermaid) | (None, _) => Ok(()),
            (Some(_), _) => Err(usage("--why prints one connection: -o table, json or mermaid")),
        }
    }
}

fn usage(text: &'static str) -> UsageError {
    UsageError(text.into())
}

/// Why the command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// clap has a message or a help text to print.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Parses a command line, the environment and the configuration file that they name.
pub fn parse(words: impl IntoIterator<Item: Into<OsString>>) -> Result<Cli, ParseError> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let cli = Cli::try_parse_from(&words)?;
    match &cli.command {
        Command::Run(Options { config: Some(path), .. }) => Ok(with_file(&words, &ConfigFile::read(path)?)?),
        _ => Ok(cli),
    }
}

/// Parses a command line whose defaults are the settings of a file.
fn with_file(words: &[OsString], file: &ConfigFile) -> Result<Cli, clap::Error> {
    let mut command = Cli::command().mut_subcommand("run", |run| file.as_defaults(run));
    let mut matches = command.try_get_matches_from_mut(words)?;
    let timeouts_are_the_files = matches
        .subcommand_matches("run")
        .is_none_or(|run| run.value_source("timeouts") == Some(ValueSource::DefaultValue));
    let mut cli = Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    if let Command::Run(options) = &mut cli.command
        && !timeouts_are_the_files
    {
        // The last one for a state holds.
        options.rules.timeouts.splice(0..0, file.timeouts());
    }
    Ok(cli)
}

/// Environment variables that begin with FINWAIT_ but set no option.
pub fn unknown_variables() -> Vec<String> {
    let mut cli = Cli::command();
    cli.build();
    let known: Vec<OsString> = cli
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|option| option.get_env().map(OsString::from))
        .collect();
    let names = std::env::vars_os().map(|(name, _)| name).filter(|name| !known.contains(name));
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("FINWAIT_")).collect()
}

#[cfg(test)]
mod tests;
