//! Lists of connections.

use std::borrow::Borrow;
use std::io::{self, Write};

use jiff::Timestamp;

use super::palette::Palette;
use super::table::Table;
use super::{Format, JsonDocument, csv, json_line};
use crate::view::{Connection, schema};

/// Writes a list of connections in one of the formats.
pub struct ListWriter<W> {
    out: W,
    layout: Layout,
    palette: Palette,
    now: Timestamp,
    count: usize,
}

enum Layout {
    Table(Table),
    Json(JsonDocument),
    Ndjson,
    Csv(csv::Lines),
}

impl<W: Write> ListWriter<W> {
    /// Begins a list; ages are as of `now`.
    pub fn new(mut out: W, format: Format, palette: Palette, now: Timestamp) -> io::Result<ListWriter<W>> {
        let layout = match format {
            Format::Table => Layout::Table(Table::new(false)),
            Format::Wide => Layout::Table(Table::new(true)),
            Format::Json => Layout::Json(JsonDocument::new(schema::CONNECTIONS, "connections")),
            Format::Ndjson => Layout::Ndjson,
            Format::Csv => {
                let mut lines = csv::Lines::default();
                lines.write(&mut out, csv::CONNECTION.iter().map(|(name, _)| *name))?;
                Layout::Csv(lines)
            }
        };
        Ok(ListWriter { out, layout, palette, now, count: 0 })
    }

    /// Ages of those that follow are as of another moment.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Adds one connection.
    pub fn push(&mut self, connection: &Connection) -> io::Result<()> {
        self.count += 1;
        match &mut self.layout {
            Layout::Table(table) => {
                table.push(connection, self.now);
                if table.rows() < ROWS { Ok(()) } else { table.write(&mut self.out, self.palette) }
            }
            Layout::Json(document) => document.push(&mut self.out, connection),
            Layout::Ndjson => json_line(&mut self.out, connection),
            Layout::Csv(lines) => {
                lines.write(&mut self.out, csv::CONNECTION.iter().map(|(_, field)| field(connection)))
            }
        }
    }

    /// Adds one that is JSON already, in a format that [is JSON](Format::is_json).
    pub fn push_json(&mut self, connection: &[u8]) -> io::Result<()> {
        self.count += 1;
        match &mut self.layout {
            Layout::Json(document) => document.next(&mut self.out)?,
            Layout::Ndjson => {}
            Layout::Table(_) | Layout::Csv(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        self.out.write_all(connection)?;
        if let Layout::Ndjson = self.layout { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// Ends the list, flushes, and says how many connections it had.
    pub fn finish(mut self) -> io::Result<usize> {
        match &mut self.layout {
            Layout::Table(table) => table.write(&mut self.out, self.palette)?,
            Layout::Json(document) => document.finish(&mut self.out)?,
            Layout::Ndjson | Layout::Csv(_) => {}
        }
        self.out.flush()?;
        Ok(self.count)
    }

    /// The whole list at once.
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

/// So many rows of a table share their widths; then they leave, so that a list of any length needs no more memory.
const ROWS: usize = 1 << 14;
