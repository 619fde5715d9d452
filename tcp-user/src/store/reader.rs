//! Reads closed connections, the latest first.

use std::collections::HashSet;
use std::ops::ControlFlow;

use jiff::{Timestamp, ToSpan as _};
use rusqlite::{Connection as Database, OpenFlags};

use super::StoreError;
use super::columns::{Contents, TABLE, names, read_row, time_text};
use super::files::{FileName, StoreDirectory, day_of};
use crate::view::{Close, ConnectionId};

/// Closes between two times.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeSpan {
    /// From then on; `None` is since ever.
    pub since: Option<Timestamp>,
    /// Until then, inclusive; `None` is until now.
    pub until: Option<Timestamp>,
}

impl TimeSpan {
    /// Whether a file may have connections of the time. One that closed just before midnight may be in the file of the next
    /// day.
    pub fn may_be_in(&self, name: FileName) -> bool {
        let next_day = |at| day_of(at).saturating_add(1.day());
        self.since.is_none_or(|since| name.day >= day_of(since))
            && self.until.is_none_or(|until| name.day <= next_day(until))
    }

    /// Those files that may have connections of the time and are not damaged, the latest first.
    pub fn files(&self, directory: &StoreDirectory) -> Result<Vec<FileName>, StoreError> {
        let files = directory.list()?.into_iter().rev().map(|file| file.name);
        Ok(files.filter(|&name| !name.is_damaged && self.may_be_in(name)).collect())
    }
}

/// Reads the connections of a directory.
pub struct StoreReader {
    directory: StoreDirectory,
    span: TimeSpan,
    /// Connections of which a later revision was read.
    superseded: HashSet<ConnectionId>,
}

impl StoreReader {
    /// Reads those that closed within a time.
    pub fn new(directory: StoreDirectory, span: TimeSpan) -> StoreReader {
        StoreReader { directory, span, superseded: HashSet::new() }
    }

    /// The files to [read](StoreReader::read), the latest first.
    pub fn files(&self) -> Result<Vec<FileName>, StoreError> {
        self.span.files(&self.directory)
    }

    /// Reads a file from the latest connection to the earliest, while `act` goes on. A close that was taken back is left
    /// out if the next one is known. A file that is gone has none.
    pub fn read(
        &mut self,
        name: FileName,
        mut act: impl FnMut(Close) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let file = self.directory.file(name);
        if !file.exists() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut read = || {
            let database = open_for_reading(&file)?;
            match Contents::of(&database, "main")? {
                Contents::Table => {}
                Contents::Nothing => return Ok(Some(ControlFlow::Continue(()))),
                Contents::OtherVersion => return Ok(None),
            }
            let mut statement = database.prepare(&format!(
                "SELECT {} FROM {TABLE} WHERE closed_at >= ?1 AND closed_at <= ?2 ORDER BY closed_at DESC",
                names()
            ))?;
            let since = self.span.since.map_or_else(String::new, time_text);
            let until = self.span.until.map_or_else(|| "9999".to_owned(), time_text);
            let mut rows = statement.query([since, until])?;
            while let Some(row) = rows.next()? {
                let close = read_row(row)?;
                if close.revision > 1 {
                    self.superseded.insert(close.connection.id);
                } else if self.superseded.contains(&close.connection.id) {
                    continue;
                }
                if act(close).is_break() {
                    return Ok(Some(ControlFlow::Break(())));
                }
            }
            Ok(Some(ControlFlow::Continue(())))
        };
        match read() {
            Ok(Some(flow)) => Ok(flow),
            Ok(None) => Err(StoreError::Version { file }),
            Err(error) => Err(StoreError::Sqlite { file, error }),
        }
    }
}

fn open_for_reading(file: &std::path::Path) -> rusqlite::Result<Database> {
    let database =
        Database::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    database.busy_timeout(BUSY)?;
    Ok(database)
}

/// Longest wait for a lock: the writer holds none for long.
pub(super) const BUSY: std::time::Duration = std::time::Duration::from_secs(5);
