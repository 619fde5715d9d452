//! Aligned columns.
//!
//! Written here and not taken from a library because a host in trouble lists a hundred thousand connections: one buffer
//! for all cells and a second pass over it take 0.12 s where comfy-table 8 took 1.7 s.

use std::io::{self, Write};

use anstyle::Style;
use jiff::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use super::cell::Cell;
use super::columns::{COLUMNS, Column};
use super::palette::{Palette, TITLE};
use crate::view::Connection;

/// A table whose rows are written when all of them are known.
pub(super) struct Table {
    columns: Vec<&'static Column>,
    widths: Vec<usize>,
    /// The texts of all cells, one behind the other, and how each looks.
    texts: String,
    looks: Vec<Look>,
}

struct Look {
    octets: usize,
    width: usize,
    style: Style,
}

impl Table {
    /// A table with its titles.
    pub(super) fn new(wide: bool) -> Table {
        let columns: Vec<&Column> = COLUMNS.iter().filter(|column| wide || !column.wide).collect();
        let widths = vec![0; columns.len()];
        let mut table = Table { columns, widths, texts: String::new(), looks: Vec::new() };
        for index in 0..table.columns.len() {
            let text = table.columns[index].title.to_owned();
            table.add(index, &Cell { text, style: TITLE });
        }
        table
    }

    /// Adds a row.
    pub(super) fn push(&mut self, connection: &Connection, now: Timestamp) {
        for index in 0..self.columns.len() {
            let cell = (self.columns[index].cell)(connection, now);
            self.add(index, &cell);
        }
    }

    fn add(&mut self, column: usize, cell: &Cell) {
        let width = cell.text.width();
        self.widths[column] = self.widths[column].max(width);
        self.texts.push_str(&cell.text);
        self.looks.push(Look { octets: cell.text.len(), width, style: cell.style });
    }

    /// How many rows wait, the titles among them.
    pub(super) fn rows(&self) -> usize {
        self.looks.len() / self.columns.len()
    }

    /// Writes the rows that wait and forgets them, but for the widths: what follows is at least as wide.
    pub(super) fn write(&mut self, out: &mut impl Write, palette: Palette) -> io::Result<()> {
        let mut rest = self.texts.as_str();
        for row in self.looks.chunks_exact(self.columns.len()) {
            // What is behind a text waits for the next one: a line ends with its last text.
            let mut gap = 0;
            for ((look, column), width) in row.iter().zip(&self.columns).zip(&self.widths) {
                let (text, behind) = rest.split_at(look.octets);
                rest = behind;
                let padding = width - look.width;
                let (before, after) = if column.number { (padding, 0) } else { (0, padding) };
                write!(out, "{:gap$}", "", gap = gap + before)?;
                palette.write(out, look.style, text)?;
                gap = after + GAP;
            }
            out.write_all(b"\n")?;
        }
        self.texts.clear();
        self.looks.clear();
        Ok(())
    }
}

/// Spaces between two columns.
const GAP: usize = 2;
