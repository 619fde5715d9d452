//! `finwait history`: the connections that closed, from the agent's files.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::live::OUT_BUFFER;
use super::{NOT_UNDERSTOOD, found};
use crate::api::{UnreadableFile, client};
use crate::cli::{HistoryArgs, SocketArgs};
use crate::output::{ListWriter, Palette, RowWriter};
use crate::store::StoreError;
use crate::store::files::StoreDirectory;
use crate::store::reader::TimeSpan;
use crate::store::sql::{SqlStore, SqlValue};
use crate::view::Close;

/// A file of the history could not be read; what the others have was printed.
#[derive(Debug, thiserror::Error)]
#[error("the history is incomplete, a file cannot be read: {}{}", .0.unreadable, next_step(.0))]
pub(super) struct IncompleteHistory(UnreadableFile);

fn next_step(file: &UnreadableFile) -> &'static str {
    if file.is_damaged { ". The agent sets the damaged file aside, and goes on" } else { "" }
}

impl From<StoreError> for IncompleteHistory {
    /// The agent has not met the error: it sets nothing aside.
    fn from(error: StoreError) -> IncompleteHistory {
        let unreadable = format!("{:#}", anyhow::Error::from(error));
        IncompleteHistory(UnreadableFile { unreadable, is_damaged: false })
    }
}

/// Prints the connections that closed, the latest first.
pub(super) async fn run(agent: &SocketArgs, args: &HistoryArgs) -> Result<ExitCode> {
    if let Some(statement) = &args.sql {
        return sql(args, statement);
    }
    let filter = args.filter.filter()?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("filter", &filter.to_string());
    let times = [("since", args.since), ("until", args.until)];
    for (name, at) in times.into_iter().filter_map(|(name, at)| Some((name, at?))) {
        query.append_pair(name, &at.to_string());
    }
    if let Some(limit) = args.limit {
        query.append_pair("limit", &limit.to_string());
    }
    let mut answer = client::get(agent.path(), &format!("/history?{}", query.finish())).await?;
    let out = BufWriter::with_capacity(OUT_BUFFER, io::stdout().lock());
    let mut list = ListWriter::of_closed(out, args.output, Palette::for_stdout(), !args.no_header)?;
    let mut unreadable = None;
    while let Some(line) = answer.line().await? {
        if line.starts_with(UnreadableFile::BEGIN) {
            unreadable = Some(serde_json::from_slice(&line).context(NOT_UNDERSTOOD)?);
        } else if args.output.is_json() {
            list.push_json(&line)?;
        } else {
            let close: Close = serde_json::from_slice(&line).context(NOT_UNDERSTOOD)?;
            list.set_now(close.closed_at.unwrap_or_default());
            list.push(&close.connection)?;
        }
    }
    let count = list.finish()?;
    match unreadable {
        Some(file) => Err(IncompleteHistory(file).into()),
        None => Ok(found(count > 0)),
    }
}

/// Executes a statement over the files, with the rights of this process.
fn sql(args: &HistoryArgs, statement: &str) -> Result<ExitCode> {
    let directory = StoreDirectory::new(&args.history_dir);
    let span = TimeSpan { since: args.since, until: args.until };
    let store = SqlStore::open(&directory, span)?;
    let mut statement = store.prepare(statement)?;
    let out = BufWriter::with_capacity(OUT_BUFFER, io::stdout().lock());
    let columns = statement.columns();
    let mut rows = RowWriter::new(out, columns, args.output, Palette::for_stdout(), !args.no_header)?;
    let mut count = 0_u64;
    statement.for_each(|values| -> Result<()> {
        count += 1;
        Ok(rows.push(values.iter().map(json).collect())?)
    })?;
    rows.finish()?;
    drop(statement);
    match store.into_unreadable().pop() {
        Some(error) => Err(IncompleteHistory::from(error).into()),
        None => Ok(found(count > 0)),
    }
}

/// A value of SQLite in JSON.
fn json(value: &SqlValue<'_>) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) => (*number).into(),
        SqlValue::Real(number) => (*number).into(),
        SqlValue::Text(text) => String::from_utf8_lossy(text).into(),
        SqlValue::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

/// Whether an error is that of a process that may not read the files.
pub(super) fn is_denied(error: &StoreError) -> bool {
    matches!(error, StoreError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}
