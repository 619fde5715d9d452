//! The table of closed connections: its columns, and the way from a record to a row and back.
//!
//! The columns have the names of `finwait ls -o csv`.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, Value, ValueRef};
use rusqlite::{Connection as Database, Row, Statement, params_from_iter};

use crate::view::{
    Address, Close, CloseInfo, CloseKind, Connection, ConnectionEnd, Durations, IcmpMessage, Nat, NatTuple,
    Process, ResetInfo, Role, State, TimeWait,
};

/// Name of the table.
pub const TABLE: &str = "connections";

/// `user_version` of a file: it changes when a column is renamed or changes its meaning. Columns may be added.
pub const VERSION: i64 = 1;

/// What a database contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing yet: the agent has made the file and not yet the table.
    Nothing,
    /// The table.
    Table,
    /// What another version of finwait has written.
    OtherVersion,
}

impl Contents {
    /// The contents of the database that is attached under this name; `main` is the one that was opened.
    pub(super) fn of(database: &Database, name: &str) -> rusqlite::Result<Contents> {
        let version: i64 =
            database.query_row(&format!("PRAGMA \"{name}\".user_version"), [], |row| row.get(0))?;
        Ok(match version {
            0 => Contents::Nothing,
            VERSION => Contents::Table,
            _ => Contents::OtherVersion,
        })
    }
}

/// A column of the table.
pub struct StoredColumn {
    /// Its name.
    pub name: &'static str,
    /// Its SQL type, with `NOT NULL` if it always has a value.
    pub sql_type: &'static str,
    /// What it holds, in one sentence.
    pub meaning: &'static str,
    value: fn(&Close) -> Value,
}

const fn column(
    name: &'static str,
    sql_type: &'static str,
    meaning: &'static str,
    value: fn(&Close) -> Value,
) -> StoredColumn {
    StoredColumn { name, sql_type, meaning, value }
}

