//! SQL of the user over the files of a directory, which are opened for reading only.

use std::path::Path;

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection as Database, Rows, Statement};

use super::StoreError;
use super::columns::{COLUMNS, Contents, TABLE, names};
use super::files::StoreDirectory;
use super::reader::{BUSY, TimeSpan};

/// Why a statement of the user cannot be executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The files cannot be opened.
    #[error("opening the history")]
    Files(#[source] StoreError),
    /// The directory has no file of the time.
    #[error(
        "no history of this time in {0}: `finwait status` names the directory of the agent (--history-dir)"
    )]
    NoFiles(String),
    /// More files than SQLite can attach.
    #[error(
        "the history of this time has {count} files, and SQLite opens {most} at once: choose less by --since and --until"
    )]
    TooMany {
        /// Number of files.
        count: usize,
        /// How many can be opened.
        most: usize,
    },
    /// The statement would write.
    #[error("--sql only reads: the history cannot be changed")]
    Writes,
    /// SQLite does not accept the statement.
    #[error("--sql: {0}")]
    Statement(rusqlite::Error),
    /// Reading failed.
    #[error("reading the history: {0}")]
    Read(rusqlite::Error),
}

impl SqlError {
    /// Whether the statement or its options are wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, SqlError::TooMany { .. } | SqlError::Writes | SqlError::Statement(_))
    }
}

/// The files as one database, in which the view `connections` has the rows of all of them.
pub struct SqlStore {
    database: Database,
    unreadable: Vec<StoreError>,
}

impl SqlStore {
    /// Opens the files of a time, with the rights of this process.
    pub fn open(directory: &StoreDirectory, span: TimeSpan) -> Result<SqlStore, SqlError> {
        let files = span.files(directory).map_err(SqlError::Files)?;
        if files.is_empty() {
            return Err(SqlError::NoFiles(directory.path().display().to_string()));
        }
        let database = Database::open_in_memory().map_err(SqlError::Read)?;
        let most = database.limit(Limit::SQLITE_LIMIT_ATTACHED).map_err(SqlError::Read)? as usize;
        if files.len() > most {
            return Err(SqlError::TooMany { count: files.len(), most });
        }
        database.busy_timeout(BUSY).map_err(SqlError::Read)?;
        let (mut parts, mut unreadable) = (Vec::new(), Vec::new());
        for name in files {
            let file = directory.file(name);
            let schema = name.to_string();
            let attach = || {
                database.execute(&format!("ATTACH ?1 AS \"{schema}\""), [read_only(&file)])?;
                Contents::of(&database, &schema)
            };
            match attach() {
                Ok(Contents::Table) => parts.push(format!("SELECT {} FROM \"{schema}\".{TABLE}", names())),
                Ok(Contents::Nothing) => {}
                Ok(Contents::OtherVersion) => unreadable.push(StoreError::Version { file }),
                Err(error) => unreadable.push(StoreError::Sqlite { file, error }),
            }
        }
        if parts.is_empty() {
            let nothing: Vec<_> = COLUMNS.iter().map(|column| format!("NULL AS {}", column.name)).collect();
            parts.push(format!("SELECT {} WHERE 0", nothing.join(", ")));
        }
        let view =
            format!("CREATE TEMP VIEW {TABLE} AS {}; PRAGMA query_only = ON;", parts.join(" UNION ALL "));
        database.execute_batch(&view).map_err(SqlError::Read)?;
        Ok(SqlStore { database, unreadable })
    }

    /// Why files could not be read, whose rows are missing.
    pub fn into_unreadable(self) -> Vec<StoreError> {
        self.unreadable
    }

    /// Prepares a statement that reads.
    pub fn prepare(&self, sql: &str) -> Result<SqlStatement<'_>, SqlError> {
        let statement = self.database.prepare(sql).map_err(SqlError::Statement)?;
        if statement.readonly() { Ok(SqlStatement(statement)) } else { Err(SqlError::Writes) }
    }
}

/// A statement that reads.
pub struct SqlStatement<'a>(Statement<'a>);

/// A value of a row.
pub type SqlValue<'a> = ValueRef<'a>;

impl SqlStatement<'_> {
    /// Names of the columns of its result.
    pub fn columns(&self) -> Vec<String> {
        self.0.column_names().map(str::to_owned).collect()
    }

    /// Executes it and hands over each row.
    pub fn for_each<E: From<SqlError>>(
        &mut self,
        mut act: impl FnMut(&[SqlValue<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let count = self.0.column_count();
        let mut rows: Rows<'_> = self.0.query([]).map_err(SqlError::Statement)?;
        while let Some(row) = rows.next().map_err(SqlError::Read)? {
            let values: Result<Vec<_>, _> = (0..count).map(|index| row.get_ref(index)).collect();
            act(&values.map_err(SqlError::Read)?)?;
        }
        Ok(())
    }
}

/// The URI by which SQLite opens a file read-only.
fn read_only(file: &Path) -> String {
    let mut uri = "file:".to_owned();
    for character in file.to_string_lossy().chars() {
        match character {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            character => uri.push(character),
        }
    }
    uri + "?mode=ro"
}
