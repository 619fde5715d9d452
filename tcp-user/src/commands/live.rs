//! `finwait ls` and `finwait watch`: what the agent knows, and who owns the sockets.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::found;
use crate::agent::server::{Observed, Status};
use crate::cli::{LsArgs, SocketArgs, WatchArgs};
use crate::filter::Filter;
use crate::output::{EventWriter, Format, ListWriter, Palette};
use crate::sockets::Owners;
use crate::view::{Connection, Event};
use crate::{audit, client};

/// A list.
pub(super) async fn ls(args: &LsArgs) -> Result<ExitCode> {
    let filter = args.filter.filter()?;
    let owners = owners(&args.socket, args.output, &filter).await?;
    let path = if args.all { "/connections?all=true" } else { "/connections" };
    let mut answer = client::get(args.socket.path(), path).await?;
    let now = Timestamp::now();
    let out = BufWriter::new(io::stdout().lock());
    let mut list = ListWriter::new(out, args.output, Palette::for_stdout(), now)?;
    while let Some(line) = answer.line().await? {
        let mut connection: Connection =
            serde_json::from_slice(&line).context("reading the agent's answer")?;
        connection.process = owners.as_ref().and_then(|owners| owners.of(&connection));
        if filter.matches(&connection, now) {
            list.push(&connection)?;
        }
    }
    Ok(found(list.finish()? > 0))
}

/// Until the agent stops or somebody has seen enough.
pub(super) async fn watch(args: &WatchArgs) -> Result<ExitCode> {
    // Checked here, where the message can point at the place; applied by the agent, which knows the whole connection but
    // for its owner.
    let filter = args.filter.filter()?;
    let mut owners = owners(&args.socket, args.output, &filter).await?;
    let there = if filter.asks_for_process() { String::new() } else { filter.to_string() };
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("filter", &there)
        .append_pair("connections", if owners.is_some() { "true" } else { "false" })
        .finish();
    let mut answer = client::get(args.socket.path(), &format!("/events?{query}")).await?;
    let mut events = EventWriter::new(io::stdout(), args.output, Palette::for_stdout())?;
    loop {
        let line = tokio::select! {
            line = answer.line() => line?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                None
            }
        };
        let Some(line) = line else { break };
        match read_event(&line, owners.as_mut(), &filter) {
            Ok(Some(event)) => {
                events.push(&event)?;
                events.flush()?;
            }
            Ok(None) => {}
            Err(_) => eprintln!("finwait: {}", String::from_utf8_lossy(&line)),
        }
    }
    events.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The event of a line, with the owner of its connection where that was asked for, if it is wanted.
fn read_event(line: &[u8], owners: Option<&mut Owners>, filter: &Filter) -> Result<Option<Event>> {
    let Some(owners) = owners else { return Ok(Some(serde_json::from_slice(line)?)) };
    let Observed::<Connection, Event> { mut connection, mut event } = serde_json::from_slice(line)?;
    connection.process = owners.of_event(&connection)?;
    let wanted = !filter.asks_for_process() || filter.matches(&connection, Timestamp::now());
    if let Event::Close(close) = &mut event {
        close.connection.process = connection.process;
    }
    Ok(wanted.then_some(event))
}

/// Who owns which socket, where somebody asks: it takes a scan of the kernel's sockets and of `/proc`. In another
/// namespace than the agent's the same addresses may be somebody else's, so nobody is named there.
async fn owners(agent: &SocketArgs, format: Format, filter: &Filter) -> Result<Option<Owners>> {
    if format == Format::Table && !filter.asks_for_process() {
        return Ok(None);
    }
    let body = client::get(agent.path(), "/status").await?.whole().await?;
    let status: Status = serde_json::from_slice(&body).context("reading the agent's answer")?;
    let here = status.namespace.is_some() && status.namespace == audit::namespace();
    if !here && filter.asks_for_process() {
        return Err(super::audit::OtherNamespace { pid: status.pid }.into());
    }
    Ok(if here { Some(Owners::scan()?) } else { None })
}