/// The columns, in their order.
pub const COLUMNS: &[StoredColumn] = &[
    column("closed_at", "TEXT NOT NULL", "Time at which the close was complete.", |c| time(c.closed_at)),
    column(
        "revision",
        "INTEGER NOT NULL",
        "1, or 2 if an earlier close of this connection was taken back.",
        |c| i64::from(c.revision).into(),
    ),
    column("id", "TEXT NOT NULL", "Id of the connection: 16 hexadecimal digits.", |c| {
        word(Some(c.connection.id))
    }),
    column("family", "TEXT NOT NULL", "`ipv4` or `ipv6`.", |c| word(Some(c.connection.family))),
    column("interface", "TEXT", "Interface on which the connection was first seen.", |c| {
        c.connection.interface.clone().into()
    }),
    column("scope", "TEXT", "Interface whose link the addresses belong to, if they are link-local.", |c| {
        c.connection.scope.clone().into()
    }),
    column(
        "incarnation",
        "INTEGER NOT NULL",
        "Number of this use of the same addresses and ports, from 1.",
        |c| i64::from(c.connection.incarnation).into(),
    ),
    column("client_address", "TEXT NOT NULL", "IP address of the end that sent the first SYN.", |c| {
        word(Some(c.connection.client.address))
    }),
    column("client_port", "INTEGER NOT NULL", "Its TCP port.", |c| {
        i64::from(c.connection.client.port).into()
    }),
    column("client_state", "TEXT", "Its state when the close was complete: `closed` or `time_wait`.", |c| {
        state(c.connection.client.state)
    }),
    column("client_confirmed", "INTEGER NOT NULL", "1 if its own segments confirm the state.", |c| {
        c.connection.client.confirmed.into()
    }),
    column("client_local", "INTEGER NOT NULL", "1 if it is in the agent's network namespace.", |c| {
        c.connection.client.local.into()
    }),
    column("client_on_host", "INTEGER NOT NULL", "1 if it is on this host, in a container too.", |c| {
        c.connection.client.on_host.into()
    }),
    column("client_vlan", "TEXT", "VLAN ids of its packets, outermost first: `10.20`.", |c| {
        vlan(&c.connection.client)
    }),
    column("client_segments", "INTEGER NOT NULL", "Number of its segments.", |c| {
        number(c.connection.client.segments)
    }),
    column("client_bytes", "INTEGER NOT NULL", "Its payload bytes.", |c| number(c.connection.client.bytes)),
    column("server_address", "TEXT NOT NULL", "IP address of the other end.", |c| {
        word(Some(c.connection.server.address))
    }),
    column("server_port", "INTEGER NOT NULL", "Its TCP port.", |c| {
        i64::from(c.connection.server.port).into()
    }),
    column("server_state", "TEXT", "Its state when the close was complete.", |c| {
        state(c.connection.server.state)
    }),
    column("server_confirmed", "INTEGER NOT NULL", "1 if its own segments confirm the state.", |c| {
        c.connection.server.confirmed.into()
    }),
    column("server_local", "INTEGER NOT NULL", "1 if it is in the agent's network namespace.", |c| {
        c.connection.server.local.into()
    }),
    column("server_on_host", "INTEGER NOT NULL", "1 if it is on this host, in a container too.", |c| {
        c.connection.server.on_host.into()
    }),
    column("server_vlan", "TEXT", "VLAN ids of its packets, outermost first.", |c| {
        vlan(&c.connection.server)
    }),
    column("server_segments", "INTEGER NOT NULL", "Number of its segments.", |c| {
        number(c.connection.server.segments)
    }),
    column("server_bytes", "INTEGER NOT NULL", "Its payload bytes.", |c| number(c.connection.server.bytes)),
    column("opener", "TEXT NOT NULL", "The end that sent the first SYN, or `unknown`.", |c| {
        word(Some(c.connection.opener))
    }),
    column("confidence", "TEXT NOT NULL", "How complete the observation is.", |c| {
        word(Some(c.connection.confidence))
    }),
    column("opened_at", "TEXT", "Time of the first SYN.", |c| time(c.connection.opened_at)),
    column("last_seen_at", "TEXT NOT NULL", "Time of the last segment.", |c| {
        time(Some(c.connection.last_seen_at))
    }),
    column("handshake_ms", "REAL", "Time from the first SYN until both ends were ESTABLISHED.", |c| {
        c.connection.handshake_ms.into()
    }),
    column("established_ms", "REAL", "Time from there until the first FIN or RST.", |c| {
        c.durations_ms.established.into()
    }),
    column("closing_ms", "REAL", "Time from the first FIN or RST until the close was complete.", |c| {
        c.durations_ms.closing.into()
    }),
    column("close_kind", "TEXT", "How it closed; NULL if it was closing when the agent started.", |c| {
        word(close(c).and_then(|close| close.kind).map(CloseKind::name))
    }),
    column("closer", "TEXT", "The end whose FIN came first: `client`, `server` or `both`.", |c| {
        word(close(c).and_then(|close| close.closer))
    }),
    column("aborter", "TEXT", "The end whose RST ended it.", |c| {
        word(close(c).and_then(|close| close.aborter))
    }),
    column("icmp", "TEXT", "Type and code of the ICMP error that ended the attempt: `3/1`.", |c| {
        word(close(c).and_then(|close| close.icmp))
    }),
    column("reset", "TEXT", "Why it was reset.", |c| word(reset(c).map(|reset| reset.class))),
    column("reset_sender", "TEXT", "The end whose RST that was.", |c| {
        word(reset(c).and_then(|reset| reset.sender))
    }),
    column("reset_kernel_reason", "TEXT", "The kernel's own reason for a RST of this host.", |c| {
        word(reset(c).and_then(|reset| reset.kernel_reason.as_deref()))
    }),
    column("ignored_rst", "TEXT", "Why the latest RST that was not accepted was not.", |c| {
        word(c.connection.ignored_rst.as_deref())
    }),
    column("fins", "TEXT", "The ends whose FIN was seen.", |c| word(close(c).map(|close| close.fins))),
    column("complete", "INTEGER", "1 if both FINs were sent and acknowledged.", |c| {
        close(c).map(|close| close.complete).into()
    }),
    column("close_started_at", "TEXT", "Time of the first FIN or RST.", |c| {
        time(close(c).and_then(|close| close.started_at))
    }),
    column("time_wait_holder", "TEXT", "The end in TIME-WAIT when the close was complete.", |c| {
        word(waiting(c).map(|time_wait| time_wait.holder))
    }),
    column("time_wait_expires_in_ms", "INTEGER", "Time until TIME-WAIT ended, from then on.", |c| {
        waiting(c).map(|time_wait| number(time_wait.expires_in_ms)).into()
    }),
    column("time_wait_restarts", "INTEGER", "Restarts of TIME-WAIT until then.", |c| {
        waiting(c).map(|time_wait| i64::from(time_wait.restarts)).into()
    }),
    column("pid", "INTEGER", "Process that owned the local socket.", |c| {
        c.connection.process.as_ref().map(|process| i64::from(process.pid)).into()
    }),
    column("comm", "TEXT", "Its command name.", |c| {
        c.connection.process.as_ref().map(|process| process.comm.clone()).into()
    }),
    column("unit", "TEXT", "Its systemd unit.", |c| {
        c.connection.process.as_ref().and_then(|process| process.unit.clone()).into()
    }),
    column("nat_client_address", "TEXT", "With NAT: the client as the server knows it.", |c| {
        word(reply(c).map(|reply| reply.client.address))
    }),
    column("nat_client_port", "INTEGER", "Its port.", |c| {
        reply(c).map(|reply| i64::from(reply.client.port)).into()
    }),
    column("nat_server_address", "TEXT", "With NAT: the server by its own address.", |c| {
        word(reply(c).map(|reply| reply.server.address))
    }),
    column("nat_server_port", "INTEGER", "Its port.", |c| {
        reply(c).map(|reply| i64::from(reply.server.port)).into()
    }),
];

