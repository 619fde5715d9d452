//! `finwait ls` and `finwait watch`: the agent's connections and events, with the owners of local sockets.

use std::io::{self, BufWriter, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::listing::Listing;
use super::{NOT_UNDERSTOOD, found};
use crate::api::{Observed, Status, client};
use crate::cli::{LsArgs, SocketArgs, WatchArgs};
use crate::filter::Filter;
use crate::output::{EventWriter, Format, Palette, SortKey};
use crate::sockets::{Owners, namespace};
use crate::view::{Connection, EndAddress, EventRecord, Nat};

/// Lists connections, with `--watch` again and again until SIGINT ends the process.
pub(super) async fn ls(agent: &SocketArgs, args: &LsArgs) -> Result<ExitCode> {
    let Some(pause) = args.watch else { return ls_once(agent, args).await };
    loop {
        if io::stdout().is_terminal() {
            print!("{CLEAR}");
        }
        ls_once(agent, args).await?;
        tokio::time::sleep(pause).await;
        println!();
    }
}

async fn ls_once(agent: &SocketArgs, args: &LsArgs) -> Result<ExitCode> {
    let filter = args.filter.filter()?;
    let mut facts = args.by.iter().copied().chain(args.sort.iter().map(SortKey::fact));
    let shown = args.columns.iter().any(|column| column.asks_for_process());
    let processes = args.processes || shown || facts.any(|fact| fact.asks_for_process());
    let owners = owners(agent, args.output, processes, &filter).await?;
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("all", if args.all { "true" } else { "false" })
        .append_pair("own", if args.own { "true" } else { "false" })
        .append_pair("closed", if args.closed { "true" } else { "false" })
        .append_pair("filter", &asked_of_agent(&filter))
        .finish();
    let mut answer = client::get(agent.path(), &format!("/connections?{query}")).await?;
    let now = Timestamp::now();
    let out = BufWriter::with_capacity(OUT_BUFFER, io::stdout().lock());
    let mut list = Listing::new(args, out, now)?;
    let mut count = 0;
    while let Some(line) = answer.line().await? {
        if list.is_full() {
            break;
        }
        let as_it_is = filter.is_empty() && args.output.is_json() && list.takes_json();
        if as_it_is && let Some(line) = with_owner(&line, owners.as_ref())? {
            list.push_json(&line)?;
            count += 1;
            continue;
        }
        // An agent of another version may not have applied the filter.
        let mut connection: Connection = serde_json::from_slice(&line).context(NOT_UNDERSTOOD)?;
        connection.process = owners.as_ref().and_then(|owners| owners.of(&connection));
        if filter.matches(&connection, now) {
            list.push(connection)?;
            count += 1;
        }
    }
    list.finish()?;
    Ok(found(count > 0))
}

/// The filter that the agent can apply: it does not know the owners of sockets.
fn asked_of_agent(filter: &Filter) -> String {
    if filter.asks_for_process() { String::new() } else { filter.to_string() }
}

/// Inserts the owner of the local socket into a connection as the agent wrote it. `None` if the text does not
/// end as this version writes it, or its sockets have other addresses (NAT, link-local).
fn with_owner(line: &Bytes, owners: Option<&Owners>) -> Result<Option<Bytes>> {
    let Some(owners) = owners.filter(|owners| !owners.is_empty()) else { return Ok(Some(line.clone())) };
    let Ends { client, server, nat, scope } = serde_json::from_slice(line).context(NOT_UNDERSTOOD)?;
    if nat.is_some() || scope.is_some() {
        return Ok(None);
    }
    let pair = (client.socket_address(), server.socket_address());
    let sockets = [(client.local, pair), (server.local, (pair.1, pair.0))];
    let local = sockets.into_iter().filter_map(|(local, pair)| local.then_some(pair));
    let Some(process) = owners.of_sockets(local) else {
        return Ok(Some(line.clone()));
    };
    let Some(head) = line.strip_suffix(NO_OWNER) else { return Ok(None) };
    let mut line = head.to_vec();
    line.extend_from_slice(br#""process":"#);
    serde_json::to_writer(&mut line, &process)?;
    line.push(b'}');
    Ok(Some(line.into()))
}

/// The parts of a connection by which its owner is found.
#[derive(Deserialize)]
struct Ends {
    client: EndAddress,
    server: EndAddress,
    #[serde(default)]
    nat: Option<Nat>,
    #[serde(default)]
    scope: Option<String>,
}

/// Prints events until the agent stops, or SIGINT or SIGTERM arrives. Either ends a JSON document properly.
pub(super) async fn watch(agent: &SocketArgs, args: &WatchArgs) -> Result<ExitCode> {
    // Checked here, where the message can point at the mistake. Applied by the agent, which knows all but the
    // owner.
    let filter = args.filter.filter()?;
    let mut owners = owners(agent, args.output, false, &filter).await?;
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("filter", &asked_of_agent(&filter))
        .append_pair("connections", if owners.is_some() { "true" } else { "false" })
        .finish();
    let mut answer = client::get(agent.path(), &format!("/events?{query}")).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut events = EventWriter::new(io::stdout(), args.output, Palette::for_stdout())?;
    loop {
        let line = tokio::select! {
            line = answer.line() => line?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                None
            }
            _ = terminate.recv() => None,
        };
        let Some(line) = line else { break };
        match read_event(&line, owners.as_mut(), &filter) {
            Ok(Some(event)) => {
                events.push(&event)?;
                events.flush()?;
            }
            Ok(None) => {}
            Err(_) => tracing::warn!("the agent reports {}", String::from_utf8_lossy(&line)),
        }
    }
    events.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the event of a line and adds the owner of its connection. `None` if the filter does not select it.
fn read_event(line: &[u8], owners: Option<&mut Owners>, filter: &Filter) -> Result<Option<EventRecord>> {
    let Some(owners) = owners else { return Ok(Some(serde_json::from_slice(line)?)) };
    let Observed::<Connection, EventRecord> { connection, mut event } = serde_json::from_slice(line)?;
    let Some(mut connection) = connection else { return Ok(Some(event)) };
    connection.process = owners.of_event(&connection)?;
    let wanted = !filter.asks_for_process() || filter.matches(&connection, Timestamp::now());
    if let EventRecord::Close(close) = &mut event {
        close.connection.process = connection.process;
    }
    Ok(wanted.then_some(event))
}

/// The owners of this namespace's sockets, if the output or the filter needs them: it takes a scan of the
/// kernel's sockets and of `/proc`. In another namespace than the agent's, equal addresses may be of other
/// sockets: no owners.
pub(super) async fn owners(
    agent: &SocketArgs,
    format: Format,
    processes: bool,
    filter: &Filter,
) -> Result<Option<Owners>> {
    if format == Format::Table && !processes && !filter.asks_for_process() {
        return Ok(None);
    }
    let body = client::get(agent.path(), "/status").await?.whole().await?;
    let status: Status = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    let here = status.namespace.is_some() && status.namespace == namespace();
    if !here && filter.asks_for_process() {
        return Err(super::audit::OtherNamespace { pid: status.pid }.into());
    }
    let owners = if here { Some(Owners::scan()?) } else { None };
    if owners.as_ref().is_none_or(Owners::is_incomplete) {
        eprintln!("finwait: {OWNERS_NOT_SHOWN}");
    }
    Ok(owners)
}

/// Moves the cursor of a terminal home and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Printed where owners are wanted and cannot all be found.
const OWNERS_NOT_SHOWN: &str =
    "owners not shown: needs root or CAP_SYS_PTRACE, and the agent's network namespace and PID namespace";
/// The end of every connection in the agent's answer.
const NO_OWNER: &[u8] = br#""process":null}"#;
/// Bytes written by one system call.
pub(super) const OUT_BUFFER: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_owner_is_put_in_where_an_agent_of_this_version_left_room() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let server = listener.local_addr().expect("bound");
        let client = TcpStream::connect(server).expect("there is room").local_addr().expect("bound");
        let _accepted = listener.accept().expect("connected");
        let owners = Owners::scan().expect("this process may list its sockets");
        let end = |end: SocketAddr, local: bool| {
            format!(r#"{{"address":"{}","port":{},"local":{local}}}"#, end.ip(), end.port())
        };
        let line = |local: bool, rest: &str| {
            let (client, server) = (end(client, false), end(server, local));
            Bytes::from(format!(r#"{{"client":{client},"server":{server},"bytes":[1,2],{rest}}}"#))
        };
        let put_in = |line: &Bytes| with_owner(line, Some(&owners)).expect("understood");
        let owned = put_in(&line(true, r#""process":null"#)).expect("it ends as ours do");
        let owned: serde_json::Value = serde_json::from_slice(&owned).expect("JSON");
        assert_eq!(owned["process"]["pid"], std::process::id());
        assert_eq!(owned["bytes"], serde_json::json!([1, 2]));
        let elsewhere = line(false, r#""process":null"#);
        assert_eq!(put_in(&elsewhere), Some(elsewhere.clone()), "it is not of this host");
        assert_eq!(put_in(&line(true, r#""process":null,"later":1"#)), None, "another version's");
        assert!(with_owner(&Bytes::from_static(b"{"), Some(&owners)).is_err());
    }
}
