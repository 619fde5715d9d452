//! What holds in the end: flag over environment over file over default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tcp_common::Rules;

use super::config::{self, ConfigError};
use super::query::DEFAULT_SOCKET;
use super::run::{Ingress, RunArgs};
use super::{MachineArgs, Timeout};

/// How the agent is to run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// Which interfaces; empty means every one that is up.
    pub interfaces: Vec<String>,
    /// Where metrics are served.
    pub listen: SocketAddr,
    /// Where queries are served.
    pub socket: PathBuf,
    /// Which program sees incoming packets.
    pub ingress: Ingress,
    /// How many flows there is room for.
    pub max_flows: u32,
    /// Whom to become once everything is attached.
    pub user: Option<String>,
    /// How often the agent looks at the kernel's sockets; `None`: never.
    pub audit_interval: Option<Duration>,
    /// The rules of the state machine.
    pub rules: Rules,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl RunOptions {
    /// Joins what was typed or set in the environment with the file that `--config` names.
    pub fn resolve(args: &RunArgs) -> Result<RunOptions, ConfigError> {
        let file = args.config.as_deref().map(config::read).transpose()?;
        Ok(RunOptions::join(args, file.unwrap_or_default()))
    }

    pub(super) fn join(args: &RunArgs, file: RunArgs) -> RunOptions {
        RunOptions {
            interfaces: if args.interface.is_empty() { file.interface } else { args.interface.clone() },
            listen: args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            socket: args.socket.clone().or(file.socket).unwrap_or_else(|| DEFAULT_SOCKET.into()),
            ingress: args.ingress.or(file.ingress).unwrap_or(Ingress::Auto),
            max_flows: args.max_flows.or(file.max_flows).unwrap_or(DEFAULT_MAX_FLOWS),
            user: args.user.clone().or(file.user),
            audit_interval: Some(
                args.audit_interval.or(file.audit_interval).unwrap_or(DEFAULT_AUDIT_INTERVAL),
            )
            .filter(|interval| !interval.is_zero()),
            rules: machine(&args.machine, file.machine).rules(),
            dry_run: args.dry_run,
        }
    }
}

fn machine(args: &MachineArgs, file: MachineArgs) -> MachineArgs {
    // Limits are joined state by state: of two for one state, the later one in the list holds.
    let timeouts: Vec<Timeout> = file.timeouts.into_iter().chain(args.timeouts.iter().copied()).collect();
    MachineArgs {
        msl: args.msl.or(file.msl),
        rfc1337: args.rfc1337.or(file.rfc1337),
        tw_restart: args.tw_restart.or(file.tw_restart),
        timeouts,
    }
}

/// Loopback only: metrics tell who talks to whom.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9817);

/// An orphan in FIN-WAIT-2 is kept by Linux for 60 s.
const DEFAULT_AUDIT_INTERVAL: Duration = Duration::from_secs(30);

/// 175 MiB of flow table.
const DEFAULT_MAX_FLOWS: u32 = 262_144;
