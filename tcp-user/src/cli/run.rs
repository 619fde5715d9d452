//! The options of the agent.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{MachineArgs, word_parser, words};

/// What was typed or set in the environment; `None` and empty where neither.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// Watch this interface; repeatable [default: every one that is up]
    #[arg(short, long, value_name = "IFACE", env = "FINWAIT_INTERFACE", value_delimiter = ',')]
    pub interface: Vec<String>,

    /// Serve metrics on this address; port 0 takes any that is free [default: 127.0.0.1:9817]
    #[arg(long, value_name = "ADDR:PORT", env = "FINWAIT_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Serve queries on this socket [default: /run/finwait/finwait.sock]
    #[arg(long, value_name = "PATH", env = "FINWAIT_SOCKET")]
    pub socket: Option<PathBuf>,

    /// Which program sees incoming packets [default: auto]
    ///
    /// auto takes native XDP where the driver has it and nobody else sits, TC elsewhere.
    #[arg(long, value_name = "HOOK", env = "FINWAIT_INGRESS", value_parser = word_parser::<Ingress>())]
    pub ingress: Option<Ingress>,

    /// So many IPv4 connections always find a place, 437 octets each; IPv6 has half as many of 480 [default: 262144]
    #[arg(long, value_name = "N", env = "FINWAIT_MAX_FLOWS", value_parser = max_flows_parser())]
    pub max_flows: Option<u32>,

    /// Become this user once everything is loaded and attached [default: stay who started it]
    ///
    /// The user's group may ask the query socket. What later interfaces need is kept, whoever it is.
    #[arg(long, value_name = "NAME", env = "FINWAIT_USER")]
    pub user: Option<String>,

    /// Compare with the kernel's sockets this often, and end what it has forgotten without a segment; 0: never [default:
    /// 30s]
    #[arg(long, value_name = "DURATION", env = "FINWAIT_AUDIT_INTERVAL", value_parser = audit_interval)]
    pub audit_interval: Option<Duration>,

    /// The rules of the state machine.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Read options from this TOML file.
    #[arg(short, long, value_name = "FILE", env = "FINWAIT_CONFIG")]
    pub config: Option<PathBuf>,

    /// Say what would be attached where, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

words! {
    /// Which kind of program sees incoming packets.
    pub enum Ingress ("hook") {
        /// Native XDP on network cards that have it, TC elsewhere.
        Auto = "auto",
        /// XDP.
        Xdp = "xdp",
        /// TC.
        Tc = "tc",
    }
}

/// From a table that is of use in a test to 27 GiB of IPv4.
pub(super) const MAX_FLOWS: RangeInclusive<u32> = 64..=67_108_864;

fn max_flows_parser() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*MAX_FLOWS.start())..=i64::from(*MAX_FLOWS.end()))
}

/// A duration, or `0` or `off` for never.
pub(super) fn audit_interval(text: &str) -> Result<Duration, String> {
    if text == "0" || text.eq_ignore_ascii_case("off") {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(interval) if interval.is_zero() || interval >= SHORTEST_AUDIT_INTERVAL => Ok(interval),
        Ok(_) => Err("expected at least 100ms, or 0 for never".to_owned()),
        Err(error) => Err(format!("{error}; expected a duration such as 30s or 5m, or 0 for never")),
    }
}

/// More often would be work without end.
const SHORTEST_AUDIT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) const EXAMPLES: &str = "\
Examples:
  finwait run
  finwait run -i eth0 -i eth1 --listen 0.0.0.0:9817
  finwait run --timeout close_wait=2h --timeout fin_wait=never
  finwait run --ingress tc --dry-run

A configuration file:
  interface = [\"eth0\", \"eth1\"]
  listen = \"127.0.0.1:9817\"
  max-flows = 1048576
  msl = \"30s\"
  [timeout]
  close_wait = \"2h\"";
