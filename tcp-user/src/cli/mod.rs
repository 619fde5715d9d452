//! What can be typed: the one definition of the commands, from which help, completions and man pages come.
//!
//! The one module that names clap. It decides nothing and prints nothing but what clap prints; [`RunOptions`] joins what
//! was typed with the environment and the configuration file.

mod config;
mod generate;
mod machine;
mod options;
mod query;
mod run;

pub use config::{ConfigError, parse_config};
pub use generate::{completions, generate, man};
pub use machine::{MachineArgs, Timeout, TwRestart};
pub use options::RunOptions;
pub use query::{FilterArgs, Report, SocketArgs};
pub use run::{Ingress, RunArgs};

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::output::Format;
use crate::view::words;

/// Watch the TCP connections of this host, the state of BOTH ends of each, above all while they close.
///
/// One agent per host (`finwait run`) follows every connection from the network side; the other commands ask it. `demo`
/// and `replay` need no agent.
#[derive(Parser, Debug)]
#[command(name = "finwait", version, max_term_width = 110, propagate_version = true, after_help = EXIT_STATUS)]
pub struct Cli {
    /// Say more; twice for even more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent: attach, track, serve metrics and the query socket.
    ///
    /// Stays in the foreground. Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Never changes a packet's fate, never
    /// replaces another program.
    ///
    /// Every option but --config and --dry-run can be set in the file, under the option's name, and all but --dry-run in
    /// the environment, as FINWAIT_ and the name (lists with commas). A flag wins over the environment, the environment
    /// over the file; limits of silence are joined state by state.
    #[command(after_long_help = run::EXAMPLES)]
    Run(RunArgs),

    /// List connections: the states of both ends, timers, who closes.
    #[command(after_help = query::LS_EXAMPLES, after_long_help = query::LS_LONG)]
    Ls(LsArgs),

    /// Print transitions and closes as they happen.
    #[command(after_help = query::WATCH_EXAMPLES, after_long_help = query::WATCH_LONG)]
    Watch(WatchArgs),

    /// Print totals: states, opens, closes by kind and closer, resets by reason, losses.
    Stats(ReportArgs),

    /// Say how the agent is: attached where and how, table fill, losses, versions.
    Status(ReportArgs),

    /// Compare the agent's states with the kernel's own sockets; exit 1 on a difference.
    ///
    /// Reads every TCP socket of this network namespace twice, a moment apart, and reports only what differs in the same
    /// way both times. What both know to be CLOSED, or not there, agrees.
    #[command(after_long_help = query::AUDIT_LONG)]
    Audit(AuditArgs),

    /// Follow the connections of a capture file; no root needed.
    #[command(after_help = query::REPLAY_EXAMPLES, after_long_help = query::REPLAY_LONG)]
    Replay(ReplayArgs),

    /// Prove it here and now: real connections, closed in many ways, our states beside the kernel's.
    ///
    /// Works in network namespaces of its own and touches nothing else. Where the machine allows no BPF or no
    /// namespaces, it says which permission is missing.
    #[cfg(feature = "lab")]
    Demo(DemoArgs),

    /// Print the completions for a shell.
    Completions {
        /// Which shell.
        shell: generate::Shell,
    },

    /// Print a man page in roff.
    #[command(hide = true)]
    Man {
        /// Of this command; of finwait itself if none is given.
        command: Option<String>,
    },

    /// Write the man pages and the completions for a package.
    #[command(hide = true)]
    Generate {
        /// Into this folder.
        folder: PathBuf,
    },
}