/// Whether a connection was only tried: it closed in one of these ways and was never established.
pub(super) fn is_attempt(close: &Close) -> bool {
    let kind = self::close(close).and_then(|close| close.kind);
    close.durations_ms.established.is_none() && kind.is_some_and(|kind| ATTEMPTS.contains(&kind))
}

/// The statement that counts the attempts of a file.
pub(super) fn count_attempts() -> String {
    let kinds: Vec<_> = ATTEMPTS.iter().map(|kind| format!("'{}'", kind.name())).collect();
    format!(
        "SELECT count(*) FROM {TABLE} WHERE established_ms IS NULL AND close_kind IN ({})",
        kinds.join(", ")
    )
}

const ATTEMPTS: [CloseKind; 5] = [
    CloseKind::Refused,
    CloseKind::Unreachable,
    CloseKind::SynAbort,
    CloseKind::SynTimeout,
    CloseKind::Superseded,
];

/// The statements that make an empty file ready for rows.
pub(super) fn create_table() -> String {
    let columns: Vec<_> =
        COLUMNS.iter().map(|column| format!("  {} {}", column.name, column.sql_type)).collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (\n{}\n) STRICT;\n\
         CREATE INDEX IF NOT EXISTS closed_at ON {TABLE} (closed_at);\n\
         PRAGMA user_version = {VERSION};",
        columns.join(",\n")
    )
}

/// The statement that adds a row.
pub(super) fn insert() -> String {
    let places = vec!["?"; COLUMNS.len()].join(", ");
    format!("INSERT INTO {TABLE} ({}) VALUES ({places})", names())
}

