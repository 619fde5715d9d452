//! `/history`: the connections that closed, from the files of the agent.

use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `/history`.
#[derive(Deserialize)]
pub struct HistoryQuery {
    /// Only closes from this time on.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only closes until this time.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// A filter expression; empty matches every connection. Ages are as of the close.
    #[serde(default)]
    pub filter: String,
    /// The latest ones, at most this many.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A line of `/history` that is no [`Close`](crate::view::Close): a file could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableFile {
    /// Path of the file, and why it cannot be read.
    pub unreadable: String,
    /// Whether it is damaged. The agent sets it aside then.
    pub is_damaged: bool,
}

impl UnreadableFile {
    /// How such a line begins.
    pub const BEGIN: &[u8] = br#"{"unreadable":"#;
}

/// The files in which the agent keeps the connections that closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryFilesStatus {
    /// The directory.
    pub directory: PathBuf,
    /// Size of all files, in bytes.
    pub bytes: u64,
    /// Size from which the oldest files are removed, in bytes.
    pub max_bytes: u64,
    /// How long a connection is kept, in seconds.
    pub max_age_s: u64,
    /// Connections written since the agent started.
    pub written: u64,
    /// Connections that wait to be written.
    pub waiting: u64,
    /// Connections that closed and were not written, because too many closed at once or writing failed.
    pub dropped: u64,
    /// Attempts that closed without being established and were left out, because the file of the day has enough of them.
    pub attempts_left_out: u64,
    /// Damaged files that were set aside since the agent started.
    pub set_aside: u64,
    /// Why the latest write failed; `null` if it did not.
    pub error: Option<String>,
}
