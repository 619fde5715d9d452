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

use crate::view::words;

words! {
    /// How records are written.
    pub enum Format ("output format") {
        /// Aligned columns, as `ss` prints.
        Table = "table",
        /// The same with more columns.
        Wide = "wide",
        /// One JSON document.
        Json = "json",
        /// One JSON object a line.
        Ndjson = "ndjson",
        /// Comma-separated values (RFC 4180) under a line of names.
        Csv = "csv",
    }
}

impl Format {
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
