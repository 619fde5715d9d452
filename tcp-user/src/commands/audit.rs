//! `finwait audit`.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{NOT_UNDERSTOOD, found};
use crate::api::{Status, client};
use crate::audit;
use crate::cli::{AuditArgs, ReportFormat, SocketArgs};
use crate::output::Palette;
use crate::sockets::namespace;

/// Compares the agent's states with the kernel's sockets. Works only in the agent's network namespace.
pub(super) async fn run(agent: &SocketArgs, args: &AuditArgs) -> Result<ExitCode> {
    let filter = args.filter.filter()?;
    let body = client::get(agent.path(), "/status").await?.whole().await?;
    let status: Status = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    if status.namespace.is_some() && status.namespace != namespace() {
        return Err(OtherNamespace { pid: status.pid }.into());
    }
    let options =
        audit::Options { filter, interval: args.interval, all: args.all, conntrack: args.conntrack };
    let report = audit::audit(agent.path(), &status, &options).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    match args.output {
        ReportFormat::Table => audit::write_table(&report, &mut out, Palette::for_stdout())?,
        ReportFormat::Json => {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(found(report.agrees()))
}

/// The agent runs in another network namespace, so the sockets here are not those of its connections. Exit
/// status 4.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent (pid {pid}) runs in another network namespace; put `nsenter --net=/proc/{pid}/ns/net` before the command"
)]
pub(super) struct OtherNamespace {
    pub(super) pid: u32,
}