/// Names of all columns, separated by commas.
pub(super) fn names() -> String {
    COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// Adds the row of a record, by the statement of [`insert`].
pub(super) fn write_row(statement: &mut Statement<'_>, close: &Close) -> rusqlite::Result<()> {
    statement.execute(params_from_iter(COLUMNS.iter().map(|column| (column.value)(close)))).map(drop)
}

/// The record of a row that has the columns of [`names`].
pub(super) fn read_row(row: &Row<'_>) -> rusqlite::Result<Close> {
    let connection = Connection {
        family: parsed(row, "family")?,
        interface: row.get("interface")?,
        scope: row.get("scope")?,
        tunnel: None,
        incarnation: row.get("incarnation")?,
        id: parsed(row, "id")?,
        client: end(row, Role::Client)?,
        server: end(row, Role::Server)?,
        opener: parsed(row, "opener")?,
        confidence: parsed(row, "confidence")?,
        opened_at: moment(row, "opened_at")?,
        last_seen_at: moment(row, "last_seen_at")?.unwrap_or_default(),
        handshake_ms: row.get("handshake_ms")?,
        close: close_info(row)?,
        reset: reset_info(row)?,
        ignored_rst: row.get::<_, Option<String>>("ignored_rst")?.map(Into::into),
        time_wait: time_wait(row)?,
        nat: nat(row)?,
        process: process(row)?,
    };
    let durations_ms = Durations {
        handshake: connection.handshake_ms,
        established: row.get("established_ms")?,
        closing: row.get("closing_ms")?,
        time_wait: None,
    };
    Ok(Close {
        connection,
        revision: row.get("revision")?,
        closed_at: moment(row, "closed_at")?,
        durations_ms,
    })
}

fn end(row: &Row<'_>, side: Role) -> rusqlite::Result<ConnectionEnd> {
    let column = |name: &str| format!("{side}_{name}");
    let vlan: Option<String> = row.get(&*column("vlan"))?;
    let state = optional::<Word>(row, &column("state"))?;
    Ok(ConnectionEnd {
        address: parsed(row, &column("address"))?,
        port: row.get(&*column("port"))?,
        state: state
            .map_or(Some(State::Unknown), |word| State::ALL.into_iter().find(|state| state.name() == word.0))
            .ok_or(FromSqlError::InvalidType)?,
        confirmed: row.get(&*column("confirmed"))?,
        local: row.get(&*column("local"))?,
        on_host: row.get(&*column("on_host"))?,
        vlan: vlan.map(|ids| ids.split('.').filter_map(|id| id.parse().ok()).collect()),
        segments: unsigned(row, &column("segments"))?,
        bytes: unsigned(row, &column("bytes"))?,
    })
}

fn close_info(row: &Row<'_>) -> rusqlite::Result<Option<CloseInfo>> {
    let Some(fins) = optional(row, "fins")? else { return Ok(None) };
    let kind = optional::<Word>(row, "close_kind")?;
    let icmp = optional::<Word>(row, "icmp")?.and_then(|Word(text)| {
        let (kind, code) = text.split_once('/')?;
        Some(IcmpMessage { kind: kind.parse().ok()?, code: code.parse().ok()? })
    });
    Ok(Some(CloseInfo {
        kind: kind.and_then(|word| CloseKind::ALL.into_iter().find(|kind| kind.name() == word.0)),
        closer: optional(row, "closer")?,
        aborter: optional(row, "aborter")?,
        icmp,
        fins,
        complete: row.get("complete")?,
        started_at: moment(row, "close_started_at")?,
    }))
}

fn reset_info(row: &Row<'_>) -> rusqlite::Result<Option<ResetInfo>> {
    let Some(class) = optional(row, "reset")? else { return Ok(None) };
    let kernel_reason = row.get::<_, Option<String>>("reset_kernel_reason")?.map(Into::into);
    Ok(Some(ResetInfo { class, sender: optional(row, "reset_sender")?, kernel_reason }))
}

fn time_wait(row: &Row<'_>) -> rusqlite::Result<Option<TimeWait>> {
    let Some(holder) = optional(row, "time_wait_holder")? else { return Ok(None) };
    Ok(Some(TimeWait {
        holder,
        expires_in_ms: unsigned(row, "time_wait_expires_in_ms")?,
        restarts: row.get("time_wait_restarts")?,
    }))
}

fn nat(row: &Row<'_>) -> rusqlite::Result<Option<Nat>> {
    let address = |side: Role| -> rusqlite::Result<Option<Address>> {
        let address: Option<IpAddr> = optional(row, &format!("nat_{side}_address"))?;
        let port: Option<u16> = row.get(&*format!("nat_{side}_port"))?;
        Ok(address.zip(port).map(|(address, port)| Address { address, port }))
    };
    let ends = address(Role::Client)?.zip(address(Role::Server)?);
    Ok(ends.map(|(client, server)| Nat { reply: NatTuple { client, server } }))
}

fn process(row: &Row<'_>) -> rusqlite::Result<Option<Process>> {
    let (pid, comm) = (row.get::<_, Option<u32>>("pid")?, row.get::<_, Option<String>>("comm")?);
    let unit = row.get("unit")?;
    Ok(pid.zip(comm).map(|(pid, comm)| Process { pid, comm, unit }))
}

/// A word as it is.
struct Word(String);

impl FromStr for Word {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Word, Self::Err> {
        Ok(Word(text.to_owned()))
    }
}

/// A value that is stored as the text that it prints and parses.
struct Parsed<T>(T);

impl<T: FromStr<Err: fmt::Display>> FromSql for Parsed<T> {
    fn column_result(value: ValueRef<'_>) -> Result<Parsed<T>, FromSqlError> {
        let text = value.as_str()?;
        text.parse()
            .map(Parsed)
            .map_err(|error: T::Err| FromSqlError::other(Unparsed(format!("`{text}`: {error}"))))
    }
}

/// A text that a column cannot have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unparsed(String);

fn parsed<T: FromStr<Err: fmt::Display>>(row: &Row<'_>, name: &str) -> rusqlite::Result<T> {
    row.get::<_, Parsed<T>>(name).map(|Parsed(value)| value)
}

fn optional<T: FromStr<Err: fmt::Display>>(row: &Row<'_>, name: &str) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, Option<Parsed<T>>>(name)?.map(|Parsed(value)| value))
}

fn unsigned(row: &Row<'_>, name: &str) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(name)?.unsigned_abs())
}

/// A time as SQLite's date functions read it.
fn moment(row: &Row<'_>, name: &str) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get(name)?;
    let parse = |text: String| {
        text.replace(' ', "T")
            .parse()
            .map_err(|error| FromSqlError::other(Unparsed(format!("`{text}`: {error}"))))
    };
    Ok(text.map(|text| parse(text + "Z")).transpose()?)
}

/// The text of a time: in UTC, with microseconds, as SQLite's own `datetime` but for these, so that it can be compared
/// with what that returns.
pub(super) fn time_text(at: Timestamp) -> String {
    let mut text = String::with_capacity(32);
    let _ = write!(text, "{at:.6}");
    text.pop();
    text.replace('T', " ")
}

fn time(at: Option<Timestamp>) -> Value {
    at.map(time_text).into()
}

fn word(value: Option<impl ToString>) -> Value {
    value.map(|value| value.to_string()).into()
}

fn number(count: u64) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

fn state(state: State) -> Value {
    word((state != State::Unknown).then(|| state.name()))
}

fn vlan(end: &ConnectionEnd) -> Value {
    word(end.vlan.as_ref().map(|ids| ids.iter().map(u16::to_string).collect::<Vec<_>>().join(".")))
}

fn close(close: &Close) -> Option<&CloseInfo> {
    close.connection.close.as_ref()
}

fn reset(close: &Close) -> Option<&ResetInfo> {
    close.connection.reset.as_ref()
}

fn waiting(close: &Close) -> Option<&TimeWait> {
    close.connection.time_wait.as_ref()
}

fn reply(close: &Close) -> Option<NatTuple> {
    close.connection.nat.map(|nat| nat.reply)
}
