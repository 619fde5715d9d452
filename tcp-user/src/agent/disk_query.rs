//! The answer to `finwait history`: closed connections from the files, the latest first.

use std::ops::ControlFlow;

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::Sender;

use super::history::DiskHistory;
use crate::api::{HistoryQuery, UnreadableFile};
use crate::filter::Filter;
use crate::store::StoreError;
use crate::store::reader::{StoreReader, TimeSpan};
use crate::view::Close;

/// Sends one line for each connection that the query selects, in chunks, until the client is gone.
pub(super) fn answer(disk: &DiskHistory, query: &HistoryQuery, filter: &Filter, out: Sender<Bytes>) {
    let span = TimeSpan { since: query.since, until: query.until };
    let mut reader = StoreReader::new(disk.directory().clone(), span);
    let mut lines = ChunkedLines { out, buffer: Vec::new(), left: query.limit.unwrap_or(usize::MAX) };
    let files = match reader.files() {
        Ok(files) => files,
        Err(error) => return lines.finish(Some(&unreadable(error))),
    };
    for name in files {
        let result = reader.read(name, |close| {
            if selects(filter, &close) { lines.push(&close) } else { ControlFlow::Continue(()) }
        });
        match result {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => {
                if error.is_damage() {
                    disk.report_damage(name);
                }
                lines.add(&unreadable(error));
            }
        }
    }
    lines.finish(None);
}

/// Whether a filter selects a connection as it was when its close was complete.
fn selects(filter: &Filter, close: &Close) -> bool {
    filter.matches(&close.connection, close.closed_at.unwrap_or_default())
}

fn unreadable(error: StoreError) -> UnreadableFile {
    let is_damaged = error.is_damage();
    UnreadableFile { unreadable: format!("{:#}", anyhow::Error::from(error)), is_damaged }
}

/// ChunkedLines on their way to the client.
struct ChunkedLines {
    out: Sender<Bytes>,
    buffer: Vec<u8>,
    /// Number of connections that are still wanted.
    left: usize,
}

impl ChunkedLines {
    fn push(&mut self, close: &Close) -> ControlFlow<()> {
        if self.left == 0 {
            return ControlFlow::Break(());
        }
        self.left -= 1;
        self.add(close);
        if self.buffer.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { self.send() }
    }

    fn add(&mut self, line: &impl Serialize) {
        if serde_json::to_writer(&mut self.buffer, line).is_ok() {
            self.buffer.push(b'\n');
        }
    }

    fn send(&mut self) -> ControlFlow<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        if self.out.blocking_send(chunk).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn finish(mut self, last: Option<&UnreadableFile>) {
        if let Some(last) = last {
            self.add(last);
        }
        // Fails if the client is gone.
        let _ = self.send();
    }
}

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 1 << 16;
