//! `finwait ports`: how many local ports are left for each destination.

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{NOT_UNDERSTOOD, found};
use crate::api::client;
use crate::cli::{PortsArgs, SocketArgs};
use crate::output::{Palette, sort_ports, write_ports};
use crate::view::Ports;

/// Lists the port budgets of the agent's namespace.
pub(super) async fn run(agent: &SocketArgs, args: &PortsArgs) -> Result<ExitCode> {
    let body = client::get(agent.path(), "/ports").await?.whole().await?;
    let mut ports: Ports = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    if !args.sort.is_empty() {
        sort_ports(&mut ports.destinations, &args.sort);
    }
    ports.destinations.truncate(args.limit.unwrap_or(usize::MAX));
    write_ports(&ports, &mut io::stdout().lock(), args.output, !args.no_header, Palette::for_stdout())?;
    Ok(found(!ports.destinations.is_empty()))
}
