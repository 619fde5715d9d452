//! Records as comma-separated values: the machine's words, an empty field where nothing is known.

use std::io::{self, Write};

use jiff::Timestamp;

use super::cell::{escape, vlan_ids};
use crate::view::{
    Close, CloseInfo, CloseKind, Connection, Durations, EventRecord, Role, State, TimeWait, Transition,
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

/// Names and values of a connection's line.
pub(super) const CONNECTION: &[Field<Connection>] = &[
    ("family", |c| c.family.to_string()),
    ("interface", |c| c.interface.as_deref().map(escape).unwrap_or_default()),
    ("scope", |c| scope(&c.scope)),
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
];

/// Names and values of an event's line; a transition and a close each leave the other's fields empty.
pub(super) const EVENT: &[Field<EventRecord>] = &[
    ("event", |e| either(e, |_| "transition", |_| "close").to_owned()),
    ("at", |e| time(either(e, |t| Some(t.at), |c| c.closed_at))),
    ("scope", |e| either(e, |t| scope(&t.scope), |c| scope(&c.connection.scope))),
    ("client_address", |e| either(e, |t| t.client.address, |c| c.connection.client.address).to_string()),
    ("client_port", |e| either(e, |t| t.client.port, |c| c.connection.client.port).to_string()),
    ("server_address", |e| either(e, |t| t.server.address, |c| c.connection.server.address).to_string()),
    ("server_port", |e| either(e, |t| t.server.port, |c| c.connection.server.port).to_string()),
    ("incarnation", |e| either(e, |t| t.incarnation, |c| c.connection.incarnation).to_string()),
    ("id", |e| either(e, |t| t.id, |c| c.connection.id).to_string()),
    ("side", |e| text(either(e, |t| Some(t.side), |_| None::<Role>))),
    ("from", |e| either(e, |t| state(t.from), |_| String::new())),
    ("to", |e| either(e, |t| state(t.to), |_| String::new())),
    ("cause", |e| either(e, |t| escape(&t.cause), |_| String::new())),
    ("close_kind", |e| of_close(e, |c| of(&c.connection, |close| close.kind.map(CloseKind::name)))),
    ("closer", |e| of_close(e, |c| of(&c.connection, |close| close.closer))),
    ("aborter", |e| of_close(e, |c| of(&c.connection, |close| close.aborter))),
    ("fins", |e| of_close(e, |c| of(&c.connection, |close| Some(close.fins)))),
    ("complete", |e| of_close(e, |c| of(&c.connection, |close| Some(close.complete)))),
    ("handshake_ms", |e| lasted(e, |d| d.handshake)),
    ("established_ms", |e| lasted(e, |d| d.established)),
    ("closing_ms", |e| lasted(e, |d| d.closing)),
    ("time_wait_ms", |e| lasted(e, |d| d.time_wait)),
];

fn scope(interface: &Option<String>) -> String {
    interface.as_deref().map(escape).unwrap_or_default()
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

fn either<T>(event: &EventRecord, transition: impl Fn(&Transition) -> T, close: impl Fn(&Close) -> T) -> T {
    match event {
        EventRecord::Transition(record) => transition(record),
        EventRecord::Close(record) => close(record),
    }
}

fn of_close(event: &EventRecord, fact: impl Fn(&Close) -> String) -> String {
    either(event, |_| String::new(), fact)
}

fn lasted(event: &EventRecord, part: impl Fn(&Durations) -> Option<f64>) -> String {
    of_close(event, |close| text(part(&close.durations_ms)))
}

fn time(at: Option<Timestamp>) -> String {
    at.map(|at| format!("{at:.6}")).unwrap_or_default()
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
