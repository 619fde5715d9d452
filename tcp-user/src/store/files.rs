//! The files of a directory: their names, their sizes, and which of them have to go.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::StoreError;

/// The name of a file: `2026-12-01.db` has the connections that closed on that day in UTC, `2026-12-01.2.db` is the
/// second part of the day. `2026-12-01.db.damaged` was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The day in UTC.
    pub day: Date,
    /// Number of the part, from 1.
    pub part: u32,
    /// Whether the file was set aside because it is damaged.
    pub is_damaged: bool,
}

impl FileName {
    /// The first file of a day.
    pub fn of_day(day: Date) -> FileName {
        FileName { day, part: 1, is_damaged: false }
    }

    /// The next part of the same day.
    pub fn next_part(self) -> FileName {
        FileName { part: self.part + 1, is_damaged: false, ..self }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.day)?;
        if self.part > 1 {
            write!(f, ".{}", self.part)?;
        }
        f.write_str(".db")?;
        f.write_str(if self.is_damaged { DAMAGED } else { "" })
    }
}

/// A name that no file of a store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no file of finwait's history has this name")]
pub struct OtherName;

impl FromStr for FileName {
    type Err = OtherName;

    fn from_str(text: &str) -> Result<FileName, OtherName> {
        let is_damaged = text.ends_with(DAMAGED);
        let stem = text.strip_suffix(DAMAGED).unwrap_or(text).strip_suffix(".db").ok_or(OtherName)?;
        let (day, part) = stem.split_once('.').unwrap_or((stem, "1"));
        let day = day.parse().map_err(|_| OtherName)?;
        let part = part.parse().map_err(|_| OtherName)?;
        let name = FileName { day, part, is_damaged };
        if name.to_string() == text { Ok(name) } else { Err(OtherName) }
    }
}

/// A file, with those that SQLite keeps beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name.
    pub name: FileName,
    /// Size of all of them, in bytes.
    pub bytes: u64,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a connection is kept after its close.
    pub age: Duration,
    /// Size of all files, in bytes.
    pub bytes: u64,
}

impl Retention {
    /// Size from which a file is followed by the next part of its day, in bytes: what goes at a time.
    pub fn part_bytes(&self) -> u64 {
        self.bytes / PARTS
    }

    /// Those of the files that have to go at `now`, the oldest first. `current` is being written, and stays.
    pub fn expired(&self, files: &[StoredFile], current: Option<FileName>, now: Timestamp) -> Vec<FileName> {
        let mut files = files.to_vec();
        files.sort_by_key(|file| file.name);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let mut expired = Vec::new();
        for file in files.into_iter().filter(|file| Some(file.name) != current) {
            if self.is_too_old(file.name.day, now) || bytes > self.bytes {
                bytes -= file.bytes;
                expired.push(file.name);
            }
        }
        expired
    }

    /// Whether even the last connection of a day is too old.
    fn is_too_old(&self, day: Date, now: Timestamp) -> bool {
        let end = day.checked_add(1.day()).and_then(|next| next.to_zoned(TimeZone::UTC));
        end.is_ok_and(|end| {
            now.duration_since(end.timestamp()).unsigned_abs() >= self.age && now >= end.timestamp()
        })
    }
}

/// A directory of files.
#[derive(Clone, Debug)]
pub struct StoreDirectory {
    path: PathBuf,
}

impl StoreDirectory {
    /// The directory at a path, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> StoreDirectory {
        StoreDirectory { path: path.into() }
    }

    /// Creates the directory, which only its owner may enter, but not its parents. Returns whether it was created.
    pub fn create(&self) -> io::Result<bool> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file.
    pub fn file(&self, name: FileName) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// The files, the oldest first. Files of others are left out.
    pub fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.path).map_err(self.failed())? {
            let entry = entry.map_err(self.failed())?;
            let text = entry.file_name().to_string_lossy().into_owned();
            let (text, is_beside) = match BESIDE.iter().find_map(|suffix| text.strip_suffix(suffix)) {
                Some(text) => (text, true),
                None => (&*text, false),
            };
            let Ok(name) = text.parse::<FileName>() else { continue };
            // It may be gone by now.
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            let (size, exists) = files.entry(name).or_insert((0, false));
            *size += bytes;
            *exists |= !is_beside;
        }
        let files = files.into_iter().filter(|(_, (_, exists))| *exists);
        Ok(files.map(|(name, (bytes, _))| StoredFile { name, bytes }).collect())
    }

    /// Creates an empty file that only its owner may read, if there is none.
    pub(super) fn create_file(&self, name: FileName) -> Result<(), StoreError> {
        let file = self.file(name);
        let created = OpenOptions::new().append(true).create(true).mode(0o600).open(&file);
        created.map(drop).map_err(|source| StoreError::System { file, source })
    }

    /// Removes a file and those beside it.
    pub(super) fn remove(&self, name: FileName) -> Result<(), StoreError> {
        self.with_each(name, |file| fs::remove_file(file))
    }

    /// Renames a damaged file, so that its connections are kept and another file can take its name. Returns the new name.
    pub(super) fn set_aside(&self, name: FileName) -> Result<FileName, StoreError> {
        let mut aside = FileName { is_damaged: true, ..name };
        while self.file(aside).exists() {
            aside.part += 1;
        }
        let target = self.file(aside);
        self.with_each(name, |file| {
            let suffix =
                BESIDE.iter().find(|suffix| file.to_string_lossy().ends_with(*suffix)).unwrap_or(&"");
            fs::rename(file, with_suffix(&target, suffix))
        })?;
        Ok(aside)
    }

    /// Does something with a file, then with those beside it that exist.
    fn with_each(&self, name: FileName, act: impl Fn(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        let main = self.file(name);
        for suffix in [""].iter().chain(BESIDE) {
            let file = with_suffix(&main, suffix);
            match act(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::System { file, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn failed(&self) -> impl Fn(io::Error) -> StoreError {
        |source| StoreError::System { file: self.path.clone(), source }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The day of a moment, in UTC.
pub(super) fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// Ends the name of a file that was set aside.
const DAMAGED: &str = ".damaged";
/// What SQLite appends to the names of the files that it keeps beside a database: the log of transactions, its index,
/// and the journal of other journal modes.
const BESIDE: &[&str] = &["-wal", "-shm", "-journal"];
/// Number of parts in the size of all files.
const PARTS: u64 = 4;
