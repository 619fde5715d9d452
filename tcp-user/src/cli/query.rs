//! What the commands that ask have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::words;
use crate::api::DEFAULT_SOCKET;
use crate::filter::{Filter, FilterError};

/// Which agent.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct SocketArgs {
    /// The agent's query socket.
    #[arg(long = "socket", value_name = "PATH", env = "FINWAIT_SOCKET", default_value = DEFAULT_SOCKET)]
    path: PathBuf,
}

impl SocketArgs {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

words! {
    /// How totals are written.
    pub enum Report ("output format") {
        /// For people.
        Table = "table",
        /// One JSON document.
        Json = "json",
    }
}

/// Which connections.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterArgs {
    /// Which connections, in words much like those of ss; all if left out.
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

impl FilterArgs {
    /// The words as a filter.
    pub fn filter(&self) -> Result<Filter, FilterError> {
        Filter::parse(&self.filter.join(" "))
    }
}

/// A duration between two samples.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval <= Duration::from_secs(60) => Ok(interval),
        Ok(_) => Err("expected at most 60s".to_owned()),
        Err(error) => Err(format!("{error}; expected a duration such as 200ms or 1s")),
    }
}

macro_rules! filter_help {
    () => {
        "\
FILTER:
  state NAME                  either end is in it: time-wait, TIME_WAIT, or a
                              group of ss: connected, synchronized, bucket, big
  client state NAME           that end is; also server, local, remote
  exclude NAME                neither end is
  src ADDR[/LEN][:PORT]       the local end; dst: the remote end; also client,
                              server, local, remote
  dport OP :PORT              also sport, and port for either end; OP is one of
                              = != < <= > >= or eq ne lt le gt ge
  closer WHO                  client, server, both, local, remote, none; also
                              aborter, opener (unknown), holder of TIME-WAIT
  kind KIND                   fin_4seg, fin_3seg, simultaneous, half_close,
                              rst_abort, rst_after_fin, refused, syn_abort,
                              syn_timeout, timeout, superseded, open, unseen
  age OP DURATION             since the first SYN: age gt 30s
  idle OP DURATION            since the last segment: idle ge 5m
  process NAME|PID            the owner of the local socket
  interface NAME              where it was first seen
  family ipv4|ipv6
  confidence WORD             exact, gap, midstream, one_way
  and or not ( ) && || !      nothing between two tests means and; put in quotes
                              what the shell would take: ( ) < > ! & |"
    };
}

macro_rules! ls_examples {
    () => {
        "\
Examples:
  finwait ls state time-wait and dst 10.0.0.0/8 and dport = :443
  finwait ls 'local state close-wait and idle > 5m' -o json
  finwait ls closer remote or kind rst_abort"
    };
}

macro_rules! watch_examples {
    () => {
        "\
Examples:
  finwait watch dport = :443
  finwait watch aborter remote -o ndjson"
    };
}

macro_rules! replay_examples {
    () => {
        "\
Examples:
  finwait replay capture.pcapng
  finwait replay capture.pcap --events kind rst_after_fin
  tcpdump -w - -i eth0 tcp | finwait replay - --events -o ndjson"
    };
}

macro_rules! audit_examples {
    () => {
        "\
Examples:
  finwait audit
  finwait audit local state fin-wait -o json
  finwait audit --conntrack"
    };
}

pub(super) const LS_EXAMPLES: &str = ls_examples!();
pub(super) const LS_LONG: &str = concat!(filter_help!(), "\n\n", ls_examples!());
pub(super) const WATCH_EXAMPLES: &str = watch_examples!();
pub(super) const WATCH_LONG: &str = concat!(filter_help!(), "\n\n", watch_examples!());
pub(super) const AUDIT_LONG: &str = concat!(filter_help!(), "\n\n", audit_examples!());
pub(super) const REPLAY_EXAMPLES: &str = replay_examples!();
pub(super) const REPLAY_LONG: &str = concat!(filter_help!(), "\n\n", replay_examples!());
