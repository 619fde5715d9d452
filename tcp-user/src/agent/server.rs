//! HTTP handlers of the query socket and of `/metrics`.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tcp_common::record::ForeignSegment;
use tcp_common::{End, Ignored};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::disk_query;
use super::history::Extent;
use super::interfaces::InterfaceNames;
use super::metrics::{self, Exposition};
use super::shared::{Shared, WatchEvent};
use super::stats::by_label;
use super::totals::Snapshot;
use crate::api::{
    ConnectionsQuery, EventsQuery, HistoryQuery, HistoryStatus, InterfaceStatus, Observed, OtherNetwork,
    SeenAt, Stats, Status, WhyQuery,
};
use crate::filter::Filter;
use crate::kernel::Entry;
use crate::sockets::{Diag, Listeners, namespace};
use crate::view::describe::{address, vlan_ids};
use crate::view::{self, Connection, EventRecord, Lost, Role};

/// State that the handlers share.
#[derive(Clone)]
pub struct App {
    /// State of the agent.
    pub shared: Arc<Shared>,
    /// Time at which the agent started.
    pub started_at: Timestamp,
    /// State of the interfaces, updated by the task that follows them.
    pub interfaces: Arc<Mutex<Vec<InterfaceStatus>>>,
}

/// Routes of the query socket.
pub fn query_routes(app: App) -> Router {
    Router::new()
        .route("/connections", get(connections))
        .route("/events", get(events))
        .route("/ports", get(ports))
        .route("/stats", get(stats))
        .route("/why", get(why))
        .route("/history", get(closed))
        .route("/status", get(status))
        .with_state(app)
}

/// Routes of the metrics address.
pub fn metrics_routes(app: App) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/", get(async || "finwait: see /metrics\n"))
        .with_state(app)
}

/// Streams one line for each connection, without holding all of them in memory.
async fn connections(State(app): State<App>, Query(query): Query<ConnectionsQuery>) -> Response {
    let filter = match Filter::parse(&query.filter) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let shared = app.shared;
    let ended: Vec<_> = match query.closed {
        true => shared.ended().into_iter().map(|ended| ended.entry).collect(),
        false => Vec::new(),
    };
    // Those that have ended, numbered behind the slots.
    let (slots, ended_count) = (shared.table.slot_count(), ended.len() as u32);
    let list = Arc::new(ConnectionList { shared, query, filter, ended, listeners: OnceLock::new() });
    let numbers = slots.saturating_add(ended_count);
    let chunks = stream::iter((0..numbers).step_by(SLOTS_A_CHUNK as usize)).map(move |first| {
        let list = Arc::clone(&list);
        let until = first.saturating_add(SLOTS_A_CHUNK).min(numbers);
        tokio::task::spawn_blocking(move || Bytes::from(list.lines(first..until)))
    });
    ndjson(Body::from_stream(chunks.buffered(CHUNKS_AT_ONCE)))
}

/// The answer to a query for connections.
struct ConnectionList {
    shared: Arc<Shared>,
    query: ConnectionsQuery,
    filter: Filter,
    /// Those that have left the flow table, if they are asked for.
    ended: Vec<Entry>,
    /// Read when the first end needs them.
    listeners: OnceLock<Listeners>,
}

impl ConnectionList {
    /// The lines of the connections in some slots, and of some that have left the flow table.
    fn lines(&self, numbers: Range<u32>) -> Vec<u8> {
        let mut lines = Vec::new();
        let (shared, query) = (&self.shared, &self.query);
        let (describer, now) = (shared.describer(), Timestamp::now());
        for entry in numbers.filter_map(|number| self.entry(number)) {
            if (!query.own && shared.own.includes(&entry.key, &entry.flow))
                || (query.closed && !entry.flow.is_over())
            {
                continue;
            }
            let all = query.all || query.closed;
            let Some(mut connection) = shared.listed(&describer, &entry, all) else { continue };
            self.show_listeners(&mut connection);
            if self.filter.matches(&connection, now) && serde_json::to_writer(&mut lines, &connection).is_ok()
            {
                lines.push(b'\n');
            }
        }
        lines
    }

