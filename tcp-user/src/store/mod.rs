//! Closed connections in files: SQLite, one row a connection.
//!
//! A directory holds a file a day, and further parts of a day whose first file has become large: [`files`] names, lists
//! and retires them. [`columns`] is the table, [`writer`] adds rows, [`reader`] reads them as records and [`sql`] by
//! statements of the user. The times are passed in: nothing here reads a clock.

pub mod columns;
pub mod files;
pub mod reader;
pub mod sql;
pub mod writer;

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Where the packaged service keeps its files: the `StateDirectory` of `finwait.service`.
pub const PACKAGED_DIRECTORY: &str = "/var/lib/finwait";

/// Why files of closed connections cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused.
    // SQLite's error is not its source: the one below that would only repeat its text.
    #[error("{}: {error}", file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// SQLite's error.
        error: rusqlite::Error,
    },
    /// The file has another [version](columns::VERSION).
    #[error("{}: another version of finwait wrote it", file.display())]
    Version {
        /// The file.
        file: PathBuf,
    },
    /// A system call failed.
    #[error("{}", file.display())]
    System {
        /// The file or the directory.
        file: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the file is damaged, or is no database.
    pub fn is_damage(&self) -> bool {
        matches!(self.sqlite_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether the disk, or what the user may use of it, is full.
    pub fn is_full_disk(&self) -> bool {
        match self {
            StoreError::Sqlite { .. } => self.sqlite_code() == Some(ErrorCode::DiskFull),
            StoreError::System { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Version { .. } => false,
        }
    }

    fn sqlite_code(&self) -> Option<ErrorCode> {
        match self {
            StoreError::Sqlite { error, .. } => error.sqlite_error_code(),
            StoreError::Version { .. } | StoreError::System { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
