//! Records as comma-separated values: the machine's words, an empty field where nothing is known.

use std::io::{self, Write};
use std::net::SocketAddr;

use jiff::Timestamp;

use super::cell::{escape, vlan_ids};
use crate::view::{
    Close, CloseInfo, CloseKind, Connection, ConnectionEnd, Durations, EndAddress, EventRecord, PortBudget,
    Role, State, TimeWait, TimeWaitEnd, Transition,
};

/// Writes lines with as much quoting as they need.
#[derive(Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn write<F: AsRef<[u8]>>(
        &mut self,
        out: &mut impl Write,
        fields: impl Iterator<Item = F>,
    ) -> io::Result<()> {
        self.buffer.clear();
        let mut line = ::csv::Writer::from_writer(std::mem::take(&mut self.buffer));
        line.write_record(fields)?;
        self.buffer = line.into_inner().map_err(|error| error.into_error())?;
        out.write_all(&self.buffer)
    }
}

type Field<T> = (&'static str, fn(&T) -> String);

/// Names and values of a port budget's line.
pub(super) const PORT_BUDGET: &[Field<PortBudget>] = &[
    ("local_address", |b| b.local_address.to_string()),
    ("remote_address", |b| b.remote_address.to_string()),
    ("remote_port", |b| b.remote_port.to_string()),
    ("scope", |b| scope(b.scope.as_deref())),
    ("live", |b| b.live.to_string()),
    ("time_wait", |b| b.time_wait.to_string()),
    ("reusable", |b| b.reusable.to_string()),
    ("free", |b| b.free.to_string()),
    ("opening_per_second", |b| b.opening_per_second.to_string()),
    ("releasing_per_second", |b| b.releasing_per_second.to_string()),
    ("expiring_per_second", |b| b.expiring_per_second.to_string()),
    ("exhausted_in_ms", |b| text(b.exhausted_in_ms)),
];

/// Names and values of a connection's line.
pub(super) const CONNECTION: &[Field<Connection>] = &[
    ("family", |c| c.family.to_string()),
    ("interface", |c| c.interface.as_deref().map(escape).unwrap_or_default()),
    ("scope", |c| scope(c.scope.as_deref())),
    ("tunnel", |c| text(c.tunnel)),
    ("incarnation", |c| c.incarnation.to_string()),
    ("id", |c| c.id.to_string()),
    ("client_address", |c| c.client.address.to_string()),
    ("client_port", |c| c.client.port.to_string()),
    ("client_state", |c| state(c.client.state)),
    ("client_confirmed", |c| c.client.confirmed.to_string()),
    ("client_local", |c| c.client.local.to_string()),
    ("client_vlan", |c| text(vlan_ids(&c.client))),
    ("client_segments", |c| c.client.segments.to_string()),
    ("client_bytes", |c| c.client.bytes.to_string()),
    ("server_address", |c| c.server.address.to_string()),
    ("server_port", |c| c.server.port.to_string()),
    ("server_state", |c| state(c.server.state)),
    ("server_confirmed", |c| c.server.confirmed.to_string()),
    ("server_local", |c| c.server.local.to_string()),
    ("server_vlan", |c| text(vlan_ids(&c.server))),
    ("server_segments", |c| c.server.segments.to_string()),
    ("server_bytes", |c| c.server.bytes.to_string()),
    ("opener", |c| c.opener.to_string()),
    ("confidence", |c| c.confidence.to_string()),
    ("opened_at", |c| time(c.opened_at)),
    ("last_seen_at", |c| time(Some(c.last_seen_at))),
    ("handshake_ms", |c| text(c.handshake_ms)),
    ("close_kind", |c| of(c, |close| close.kind.map(CloseKind::name))),
    ("closer", |c| of(c, |close| close.closer)),
    ("aborter", |c| of(c, |close| close.aborter)),
    ("icmp", |c| of(c, |close| close.icmp)),
    ("fins", |c| of(c, |close| Some(close.fins))),
    ("complete", |c| of(c, |close| Some(close.complete))),
    ("close_started_at", |c| time(c.close.as_ref().and_then(|close| close.started_at))),
    ("time_wait_holder", |c| text(waiting(c).map(|time_wait| time_wait.holder))),
    ("time_wait_expires_in_ms", |c| text(waiting(c).map(|time_wait| time_wait.expires_in_ms))),
    ("time_wait_restarts", |c| text(waiting(c).map(|time_wait| time_wait.restarts))),
    ("pid", |c| text(c.process.as_ref().map(|process| process.pid))),
    ("comm", |c| c.process.as_ref().map(|process| escape(&process.comm)).unwrap_or_default()),
    ("unit", |c| {
        let unit = c.process.as_ref().and_then(|process| process.unit.as_deref());
        unit.map(escape).unwrap_or_default()
    }),
    ("client_on_host", |c| c.client.on_host.to_string()),
    ("server_on_host", |c| c.server.on_host.to_string()),
    ("nat_client_address", |c| text(c.nat.map(|nat| nat.reply.client.address))),
    ("nat_client_port", |c| text(c.nat.map(|nat| nat.reply.client.port))),
    ("nat_server_address", |c| text(c.nat.map(|nat| nat.reply.server.address))),
    ("nat_server_port", |c| text(c.nat.map(|nat| nat.reply.server.port))),
    ("reset", |c| text(c.reset.as_ref().map(|reset| reset.class))),
    ("reset_sender", |c| text(c.reset.as_ref().and_then(|reset| reset.sender))),
    ("ignored_rst", |c| c.ignored_rst.as_deref().map(escape).unwrap_or_default()),
];

/// Name of the first field of a connection that closed.
pub(super) const CLOSED_AT: &str = "closed_at";

/// Names and values of an event's line; each kind of event leaves the fields of the others empty.
pub(super) const EVENT: &[Field<EventRecord>] = &[
    ("event", |e| kind_of_event(e).to_owned()),
    ("at", |e| time(moment(e))),
    ("scope", |e| scope(scope_of_event(e))),
    ("client_address", |e| text(ends(e).map(|[client, _]| client.ip()))),
    ("client_port", |e| text(ends(e).map(|[client, _]| client.port()))),
    ("server_address", |e| text(ends(e).map(|[_, server]| server.ip()))),
    ("server_port", |e| text(ends(e).map(|[_, server]| server.port()))),
    ("incarnation", |e| text(incarnation(e))),
    ("id", |e| text(e.id())),
    ("side", |e| text(side(e))),
    ("from", |e| of_transition(e, |t| state(t.from))),
    ("to", |e| of_transition(e, |t| state(t.to))),
    ("cause", cause),
    ("close_kind", |e| of_close(e, |c| of(&c.connection, |close| close.kind.map(CloseKind::name)))),
    ("closer", |e| of_close(e, |c| of(&c.connection, |close| close.closer))),
    ("aborter", |e| of_close(e, |c| of(&c.connection, |close| close.aborter))),
    ("icmp", |e| of_close(e, |c| of(&c.connection, |close| close.icmp))),
    ("fins", |e| of_close(e, |c| of(&c.connection, |close| Some(close.fins)))),
    ("complete", |e| of_close(e, |c| of(&c.connection, |close| Some(close.complete)))),
    ("handshake_ms", |e| lasted(e, |d| d.handshake)),
    ("established_ms", |e| lasted(e, |d| d.established)),
    ("closing_ms", |e| lasted(e, |d| d.closing)),
    ("time_wait_ms", |e| of_time_wait_end(e, |end| end.duration_ms.to_string())),
    ("revision", |e| of_close(e, |c| c.revision.to_string())),
    ("restarts", |e| of_time_wait_end(e, |end| end.restarts.to_string())),
    ("lost", |e| if let EventRecord::Lost(lost) = e { lost.events.to_string() } else { String::new() }),
    ("reset", |e| of_close(e, |c| text(c.connection.reset.as_ref().map(|reset| reset.class)))),
];

/// The name of an event's schema without version.
fn kind_of_event(event: &EventRecord) -> &'static str {
    match event {
        EventRecord::Transition(_) => "transition",
        EventRecord::Close(_) => "close",
        EventRecord::Reopened(_) => "reopened",
        EventRecord::RstIgnored(_) => "rst_ignored",
        EventRecord::TimeWaitEnd(_) => "time_wait_end",
        EventRecord::Lost(_) => "lost",
    }
}

