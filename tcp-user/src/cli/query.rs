//! Arguments that several commands share.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::generate::filter_words;
use crate::api::DEFAULT_SOCKET;
use crate::filter::{Filter, FilterError};
use crate::output::Format;
use crate::view::ConnectionId;

/// The agent to query.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct SocketArgs {
    /// Path of the agent's query socket
    #[arg(
        long = "socket", id = "socket", value_name = "PATH", env = "FINWAIT_SOCKET", global = true,
        default_value = DEFAULT_SOCKET, value_hint = clap::ValueHint::FilePath
    )]
    path: PathBuf,
}

impl SocketArgs {
    /// The path of the query socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Output formats of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Aligned columns.
    Table,
    /// One JSON document.
    Json,
}

/// Output formats of `finwait replay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFormat {
    /// A format that every list has.
    List(Format),
    /// Lines of Zeek's conn.log, in JSON.
    Zeek,
    /// A sequence diagram of Mermaid, for an explanation.
    Mermaid,
}

impl ValueEnum for ReplayFormat {
    fn value_variants<'a>() -> &'a [ReplayFormat] {
        use ReplayFormat::{List, Mermaid, Zeek};
        &[
            List(Format::Table),
            List(Format::Wide),
            List(Format::Json),
            List(Format::Ndjson),
            List(Format::Csv),
            Zeek,
            Mermaid,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            ReplayFormat::List(format) => format.to_possible_value(),
            ReplayFormat::Zeek => Some(PossibleValue::new("zeek").help("Lines of Zeek's conn.log, in JSON")),
            ReplayFormat::Mermaid => {
                Some(PossibleValue::new("mermaid").help("With --why: a sequence diagram of Mermaid"))
            }
        }
    }
}

/// Output formats of `finwait why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhyFormat {
    /// A figure of the segments, and sentences.
    Table,
    /// One JSON document.
    Json,
    /// A sequence diagram of Mermaid.
    Mermaid,
}

impl WhyFormat {
    /// The format of an explanation in a replay.
    pub fn of_replay(format: ReplayFormat) -> WhyFormat {
        match format {
            ReplayFormat::Mermaid => WhyFormat::Mermaid,
            ReplayFormat::List(Format::Json) => WhyFormat::Json,
            ReplayFormat::List(_) | ReplayFormat::Zeek => WhyFormat::Table,
        }
    }
}

/// The name of one connection: `:PORT`, `ADDRESS:PORT`, an id, or a filter that selects it.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowName(Filter);

impl FlowName {
    /// The filter that selects the connection.
    pub fn filter(&self) -> &Filter {
        &self.0
    }
}

impl FromStr for FlowName {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<FlowName, FilterError> {
        let port = text.strip_prefix(':').filter(|port| port.parse::<u16>().is_ok());
        let filter = if let Some(port) = port {
            format!("port = :{port}")
        } else if text.parse::<SocketAddr>().is_ok() {
            format!("client {text} or server {text}")
        } else if text.parse::<ConnectionId>().is_ok() {
            format!("id {text}")
        } else {
            text.to_owned()
        };
        Filter::parse(&filter).map(FlowName)
    }
}

/// Which connections a command is about.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterArgs {
    /// Only IPv4 connections
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6 connections
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Accepted for those who type it after `ss`: addresses and ports are always numeric.
    #[arg(short = 'n', long, hide = true)]
    numeric: bool,
    /// Accepted for those who type it after `ss`: finwait knows TCP only.
    #[arg(short = 't', long, hide = true)]
    tcp: bool,
    /// Connections to select, in a language close to that of ss [default: all]
    #[arg(value_name = "FILTER", add = ArgValueCandidates::new(filter_words))]
    words: Vec<String>,
}

impl FilterArgs {
    /// Parses the words and adds the address family.
    pub fn filter(&self) -> Result<Filter, FilterError> {
        let filter: Filter = self.words.join(" ").parse()?;
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => "family ipv4",
            (_, true) => "family ipv6",
            (false, false) => return Ok(filter),
        };
        if filter.is_empty() { family.parse() } else { format!("{family} and ({filter})").parse() }
    }
}

/// Parses a moment: a duration before now, or a time, without a zone that of this host.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Timestamp::now().checked_sub(ago).map_err(|error| error.to_string());
    }
    let local = |text: &str| text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok();
    let at = text.parse().ok().or_else(|| local(text).map(|at| at.timestamp()));
    at.ok_or_else(|| {
        "expected a duration before now, such as 2h, or a time, such as 2026-12-01T08:00".to_owned()
    })
}

/// Parses a pause that does not keep a processor busy.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(pause) if pause >= Duration::from_millis(100) => Ok(pause),
        Ok(_) => Err("expected at least 100ms".into()),
        Err(error) => Err(format!("{error}; expected a duration such as 1s")),
    }
}

/// Parses the time between two samples.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval <= Duration::from_secs(60) => Ok(interval),
        Ok(_) => Err("expected at most 60s".to_owned()),
        Err(error) => Err(format!("{error}; expected a duration such as 200ms or 1s")),
    }
}
