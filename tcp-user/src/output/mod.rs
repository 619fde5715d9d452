//! The records as text: tables for people, JSON and CSV for programs.
//!
//! Records are pushed one at a time, and every format but the aligned table leaves at once, so that a long list needs no
//! memory and a live stream no end. Nothing here looks at a terminal except [`Palette::for_stdout`].

mod cell;
mod columns;
mod csv;
mod events;
mod list;
mod palette;
mod table;

pub use cell::{duration, escape};
pub use events::EventWriter;
pub use list::ListWriter;
pub use palette::Palette;
#[cfg(feature = "lab")]
pub(crate) use palette::state_style;

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

    /// Whether records are JSON in it.
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Ndjson)
    }
}

/// One JSON document that is written piece by piece: an array under a name, beside the schema.
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

    /// What stands before the next item.
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
