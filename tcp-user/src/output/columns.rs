//! The columns of a list of connections.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use jiff::Timestamp;

use super::cell::{self, Cell, duration, escape_word, none};
use super::palette::Palette;
use super::table::TextTable;
use crate::view::{Connection, Role, Tunnel};

/// A column of a table of connections, by its name.
#[derive(Clone, Copy)]
pub struct ListColumn(&'static Column);

/// A name that is of no [`ListColumn`].
#[derive(Debug, thiserror::Error)]
#[error("unknown column {name:?}; the columns are {}", COLUMNS.iter().map(Column::name).collect::<Vec<_>>().join(", "))]
pub struct UnknownColumn {
    name: String,
}

impl FromStr for ListColumn {
    type Err = UnknownColumn;

    fn from_str(name: &str) -> Result<ListColumn, UnknownColumn> {
        let found = COLUMNS.iter().find(|column| column.name() == name);
        found.map(ListColumn).ok_or_else(|| UnknownColumn { name: name.to_owned() })
    }
}

impl fmt::Debug for ListColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name())
    }
}

impl ListColumn {
    /// Whether the column shows who owns the local socket.
    pub fn asks_for_process(self) -> bool {
        OF_PROCESS.contains(&self.0.title)
    }
}

/// One column of a list of connections.
struct Column {
    /// Title; it explains the marks in the column's cells.
    title: &'static str,
    /// Tables that have the column.
    shown: Shown,
    /// Flush right.
    number: bool,
    /// The cell of a connection at a moment.
    cell: fn(&Connection, Timestamp) -> Cell,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    WithProcesses,
    Wide,
    /// Of connections that closed, of which ages are as of the close.
    Closed,
}

impl Column {
    /// The title in lower case, without the explanation of marks: `client_state` for `ClientState(?=unconfirmed)`.
    fn name(&self) -> String {
        let title = self.title.split('(').next().unwrap_or_default();
        let mut name = String::new();
        for letter in title.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// A list of connections as a table.
pub(super) struct ConnectionTable {
    columns: Vec<&'static Column>,
    table: TextTable,
}

impl ConnectionTable {
    /// Starts a table; `processes` adds the owners of sockets, `wide` every column. `titles` says whether the
    /// first row has the titles.
    pub(super) fn new(wide: bool, processes: bool, titles: bool) -> ConnectionTable {
        ConnectionTable::with(wide, processes, titles, false)
    }

    /// Starts a table of connections that closed, with the time of the close.
    pub(super) fn of_closed(wide: bool, titles: bool) -> ConnectionTable {
        ConnectionTable::with(wide, wide, titles, true)
    }

    fn with(wide: bool, processes: bool, titles: bool, closed: bool) -> ConnectionTable {
        let is_shown = |column: &&Column| match column.shown {
            Shown::Always => true,
            Shown::WithProcesses => wide || processes,
            Shown::Wide => wide,
            Shown::Closed => closed,
        };
        ConnectionTable::of_columns(COLUMNS.iter().filter(is_shown).collect(), titles)
    }

    /// Starts a table with these columns in this order.
    pub(super) fn of(columns: &[ListColumn], titles: bool) -> ConnectionTable {
        ConnectionTable::of_columns(columns.iter().map(|column| column.0).collect(), titles)
    }

    fn of_columns(columns: Vec<&'static Column>, titles: bool) -> ConnectionTable {
        let shown = columns.iter().map(|column| (column.title, column.number));
        let table = if titles { TextTable::with_columns(shown) } else { TextTable::without_titles(shown) };
        ConnectionTable { columns, table }
    }

    /// Adds a connection; ages are as of `now`.
    pub(super) fn push(&mut self, connection: &Connection, now: Timestamp) {
        self.table.row(self.columns.iter().map(|column| (column.cell)(connection, now)));
    }

    /// Number of rows not written yet, the titles among them.
    pub(super) fn rows(&self) -> usize {
        self.table.rows()
    }

    /// Writes the pending rows.
    pub(super) fn write(&mut self, out: &mut impl Write, palette: Palette) -> io::Result<()> {
        self.table.write(out, palette)
    }
}

/// All columns, in their order.
const COLUMNS: &[Column] = &[
    Column {
        title: "ClosedAt",
        shown: Shown::Closed,
        number: false,
        cell: |_, at| format!("{at:.3}").into(),
    },
    wide("Family", |c, _| c.family.to_string().into()),
    text("Client(*=local)", |c, _| cell::end(c, Role::Client)),
    text("ClientState(?=unconfirmed)", |c, _| cell::state(c.client.state, c.client.confirmed)),
    text("Server", |c, _| cell::end(c, Role::Server)),
    text("ServerState", |c, _| cell::state(c.server.state, c.server.confirmed)),
    text("Timer", |c, _| c.time_wait.as_ref().map_or_else(none, cell::timer)),
    text("Close", |c, _| c.close.as_ref().map_or_else(none, cell::close)),
    process("Process", |c, _| c.process.as_ref().map_or_else(none, cell::process)),
    wide("Unit", |c, _| word(c.process.as_ref().and_then(|process| process.unit.as_deref()))),
    wide("Interface", |c, _| word(c.interface.as_deref())),
    wide("Vlan", |c, _| cell::vlans(&c.client, &c.server)),
    wide("Tunnel", |c, _| word(c.tunnel.map(Tunnel::name))),
    number("Incarnation", |c, _| c.incarnation.to_string().into()),
    number("Age", |c, now| c.opened_at.map_or_else(none, |at| since(at, now))),
    number("Idle", |c, now| since(c.last_seen_at, now)),
    number("Handshake", |c, _| c.handshake_ms.map_or_else(none, |ms| duration(ms).into())),
    number("ClientSegments", |c, _| c.client.segments.to_string().into()),
    number("ClientBytes", |c, _| c.client.bytes.to_string().into()),
    number("ServerSegments", |c, _| c.server.segments.to_string().into()),
    number("ServerBytes", |c, _| c.server.bytes.to_string().into()),
    wide("Reset", |c, _| cell::reset(c)),
    wide("Opener", |c, _| c.opener.to_string().into()),
    wide("Confidence", |c, _| c.confidence.to_string().into()),
    wide("Id", |c, _| c.id.to_string().into()),
];

/// Titles of the columns about the owner of the local socket.
const OF_PROCESS: [&str; 2] = ["Process", "Unit"];

const fn text(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, shown: Shown::Always, number: false, cell }
}

const fn process(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, shown: Shown::WithProcesses, number: false, cell }
}

const fn wide(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, shown: Shown::Wide, number: false, cell }
}

const fn number(title: &'static str, cell: fn(&Connection, Timestamp) -> Cell) -> Column {
    Column { title, shown: Shown::Wide, number: true, cell }
}

fn word(text: Option<&str>) -> Cell {
    text.map_or_else(none, |text| escape_word(text).into())
}

fn since(at: Timestamp, now: Timestamp) -> Cell {
    duration((now.duration_since(at).as_secs_f64() * 1000.0).max(0.0)).into()
}
