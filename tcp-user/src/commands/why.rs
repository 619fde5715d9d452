//! One connection explained: the choice among those that a name fits, and the output.

use std::io::{self, Write};

use anyhow::Result;
use jiff::Timestamp;

use crate::cli::{ReplayFormat, UsageError};
use crate::output::{Format, ListWriter, Palette, write_ladder, write_mermaid};
use crate::view::Connection;
use crate::why::Explanation;

/// The connections that a name fits.
#[derive(Default)]
pub(super) struct Candidates {
    count: usize,
    /// The first ones, with the time that each is as of.
    first: Vec<(Connection, Timestamp)>,
    /// The explanation of the first one.
    explanation: Option<Explanation>,
}

impl Candidates {
    /// Adds one.
    pub(super) fn push(
        &mut self,
        connection: &Connection,
        as_of: Timestamp,
        explanation: Option<&Explanation>,
    ) {
        self.count += 1;
        if self.first.is_empty() {
            self.explanation = explanation.cloned();
        }
        if self.first.len() < LISTED {
            self.first.push((connection.clone(), as_of));
        }
    }

    /// Prints the explanation if there is one candidate, the candidates if there are several. Returns the
    /// number of explained connections.
    ///
    /// # Errors
    ///
    /// If the output fails, or there are several candidates.
    pub(super) fn finish(self, out: &mut impl Write, format: ReplayFormat) -> Result<usize> {
        match (self.count, &self.explanation) {
            (0, _) | (_, None) => Ok(0),
            (1, Some(explanation)) => {
                print(explanation, out, format)?;
                out.flush()?;
                Ok(1)
            }
            (count, _) => {
                let mut list =
                    ListWriter::new(out, Format::Wide, Palette::for_stdout(), Timestamp::UNIX_EPOCH)?;
                for (connection, as_of) in &self.first {
                    list.set_now(*as_of);
                    list.push(connection)?;
                }
                list.finish()?;
                Err(UsageError::ambiguous(count, self.first.len()).into())
            }
        }
    }
}

fn print(explanation: &Explanation, out: &mut impl Write, format: ReplayFormat) -> io::Result<()> {
    match format {
        ReplayFormat::Mermaid => write_mermaid(explanation, out),
        ReplayFormat::List(Format::Json) => {
            serde_json::to_writer_pretty(&mut *out, explanation)?;
            writeln!(out)
        }
        _ => write_ladder(explanation, out, Palette::for_stdout()),
    }
}

/// Number of candidates that are listed.
const LISTED: usize = 20;
