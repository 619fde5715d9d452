//! Adds closed connections to the file of the day.

use jiff::Timestamp;
use rusqlite::{Connection as Database, OpenFlags};

use super::StoreError;
use super::columns::{Contents, count_attempts, create_table, insert, is_attempt, write_row};
use super::files::{FileName, Retention, StoreDirectory, day_of};
use crate::view::Close;

/// Writes into a directory. No other process may write there.
pub struct StoreWriter {
    directory: StoreDirectory,
    retention: Retention,
    current: Option<CurrentFile>,
}

/// The file that is written.
struct CurrentFile {
    name: FileName,
    database: Database,
    /// Number of attempts that it may still take.
    attempts_left: u64,
}

/// What became of the files while connections were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// A damaged file was set aside under another name.
    SetAside {
        /// The name that it had.
        name: FileName,
        /// The name that it has now.
        aside: FileName,
    },
    /// A file was removed, because it was too old or all were too large.
    Removed(FileName),
}

impl StoreWriter {
    /// Writes nothing yet.
    pub fn new(directory: StoreDirectory, retention: Retention) -> StoreWriter {
        StoreWriter { directory, retention, current: None }
    }

    /// The directory.
    pub fn directory(&self) -> &StoreDirectory {
        &self.directory
    }

    /// Adds connections to the file of the day of `now`, all of them or none. Returns the number of attempts that were left
    /// out, because the file has enough of them: so a flood of SYNs removes no connections. A damaged file is set aside, and
    /// another one takes its place.
    pub fn write(
        &mut self,
        closes: &[Close],
        now: Timestamp,
        changes: &mut Vec<FileChange>,
    ) -> Result<usize, StoreError> {
        for _ in 0..ATTEMPTS {
            let result = self.open(now).and_then(|name| self.insert(name, closes));
            match result {
                Err(error) if error.is_damage() => {
                    let name = self
                        .current
                        .take()
                        .map_or_else(|| self.last_part(now), |current| Ok(current.name))?;
                    let aside = self.directory.set_aside(name)?;
                    changes.push(FileChange::SetAside { name, aside });
                }
                result => return result,
            }
        }
        self.open(now).and_then(|name| self.insert(name, closes))
    }

    /// Sets a damaged file aside, if it is still there.
    pub fn set_aside(&mut self, name: FileName) -> Result<Option<FileChange>, StoreError> {
        if self.current.as_ref().is_some_and(|current| current.name == name) {
            self.current = None;
        }
        if !self.directory.file(name).exists() {
            return Ok(None);
        }
        let aside = self.directory.set_aside(name)?;
        Ok(Some(FileChange::SetAside { name, aside }))
    }

    /// Removes the files that have to go at `now`. Returns the size of the others, in bytes.
    pub fn retire(&mut self, now: Timestamp, changes: &mut Vec<FileChange>) -> Result<u64, StoreError> {
        let files = self.directory.list()?;
        let current = self.current.as_ref().map(|current| current.name);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        for name in self.retention.expired(&files, current, now) {
            self.directory.remove(name)?;
            bytes -= files.iter().filter(|file| file.name == name).map(|file| file.bytes).sum::<u64>();
            changes.push(FileChange::Removed(name));
        }
        Ok(bytes)
    }

    /// Opens the file for connections of the day of `now`, unless it is open.
    fn open(&mut self, now: Timestamp) -> Result<FileName, StoreError> {
        if let Some(&CurrentFile { name, .. }) = self.current.as_ref()
            && name.day == day_of(now)
            && self.size(name)? < self.retention.part_bytes()
        {
            return Ok(name);
        }
        // SQLite folds its log into the file that it closes.
        self.current = None;
        let mut name = self.last_part(now)?;
        loop {
            if self.size(name)? < self.retention.part_bytes() {
                self.directory.create_file(name)?;
                self.current = self.open_file(name).map_err(self.refused(name))?;
                if self.current.is_some() {
                    return Ok(name);
                }
            }
            name = name.next_part();
        }
    }

    /// Opens a file for writing; `None` if another version made it.
    fn open_file(&self, name: FileName) -> rusqlite::Result<Option<CurrentFile>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Database::open_with_flags(self.directory.file(name), flags)?;
        if Contents::of(&database, "main")? == Contents::OtherVersion {
            return Ok(None);
        }
        // A commit is a write to the log, which survives the agent. It is flushed to the disk when the log is folded into
        // the file.
        let pages = (self.retention.part_bytes() / 4 / PAGE_BYTES).clamp(16, MOST_PAGES);
        database.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = {pages};"
        ))?;
        database.execute_batch(&format!("BEGIN; {} COMMIT;", create_table()))?;
        let attempts: i64 = database.query_row(&count_attempts(), [], |row| row.get(0))?;
        let most = self.retention.part_bytes() / ATTEMPTS_PART / ROW_BYTES;
        Ok(Some(CurrentFile { name, database, attempts_left: most.saturating_sub(attempts.unsigned_abs()) }))
    }

    fn insert(&mut self, name: FileName, closes: &[Close]) -> Result<usize, StoreError> {
        let refused = self.refused(name);
        let Some(CurrentFile { database, attempts_left, .. }) = &mut self.current else { return Ok(0) };
        let mut write = || {
            let (mut left, mut left_out) = (*attempts_left, 0);
            let transaction = database.transaction()?;
            let mut statement = transaction.prepare(&insert())?;
            for close in closes {
                if is_attempt(close) {
                    if left == 0 {
                        left_out += 1;
                        continue;
                    }
                    left -= 1;
                }
                write_row(&mut statement, close)?;
            }
            drop(statement);
            transaction.commit()?;
            *attempts_left = left;
            Ok(left_out)
        };
        write().map_err(refused)
    }

    /// The latest file of the day of `now`, or the first one that there could be.
    fn last_part(&self, now: Timestamp) -> Result<FileName, StoreError> {
        let first = FileName::of_day(day_of(now));
        let files = self.directory.list()?.into_iter().map(|file| file.name);
        let of_day = files.filter(|name| name.day == first.day && !name.is_damaged);
        Ok(of_day.max().unwrap_or(first))
    }

    fn size(&self, name: FileName) -> Result<u64, StoreError> {
        let file = self.directory.file(name);
        match file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(StoreError::System { file, source }),
        }
    }

    fn refused(&self, name: FileName) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let file = self.directory.file(name);
        move |error| StoreError::Sqlite { file: file.clone(), error }
    }
}

/// Damaged files that one call sets aside.
const ATTEMPTS: usize = 3;
/// The part of a file for attempts is 1/8, as it is in memory.
const ATTEMPTS_PART: u64 = 8;
/// Size of a row with its entry in the index, in bytes, about.
const ROW_BYTES: u64 = 400;
/// Size of a page of SQLite, in bytes.
const PAGE_BYTES: u64 = 4096;
/// Most pages of the log before it is folded into the file: 8 MiB.
const MOST_PAGES: u64 = 2048;
