//! The columns of the two tables.

use jiff::Timestamp;

use super::cell::{self, Cell, duration, escape_word, none};
use crate::view::Connection;

/// One column of a table.
pub(super) struct Column {
    /// Explains the marks that its cells can have.
    pub(super) title: &'static str,
    /// Only in `wide`.
    pub(super) wide: bool,
    /// Set flush right.
    pub(super) number: bool,
    /// Its cell for a connection at a moment.
    pub(super) cell: fn(&Connection, Timestamp) -> Cell,
}

/// All columns, in their order.
pub(super) const COLUMNS: &[Column] = &[
    wide("Family", |c, _| c.family.to_string().into()),
    text("Client(*=local)", |c, _| cell::end(&c.client)),
    text("State(?=unconfirmed)", |c, _| cell::state(c.client.state, c.client.confirmed)),
    text("Server", |c, _| cell::end(&c.server)),
    text("State", |c, _| cell::state(c.server.state, c.server.confirmed)),
    text("Timer", |c, _| c.time_wait.as_ref().map_or_else(none, cell::timer)),
    text("Close", |c, _| c.close.as_ref().map_or_else(none, cell::close)),
    wide("Process", |c, _| c.process.as_ref().map_or_else(none, cell::process)),
    wide("Unit", |c, _| word(c.process.as_ref().and_then(|process| process.unit.as_deref()))),
    wide("Interface", |c, _| word(c.interface.as_deref())),
    number("Incarnation", |c, _| c.incarnation.to_string().into()),
    number("Age", |c, now| c.opened_at.map_or_else(none, |at| since(at, now))),
    number("Idle", |c, now| since(c.last_seen_at, now)),
    number("Handshake", |c, _| c.handshake_ms.map_or_else(none, |ms| duration(ms).into())),
    number("ClientSegments", |c, _| c.client.segments.to_string().into()),
    number("ClientBytes", |c, _| c.client.bytes.to_string().into()),
    number("ServerSegments", |c, _| c.server.segments.to_string().into()),
    number("ServerBytes", |c, _| c.server.bytes.to_string().into()),
    wide("Opener", |c, _| c.opener.to_string().into()),
    wide("Confidence", |c, _| c.confidence.to_string().into()),
];

const fn text(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, wide: false, number: false, cell }
}

const fn wide(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, wide: true, number: false, cell }
}

const fn number(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, wide: true, number: true, cell }
}

fn word(text: Option<&str>) -> Cell {
    text.map_or_else(none, |text| escape_word(text).into())
}

fn since(at: Timestamp, now: Timestamp) -> Cell {
    duration((now.duration_since(at).as_secs_f64() * 1000.0).max(0.0)).into()
}