/// `finwait ls`.
#[derive(Args, Debug)]
pub struct LsArgs {
    /// The agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// How it is written.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = word_parser::<Format>())]
    pub output: Format,
    /// List also what is over and only remembered for late segments.
    #[arg(short, long)]
    pub all: bool,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `finwait watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// The agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// How it is written.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = word_parser::<Format>())]
    pub output: Format,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `finwait stats` and `finwait status`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// The agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// How it is written.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = word_parser::<Report>())]
    pub output: Report,
}

/// `finwait audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// The agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// How it is written.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = word_parser::<Report>())]
    pub output: Report,
    /// List also what agrees.
    #[arg(short, long)]
    pub all: bool,
    /// Show nf_conntrack's state beside the two, and where it can stand for neither; needs CAP_NET_ADMIN. Its differences
    /// leave the exit status alone.
    #[arg(long)]
    pub conntrack: bool,
    /// Between the two samples.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = query::interval)]
    pub interval: Duration,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `finwait replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A pcap or pcapng file, also compressed; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print transitions and closes, with the capture's time as the clock, and not the connections as they stand at its
    /// end.
    #[arg(short, long)]
    pub events: bool,
    /// How it is written; zeek: a line of conn.log in JSON for each connection.
    #[arg(
        short, long, value_name = "FORMAT", default_value = "table", value_parser = word_parser::<ReplayFormat>()
    )]
    pub output: ReplayFormat,
    /// Drop segments whose TCP checksum is wrong, as their receiver does. Without it they are believed: where the sender
    /// captures, the NIC has not filled the checksum in yet.
    #[arg(long)]
    pub verify_checksums: bool,
    /// Let the kernel programs follow the connections: every frame is run through the XDP program, with the capture's time
    /// as its clock. Attaches nothing; needs root.
    #[arg(long)]
    pub kernel: bool,
    /// The rules.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

words! {
    /// How the records of a replay are written.
    pub enum ReplayFormat ("output format") {
        /// Aligned columns, as `ss` prints.
        Table = "table",
        /// The same with more columns.
        Wide = "wide",
        /// One JSON document.
        Json = "json",
        /// One JSON object a line.
        Ndjson = "ndjson",
        /// Comma-separated values (RFC 4180) under a line of names.
        Csv = "csv",
        /// Lines of Zeek's conn.log, in JSON.
        Zeek = "zeek",
    }
}

impl ReplayFormat {
    /// The format that other commands have, too; `None` for Zeek's.
    pub fn as_format(self) -> Option<Format> {
        Some(match self {
            ReplayFormat::Table => Format::Table,
            ReplayFormat::Wide => Format::Wide,
            ReplayFormat::Json => Format::Json,
            ReplayFormat::Ndjson => Format::Ndjson,
            ReplayFormat::Csv => Format::Csv,
            ReplayFormat::Zeek => return None,
        })
    }
}

/// Options that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub &'static str);

impl ReplayArgs {
    /// Whether the options go together.
    pub fn check(&self) -> Result<(), UsageError> {
        match (self.output, self.events, self.kernel) {
            (ReplayFormat::Zeek, true, _) => Err(UsageError(
                "--events and -o zeek do not go together: conn.log has one line for a whole connection. Leave one of them \
                 out",
            )),
            (ReplayFormat::Zeek, _, true) => Err(UsageError(
                "--kernel and -o zeek do not go together: the kernel programs keep no history of segments. Leave one of \
                 them out",
            )),
            _ => Ok(()),
        }
    }
}

/// `finwait demo`.
#[cfg(feature = "lab")]
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Which program sees incoming packets.
    #[arg(long, value_name = "HOOK", default_value = "xdp", value_parser = word_parser::<Ingress>())]
    pub ingress: Ingress,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  fine
  1  nothing found, or a difference
  2  usage
  3  agent not reachable
  4  not permitted or not supported here";

/// A closed vocabulary that can be typed.
pub(crate) trait Word:
    std::str::FromStr<Err: std::error::Error + Send + Sync> + Clone + Send + Sync + 'static
{
    /// The words.
    fn names() -> impl Iterator<Item = &'static str>;
}

macro_rules! word {
    ($($name:ty),+) => {
        $(impl Word for $name {
            fn names() -> impl Iterator<Item = &'static str> {
                <$name>::ALL.iter().map(|value| value.name())
            }
        })+
    };
}
word!(Format, ReplayFormat, Report, Ingress, TwRestart);

/// Takes one of the words; help and completions list them.
pub(crate) fn word_parser<T: Word>() -> impl clap::builder::TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::names()).try_map(|text| text.parse::<T>())
}

#[cfg(test)]
mod tests;