fn moment(event: &EventRecord) -> Option<Timestamp> {
    match event {
        EventRecord::Transition(record) => Some(record.at),
        EventRecord::Close(record) => record.closed_at,
        EventRecord::Reopened(record) => Some(record.at),
        EventRecord::RstIgnored(record) => Some(record.at),
        EventRecord::TimeWaitEnd(record) => Some(record.at),
        EventRecord::Lost(_) => None,
    }
}

/// The client and the server.
fn ends(event: &EventRecord) -> Option<[SocketAddr; 2]> {
    let ends = |client: &EndAddress, server: &EndAddress| [client, server].map(EndAddress::socket_address);
    match event {
        EventRecord::Transition(record) => Some(ends(&record.client, &record.server)),
        EventRecord::Close(record) => Some(record.connection.ends().map(ConnectionEnd::socket_address)),
        EventRecord::Reopened(record) => Some(ends(&record.client, &record.server)),
        EventRecord::RstIgnored(record) => Some(ends(&record.client, &record.server)),
        EventRecord::TimeWaitEnd(record) => Some(ends(&record.client, &record.server)),
        EventRecord::Lost(_) => None,
    }
}

fn incarnation(event: &EventRecord) -> Option<u32> {
    match event {
        EventRecord::Transition(record) => Some(record.incarnation),
        EventRecord::Close(record) => Some(record.connection.incarnation),
        EventRecord::Reopened(record) => Some(record.incarnation),
        EventRecord::RstIgnored(record) => Some(record.incarnation),
        EventRecord::TimeWaitEnd(record) => Some(record.incarnation),
        EventRecord::Lost(_) => None,
    }
}

