//! Lists of connections.

use std::borrow::Borrow;
use std::io::{self, Write};

use jiff::Timestamp;

use super::columns::{ConnectionTable, ListColumn};
use super::palette::Palette;
use super::{Format, JsonDocument, csv, json_line};
use crate::view::{Connection, schema};

/// Writes a list of connections in one of the formats.
pub struct ListWriter<W> {
    out: W,
    layout: ListLayout,
    palette: Palette,
    now: Timestamp,
    count: usize,
    /// Whether each connection is shown with the time of its close.
    closed: bool,
}

enum ListLayout {
    Table(ConnectionTable),
    Json(JsonDocument),
    Ndjson,
    Csv(csv::Lines),
}

impl<W: Write> ListWriter<W> {
    /// Starts a list; ages are as of `now`.
    pub fn new(mut out: W, format: Format, palette: Palette, now: Timestamp) -> io::Result<ListWriter<W>> {
        let layout = match format {
            Format::Table => ListLayout::Table(ConnectionTable::new(false, false, true)),
            Format::Wide => ListLayout::Table(ConnectionTable::new(true, true, true)),
            Format::Json => ListLayout::Json(JsonDocument::new(schema::CONNECTIONS, "connections")),
            Format::Ndjson => ListLayout::Ndjson,
            Format::Csv => {
                let mut lines = csv::Lines::default();
                lines.write(&mut out, csv::CONNECTION.iter().map(|(name, _)| *name))?;
                ListLayout::Csv(lines)
            }
        };
        Ok(ListWriter { out, layout, palette, now, count: 0, closed: false })
    }

    /// Starts a list of connections that closed. The moment that [`ListWriter::set_now`] sets before each of them is the
    /// time of its close. JSON is added by [`ListWriter::push_json`].
    pub fn of_closed(
        mut out: W,
        format: Format,
        palette: Palette,
        titles: bool,
    ) -> io::Result<ListWriter<W>> {
        let layout = match format {
            Format::Table => ListLayout::Table(ConnectionTable::of_closed(false, titles)),
            Format::Wide => ListLayout::Table(ConnectionTable::of_closed(true, titles)),
            Format::Json => ListLayout::Json(JsonDocument::new(schema::CLOSES, "closes")),
            Format::Ndjson => ListLayout::Ndjson,
            Format::Csv => {
                let mut lines = csv::Lines::default();
                let names = csv::CONNECTION.iter().map(|(name, _)| *name);
                lines.write(&mut out, std::iter::once(csv::CLOSED_AT).chain(names))?;
                ListLayout::Csv(lines)
            }
        };
        Ok(ListWriter { out, layout, palette, now: Timestamp::UNIX_EPOCH, count: 0, closed: true })
    }

    /// Chooses what a table shows, before its first connection: a column with the owners of sockets, and the
    /// titles. Other formats stay as they are.
    pub fn with_columns(mut self, format: Format, processes: bool, titles: bool) -> ListWriter<W> {
        if let ListLayout::Table(table) = &mut self.layout {
            *table = ConnectionTable::new(format == Format::Wide, processes, titles);
        }
        self
    }

    /// Chooses the columns of a table and their order, before its first connection. Other formats stay as they are.
    pub fn with_only(mut self, columns: &[ListColumn], titles: bool) -> ListWriter<W> {
        if let ListLayout::Table(table) = &mut self.layout {
            *table = ConnectionTable::of(columns, titles);
        }
        self
    }

    /// Sets the moment that the ages of later connections are as of.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Adds one connection.
    pub fn push(&mut self, connection: &Connection) -> io::Result<()> {
        self.count += 1;
        match &mut self.layout {
            ListLayout::Table(table) => {
                table.push(connection, self.now);
                if table.rows() < ROWS { Ok(()) } else { table.write(&mut self.out, self.palette) }
            }
            ListLayout::Json(document) => document.push(&mut self.out, connection),
            ListLayout::Ndjson => json_line(&mut self.out, connection),
            ListLayout::Csv(lines) => {
                let closed_at = self.closed.then(|| csv::time(Some(self.now)));
                let fields = csv::CONNECTION.iter().map(|(_, field)| field(connection));
                lines.write(&mut self.out, closed_at.into_iter().chain(fields))
            }
        }
    }

    /// Adds a connection that is JSON already, to a format that [is JSON](Format::is_json).
    pub fn push_json(&mut self, connection: &[u8]) -> io::Result<()> {
        self.count += 1;
        match &mut self.layout {
            ListLayout::Json(document) => document.next(&mut self.out)?,
            ListLayout::Ndjson => {}
            ListLayout::Table(_) | ListLayout::Csv(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        self.out.write_all(connection)?;
        if let ListLayout::Ndjson = self.layout { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// Ends the list, flushes it and returns the number of connections.
    pub fn finish(mut self) -> io::Result<usize> {
        match &mut self.layout {
            ListLayout::Table(table) => table.write(&mut self.out, self.palette)?,
            ListLayout::Json(document) => document.finish(&mut self.out)?,
            ListLayout::Ndjson | ListLayout::Csv(_) => {}
        }
        self.out.flush()?;
        Ok(self.count)
    }

    /// Writes a whole list at once.
    pub fn write_all(
        mut self,
        connections: impl IntoIterator<Item: Borrow<Connection>>,
    ) -> io::Result<usize> {
        for connection in connections {
            self.push(connection.borrow())?;
        }
        self.finish()
    }
}

/// Rows of a table that share their widths. Then they are written, so that a long list needs no more memory.
const ROWS: usize = 1 << 14;
