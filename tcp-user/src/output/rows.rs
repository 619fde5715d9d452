//! Rows with names that the user chose: the result of a statement of SQL.

use std::io::{self, Write};

use serde_json::Value;

use super::cell::{Cell, escape, none};
use super::palette::Palette;
use super::table::TextTable;
use super::{Format, JsonDocument, csv, json_line};
use crate::view::schema;

/// Writes rows in one of the formats.
pub struct RowWriter<W> {
    out: W,
    names: Vec<String>,
    layout: RowLayout,
}

enum RowLayout {
    Table(TextTable, Palette),
    Json(JsonDocument),
    Ndjson,
    Csv(csv::Lines),
}

impl<W: Write> RowWriter<W> {
    /// Starts rows whose values have these names.
    pub fn new(
        mut out: W,
        names: Vec<String>,
        format: Format,
        palette: Palette,
        titles: bool,
    ) -> io::Result<RowWriter<W>> {
        let layout = match format {
            Format::Table | Format::Wide => {
                let columns = names.iter().map(|name| (name.as_str(), false));
                let table = if titles {
                    TextTable::with_columns(columns)
                } else {
                    TextTable::without_titles(columns)
                };
                RowLayout::Table(table, palette)
            }
            Format::Json => RowLayout::Json(JsonDocument::new(schema::ROWS, "rows")),
            Format::Ndjson => RowLayout::Ndjson,
            Format::Csv => {
                let mut lines = csv::Lines::default();
                lines.write(&mut out, names.iter())?;
                RowLayout::Csv(lines)
            }
        };
        Ok(RowWriter { out, names, layout })
    }

    /// Adds a row with a value for each name.
    pub fn push(&mut self, values: Vec<Value>) -> io::Result<()> {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => escape(text),
            value => value.to_string(),
        };
        let object =
            |values| -> serde_json::Map<String, Value> { self.names.iter().cloned().zip(values).collect() };
        match &mut self.layout {
            RowLayout::Table(table, _) => {
                let cell = |value: &Value| if value.is_null() { none() } else { Cell::from(text(value)) };
                table.row(values.iter().map(cell));
                Ok(())
            }
            RowLayout::Json(document) => document.push(&mut self.out, &object(values)),
            RowLayout::Ndjson => json_line(&mut self.out, &object(values)),
            RowLayout::Csv(lines) => lines.write(&mut self.out, values.iter().map(text)),
        }
    }

    /// Writes what is left.
    pub fn finish(mut self) -> io::Result<()> {
        match &mut self.layout {
            RowLayout::Table(table, palette) => table.write(&mut self.out, *palette)?,
            RowLayout::Json(document) => document.finish(&mut self.out)?,
            RowLayout::Ndjson | RowLayout::Csv(_) => {}
        }
        self.out.flush()
    }
}
