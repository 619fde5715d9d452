//! Records as text: tables for people, JSON and CSV for programs.
//!
//! Records are pushed one at a time. Every format except the aligned table is written at once, so a long list
//! needs no memory and a live stream no end. Only [`Palette::for_stdout`] asks about the terminal.

mod arrange;
mod cell;
mod columns;
mod csv;
mod events;
mod ladder;
mod list;
mod palette;
mod ports;
mod rows;
mod table;

pub use arrange::{Fact, Groups, SortKey, UnknownFact, sort};
pub use cell::{Cell, duration, escape};
pub use columns::{ListColumn, UnknownColumn};
pub use events::EventWriter;
pub use ladder::{write_ladder, write_mermaid};
pub use list::ListWriter;
pub use palette::Palette;
#[cfg(feature = "lab")]
pub(crate) use palette::state_style;
pub use ports::{PortSortKey, UnknownPortFact, sort_ports, write_ports};
pub use rows::RowWriter;
pub use table::TextTable;

use std::io::{self, Write};

use serde::Serialize;

/// Output formats of lists and streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, as ss prints.
    Table,
    /// Aligned columns, with more of them.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values (RFC 4180) under a line of names.
    Csv,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 5] = [Format::Table, Format::Wide, Format::Json, Format::Ndjson, Format::Csv];

    /// Whether its records are JSON.
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Ndjson)
    }
}

/// A JSON document written piece by piece: an array under a name, beside the schema.
struct JsonDocument {
    schema: &'static str,
    name: &'static str,
    begun: bool,
}

impl JsonDocument {
    fn new(schema: &'static str, name: &'static str) -> JsonDocument {
        JsonDocument { schema, name, begun: false }
    }

    fn push(&mut self, out: &mut impl Write, item: &impl Serialize) -> io::Result<()> {
        self.next(out)?;
        Ok(serde_json::to_writer(out, item)?)
    }

    /// Writes the text before the next item.
    fn next(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.begun {
            out.write_all(b",\n")
        } else {
            self.begin(out)?;
            out.write_all(b"\n")
        }
    }

    fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.begun {
            out.write_all(b"\n")?;
        } else {
            self.begin(out)?;
        }
        out.write_all(b"]}\n")
    }

    fn begin(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.begun = true;
        write!(out, r#"{{"schema":"{}","{}":["#, self.schema, self.name)
    }
}

fn json_line(out: &mut impl Write, item: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, item)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests;
