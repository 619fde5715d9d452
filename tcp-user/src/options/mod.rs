//! The agent's options: name, help, environment variable, default and check of each, once.
//!
//! A flag wins over the environment, the environment over the configuration file, the file over the default.
//! clap applies that order; [`ConfigFile`] gives it the file's settings as defaults.

mod file;
mod listen;
mod rules;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueHint::{DirPath, FilePath};
use clap::{Args, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use tcp_common::Rules;

pub use file::{ConfigError, ConfigFile};
pub use rules::{RuleOptions, Timeout, TwRestart};

use crate::api::DEFAULT_SOCKET;
use crate::kernel::Ingress;
use crate::store::files::Retention;

/// Options of `finwait run`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Options {
    /// Interfaces to watch, repeatable or separated by commas [default: all that are up]
    #[arg(
        short, long = "interface", value_name = "IFACE", env = "FINWAIT_INTERFACE", value_delimiter = ',',
        add = ArgValueCandidates::new(present_interfaces)
    )]
    pub interfaces: Vec<String>,

    /// Address of the metrics endpoint; port 0 picks a free port
    ///
    /// ":9817" listens on every address of this host. A host name is resolved once, at startup.
    #[arg(
        long, value_name = "ADDR:PORT", env = "FINWAIT_LISTEN", default_value = "127.0.0.1:9817",
        value_parser = listen::parse
    )]
    pub listen: SocketAddr,

    /// Path of the query socket; anyone who can open it can query the agent
    #[arg(long, value_name = "PATH", env = "FINWAIT_SOCKET", default_value = DEFAULT_SOCKET, value_hint = FilePath)]
    pub socket: PathBuf,

    /// Hook for incoming packets
    #[arg(long, value_name = "HOOK", env = "FINWAIT_INGRESS", value_enum, default_value = "auto")]
    pub ingress: Ingress,

    /// Maximum number of IPv4 connections to track (491 bytes each)
    ///
    /// The IPv6 table holds half as many (534 bytes each). The default takes 190 MiB in all.
    #[arg(
        long, value_name = "N", env = "FINWAIT_MAX_FLOWS", default_value = "262144",
        value_parser = clap::value_parser!(u32).range(64..=67_108_864)
    )]
    pub max_flows: u32,

    /// Memory for what is remembered of connections; 0 remembers nothing [default: 36MiB, less on small hosts]
    ///
    /// `finwait why` and `finwait ls --closed` show it. 36MiB hold 262,144 segments and 65,536 connections that have
    /// ended. The default leaves 0.5% of the host's memory for this and the event rings together.
    #[arg(long, value_name = "SIZE", env = "FINWAIT_HISTORY_MEMORY")]
    pub history_memory: Option<ByteSize>,

    /// Directory for the files of connections that closed, which `finwait history` shows [default: none]
    ///
    /// A file a day, in SQLite. The directory is created, its parent is not. What the disk cannot take is dropped and
    /// counted.
    #[arg(long, value_name = "DIR", env = "FINWAIT_HISTORY_DIR", value_hint = DirPath)]
    pub history_dir: Option<PathBuf>,

    /// How long the files keep a connection after its close
    #[arg(
        long, value_name = "DURATION", env = "FINWAIT_HISTORY_AGE", default_value = "7d", value_parser = history_age
    )]
    pub history_age: Duration,

    /// Size of all files of the history; the oldest are removed beyond it
    #[arg(
        long, value_name = "SIZE", env = "FINWAIT_HISTORY_SIZE", default_value = "256MB", value_parser = history_size
    )]
    pub history_size: ByteSize,

    /// What distinguishes connections
    #[arg(long, value_name = "KEY", env = "FINWAIT_KEY", value_enum, default_value = "addresses")]
    pub key: KeyBy,

    /// Drop to this user after attaching [default: keep the current user]
    ///
    /// Members of the user's group may query the agent. CAP_NET_ADMIN is kept so that new interfaces can be
    /// attached.
    #[arg(long, value_name = "NAME", env = "FINWAIT_USER")]
    pub user: Option<String>,

    /// Interval between checks against the kernel's sockets; 0 disables them
    ///
    /// A check closes connections whose socket is gone. Linux keeps an orphan in FIN-WAIT-2 for 60s.
    #[arg(
        long, value_name = "DURATION", env = "FINWAIT_AUDIT_INTERVAL", default_value = "30s",
        value_parser = audit_interval
    )]
    pub audit_interval: CheckInterval,

    /// Rules of the state machine.
    #[command(flatten)]
    pub rules: RuleOptions,

    /// Read options from this TOML file
    #[arg(short, long, value_name = "FILE", env = "FINWAIT_CONFIG", value_hint = FilePath)]
    pub config: Option<PathBuf>,

    /// Show what would be attached and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What the key of a connection consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KeyBy {
    /// Addresses and ports: a connection may be seen in several VLANs.
    #[default]
    Addresses,
    /// VLAN tags as well, the two outermost: for a bridge or mirror port with networks that use the same addresses.
    Vlan,
}

/// Time between two socket checks; `None` if they are disabled. An alias, because clap reads `Option` as "may
/// be absent".
pub type CheckInterval = Option<Duration>;

impl Options {
    /// The rules of the state machine with the chosen options.
    pub fn rules(&self) -> Rules {
        self.rules.rules()
    }

    /// How much the files of the history keep.
    pub fn retention(&self) -> Retention {
        Retention { age: self.history_age, bytes: self.history_size.as_u64() }
    }
}

/// Parses a duration; `0` and `off` mean never.
fn audit_interval(text: &str) -> Result<CheckInterval, String> {
    if text == "0" || text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    match humantime::parse_duration(text) {
        Ok(interval) if interval.is_zero() => Ok(None),
        Ok(interval) if interval >= SHORTEST_AUDIT_INTERVAL => Ok(Some(interval)),
        Ok(_) => Err("expected at least 100ms, or 0 to disable".to_owned()),
        Err(error) => Err(format!("{error}; expected a duration such as 30s or 5m, or 0 to disable")),
    }
}

/// Parses how long the files keep a connection.
fn history_age(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(age) if age >= SHORTEST_HISTORY_AGE => Ok(age),
        Ok(_) => Err("expected at least 1m".to_owned()),
        Err(error) => Err(format!("{error}; expected a duration such as 12h or 7d")),
    }
}

/// Parses the size of all files of the history.
fn history_size(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(size) if size >= SMALLEST_HISTORY => Ok(size),
        Ok(_) => Err("expected at least 1MB".to_owned()),
        Err(error) => Err(format!("{error}; expected a size such as 64MB or 2GB")),
    }
}

/// Files are removed when a whole day is older than this.
const SHORTEST_HISTORY_AGE: Duration = Duration::from_secs(60);
/// Room for four parts of a day and the log of SQLite.
const SMALLEST_HISTORY: ByteSize = ByteSize::mb(1);

/// A shorter interval would keep one CPU busy with socket dumps.
const SHORTEST_AUDIT_INTERVAL: Duration = Duration::from_millis(100);

/// Names of this host's interfaces, for completions.
fn present_interfaces() -> Vec<CompletionCandidate> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.map(|entry| CompletionCandidate::new(entry.file_name())).collect()
}