fn scope_of_event(event: &EventRecord) -> Option<&str> {
    match event {
        EventRecord::Transition(record) => record.scope.as_deref(),
        EventRecord::Close(record) => record.connection.scope.as_deref(),
        EventRecord::Reopened(record) => record.scope.as_deref(),
        EventRecord::RstIgnored(record) => record.scope.as_deref(),
        EventRecord::TimeWaitEnd(record) => record.scope.as_deref(),
        EventRecord::Lost(_) => None,
    }
}

/// The end that the event is about.
fn side(event: &EventRecord) -> Option<Role> {
    match event {
        EventRecord::Transition(record) => Some(record.side),
        EventRecord::RstIgnored(record) => Some(record.sender),
        EventRecord::TimeWaitEnd(record) => Some(record.holder),
        EventRecord::Close(_) | EventRecord::Reopened(_) | EventRecord::Lost(_) => None,
    }
}

/// Why a state changed, a close was taken back, a RST was not accepted, or a TIME-WAIT ended.
fn cause(event: &EventRecord) -> String {
    match event {
        EventRecord::Transition(record) => escape(&record.cause),
        EventRecord::Reopened(record) => record.reason.to_string(),
        EventRecord::RstIgnored(record) => escape(&record.cause),
        EventRecord::TimeWaitEnd(record) => record.ending.to_string(),
        EventRecord::Close(_) | EventRecord::Lost(_) => String::new(),
    }
}

fn scope(interface: Option<&str>) -> String {
    interface.map(escape).unwrap_or_default()
}

fn state(state: State) -> String {
    if state == State::Unknown { String::new() } else { state.name().to_owned() }
}

fn waiting(connection: &Connection) -> Option<&TimeWait> {
    connection.time_wait.as_ref()
}

fn of<T: ToString>(connection: &Connection, fact: impl Fn(&CloseInfo) -> Option<T>) -> String {
    text(connection.close.as_ref().and_then(fact))
}

fn of_transition(event: &EventRecord, fact: impl Fn(&Transition) -> String) -> String {
    if let EventRecord::Transition(transition) = event { fact(transition) } else { String::new() }
}

fn of_close(event: &EventRecord, fact: impl Fn(&Close) -> String) -> String {
    if let EventRecord::Close(close) = event { fact(close) } else { String::new() }
}

fn of_time_wait_end(event: &EventRecord, fact: impl Fn(&TimeWaitEnd) -> String) -> String {
    if let EventRecord::TimeWaitEnd(end) = event { fact(end) } else { String::new() }
}

fn lasted(event: &EventRecord, part: impl Fn(&Durations) -> Option<f64>) -> String {
    of_close(event, |close| text(part(&close.durations_ms)))
}

pub(super) fn time(at: Option<Timestamp>) -> String {
    at.map(|at| format!("{at:.6}")).unwrap_or_default()
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