    fn entry(&self, number: u32) -> Option<Entry> {
        match number.checked_sub(self.shared.table.slot_count()) {
            Some(number) => self.ended.get(number as usize).copied(),
            None => self.shared.table.read(number),
        }
    }

    /// Sets the state of ends of this host that have not answered yet and whose socket listens.
    fn show_listeners(&self, connection: &mut Connection) {
        let [client, server] = [Role::Client, Role::Server].map(|side| connection.socket_of(side).0);
        for (end, socket) in [(&mut connection.client, client), (&mut connection.server, server)] {
            if end.local
                && end.state == view::State::Unknown
                && self.listeners.get_or_init(read_listeners).accept(socket)
            {
                (end.state, end.confirmed) = (view::State::Listen, true);
            }
        }
    }
}

/// The listening sockets of this host; none if the kernel does not list them.
fn read_listeners() -> Listeners {
    Diag::open().and_then(|mut diag| diag.listeners()).unwrap_or_default()
}

/// Streams events as they happen, until the client disconnects.
async fn events(State(app): State<App>, Query(query): Query<EventsQuery>) -> Response {
    let filter = match Filter::parse(&query.filter) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let receiver = app.shared.watchers.subscribe();
    let connections = query.connections;
    let body = stream::unfold((receiver, filter, app), move |(mut receiver, filter, app)| async move {
        let line = loop {
            match receiver.recv().await {
                Ok(event) if !filter.matches(&event.connection, Timestamp::now()) => {}
                Ok(WatchEvent { connection, event }) => break line(Some(&connection), &event, connections),
                Err(RecvError::Lagged(events)) => {
                    app.shared.totals.lock().watch_events_lost += events;
                    break line(None, &Lost { events }.into(), connections);
                }
                Err(RecvError::Closed) => return None,
            }
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line + "\n")), (receiver, filter, app)))
    });
    ndjson(Body::from_stream(body))
}

/// The text of an event, with its connection if the client wants it.
fn line(connection: Option<&Connection>, event: &EventRecord, connections: bool) -> String {
    let text = if connections {
        serde_json::to_string(&Observed { connection, event })
    } else {
        serde_json::to_string(event)
    };
    text.unwrap_or_default()
}

/// Explains one connection.
async fn why(State(app): State<App>, Query(query): Query<WhyQuery>) -> Response {
    let filter = match Filter::parse(&query.filter) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let answer = tokio::task::spawn_blocking(move || app.shared.explain(&filter)).await;
    answer.map_or_else(unavailable, |answer| axum::Json(answer).into_response())
}

/// Counts the ports that a connect() can choose from.
async fn ports(State(app): State<App>) -> Response {
    match tokio::task::spawn_blocking(move || app.shared.ports()).await {
        Ok(Ok(ports)) => axum::Json(ports).into_response(),
        Ok(Err(error)) => unavailable(error),
        Err(error) => unavailable(error),
    }
}

/// Streams one line for each connection that closed, from the files.
async fn closed(State(app): State<App>, Query(query): Query<HistoryQuery>) -> Response {
    let filter = match Filter::parse(&query.filter) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let Some(disk) = app.shared.disk.clone() else {
        return (StatusCode::NOT_FOUND, NO_HISTORY_FILES).into_response();
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_AT_ONCE);
    tokio::task::spawn_blocking(move || disk_query::answer(&disk, &query, &filter, sender));
    let body = stream::unfold(receiver, async |mut receiver| {
        Some((Ok::<_, std::convert::Infallible>(receiver.recv().await?), receiver))
    });
    ndjson(Body::from_stream(body))
}

async fn stats(State(app): State<App>) -> Response {
    match full_snapshot(app).await {
        Ok(snapshot) => axum::Json(Stats::from(&snapshot)).into_response(),
        Err(error) => unavailable(error),
    }
}

/// Reads all counters and gauges on a thread that may wait for the kernel.
async fn full_snapshot(app: App) -> anyhow::Result<Snapshot> {
    Ok(tokio::task::spawn_blocking(move || app.shared.full_snapshot()).await??)
}

async fn status(State(app): State<App>) -> Response {
    let snapshot = match app.shared.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) => return unavailable(error),
    };
    let kernel = app.shared.kernel.lock();
    let programs =
        kernel.verified_instructions().iter().map(|&(name, count)| (name.to_owned(), count)).collect();
    let foreign = match kernel.foreign_segment() {
        Ok(foreign) => foreign,
        Err(error) => return unavailable(error),
    };
    drop(kernel);
    let total = |name| metrics::total(&snapshot, name);
    axum::Json(Status {
        schema: "finwait.status/1".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        namespace: namespace(),
        started_at: app.started_at,
        interfaces: app.interfaces.lock().clone(),
        table_used: total("flow_table_entries"),
        table_classes: by_label(&snapshot, "flow_table_entries", 1),
        table_capacity: total("flow_table_capacity"),
        table_used_by_family: by_label(&snapshot, "flow_table_entries", 0),
        table_capacity_by_family: by_label(&snapshot, "flow_table_capacity", 0),
        table_bytes: app.shared.table.bytes() as u64,
        packets: total("packets"),
        events_lost: total("events_lost"),
        deferred: total("deferred_segments"),
        evicted: total("flows_evicted"),
        refused: by_label(&snapshot, "packets_ignored", 0)[Ignored::TableFull.name()],
        other_network: foreign.map(|segment| other_network(&segment, &app.shared.names)),
        history: Some(history(&app.shared, &snapshot)),
        reset_reasons_missing: app.shared.reset_reasons.as_ref().err().cloned(),
        history_files: app.shared.disk.as_ref().map(|disk| disk.status()),
        verified_instructions: programs,
        two_msl_ms: app.shared.rules.time_wait_local_ns / 1_000_000,
        watchers: app.shared.watchers.receiver_count() as u64,
    })
    .into_response()
}

fn history(shared: &Shared, snapshot: &Snapshot) -> HistoryStatus {
    let Extent { bytes, moments, connections, since_ns } = shared.histories.lock().extent();
    HistoryStatus {
        bytes,
        segments: moments.0,
        segment_capacity: moments.1,
        connections: connections.0 as u64,
        connection_capacity: connections.1 as u64,
        since: since_ns.map(|ns| shared.clock.lock().wall(ns)),
        withheld: metrics::total(snapshot, "events_withheld"),
    }
}

fn other_network(segment: &ForeignSegment, names: &InterfaceNames) -> OtherNetwork {
    let [connection, packet] = [0, 1].map(|index| SeenAt {
        interface: names.location(&segment.key, segment.hooks[index], [0; 2]).interface,
        vlan: vlan_ids(segment.tags[index]).unwrap_or_default(),
    });
    let socket = |end| (address(&segment.key, end), segment.key.endpoint(end).port).into();
    OtherNetwork { ends: [End::A, End::B].map(socket), connection, packet }
}

async fn scrape(State(app): State<App>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Exposition::negotiate(accept);
    let text = full_snapshot(app).await.and_then(|snapshot| Ok(metrics::encode(&snapshot, format)?));
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => unavailable(error),
    }
}

/// The answer if the kernel's counters cannot be read.
fn unavailable(error: impl Into<anyhow::Error>) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}\n", error.into())).into_response()
}

fn ndjson(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The answer of an agent without files of closed connections.
const NO_HISTORY_FILES: &str = "the agent keeps no history on disk: start it with --history-dir";
/// Slots in a chunk of an answer. A chunk has about 400 kB at most.
const SLOTS_A_CHUNK: u32 = 1024;
/// Chunks of an answer that are prepared at the same time.
const CHUNKS_AT_ONCE: usize = 2;
