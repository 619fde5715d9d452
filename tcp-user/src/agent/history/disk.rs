//! Closed connections on their way to the files of [`store`](crate::store).
//!
//! The tracker puts a copy of each flow that has closed into a queue of a limited length, and never waits. One thread
//! takes what has gathered, several times a second, turns it into records and writes them in one transaction. What does
//! not fit into the queue and what cannot be written is dropped and counted.

use std::io;
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use nix::unistd::{AccessFlags, access};
use parking_lot::{Condvar, Mutex};
use tcp_common::{Flow, FlowKey};

use crate::agent::error::AgentError;
use crate::agent::privileges::Account;
use crate::agent::shared::Shared;
use crate::api::HistoryFilesStatus;
use crate::store::StoreError;
use crate::store::files::{FileName, Retention, StoreDirectory};
use crate::store::writer::{FileChange, StoreWriter};
use crate::view::Close;

/// A flow whose close is complete.
#[derive(Clone, Copy)]
pub(in crate::agent) struct ClosedFlow {
    pub(in crate::agent) key: FlowKey,
    pub(in crate::agent) flow: Flow,
    /// As [`Record::hook`](tcp_common::record::Record::hook) returns it.
    pub(in crate::agent) hook: u32,
    /// Time at which the close was complete, on the records' clock.
    pub(in crate::agent) at_ns: u64,
}

/// The queue before the files, and what became of the connections in it.
pub struct DiskHistory {
    directory: StoreDirectory,
    retention: Retention,
    queue: Mutex<Queue>,
    /// Notified when the queue is no longer empty, and when the thread is to end.
    filled: Condvar,
    /// By [`DISK_OUTCOMES`].
    outcomes: [AtomicU64; DISK_OUTCOMES.len()],
    bytes: AtomicU64,
    set_aside: AtomicU64,
    /// Why the latest write failed, if it did.
    error: Mutex<Option<String>>,
}

#[derive(Default)]
struct Queue {
    closed: Vec<ClosedFlow>,
    /// Files that a query has found damaged.
    damaged: Vec<FileName>,
    is_ending: bool,
}

/// What becomes of a connection that closed: it is written, dropped because the queue or the disk is full or writing
/// fails in another way, or left out as one of too many that were only tried.
pub const DISK_OUTCOMES: [&str; 5] = ["written", "queue_full", "disk_full", "failed", "attempt_left_out"];
const WRITTEN: usize = 0;
const QUEUE_FULL: usize = 1;
const DISK_FULL: usize = 2;
const FAILED: usize = 3;
const LEFT_OUT: usize = 4;

/// What became of closed connections on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Connections by [`DISK_OUTCOMES`].
    pub outcomes: [u64; DISK_OUTCOMES.len()],
    /// Size of all files, in bytes.
    pub bytes: u64,
    /// Damaged files that were set aside.
    pub set_aside: u64,
}

impl DiskHistory {
    /// Makes the directory, which belongs to `account` if it is new. Writes nothing yet.
    pub(in crate::agent) fn prepare(
        path: &Path,
        retention: Retention,
        account: Option<&Account>,
    ) -> Result<DiskHistory, AgentError> {
        let directory = StoreDirectory::new(path);
        let give = |account: &Account| chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()));
        let created = directory.create();
        let given = created.and_then(|is_new| account.filter(|_| is_new).map_or(Ok(()), give));
        given.map_err(unusable(path))?;
        Ok(DiskHistory {
            directory,
            retention,
            queue: Mutex::default(),
            filled: Condvar::new(),
            outcomes: Default::default(),
            bytes: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            error: Mutex::default(),
        })
    }

    /// Fails if the process, with the privileges that it has now, cannot make files in the directory.
    pub(in crate::agent) fn check_access(&self) -> Result<(), AgentError> {
        let path = self.directory.path();
        let needed = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
        access(path, needed).map_err(io::Error::from).map_err(unusable(path))
    }

    /// The directory of the files.
    pub(in crate::agent) fn directory(&self) -> &StoreDirectory {
        &self.directory
    }

    /// Hands over a connection that closed. Drops it if too many wait.
    pub(in crate::agent) fn push(&self, closed: ClosedFlow) {
        let mut queue = self.queue.lock();
        if queue.closed.len() >= QUEUE_LEN {
            self.count(QUEUE_FULL, 1);
            return;
        }
        queue.closed.push(closed);
        if queue.closed.len() == 1 {
            self.filled.notify_one();
        }
    }

    /// Has a file set aside that a query has found damaged.
    pub(in crate::agent) fn report_damage(&self, name: FileName) {
        self.queue.lock().damaged.push(name);
        self.filled.notify_one();
    }

    /// The numbers for the metrics.
    pub(in crate::agent) fn counts(&self) -> DiskCounts {
        DiskCounts {
            outcomes: self.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed)),
            bytes: self.bytes.load(Ordering::Relaxed),
            set_aside: self.set_aside.load(Ordering::Relaxed),
        }
    }

    /// The part of `finwait status`.
    pub(in crate::agent) fn status(&self) -> HistoryFilesStatus {
        let waiting = self.queue.lock().closed.len() as u64;
        let DiskCounts { outcomes, bytes, set_aside } = self.counts();
        HistoryFilesStatus {
            directory: self.directory.path().into(),
            bytes,
            max_bytes: self.retention.bytes,
            max_age_s: self.retention.age.as_secs(),
            written: outcomes[WRITTEN],
            waiting,
            dropped: outcomes[QUEUE_FULL] + outcomes[DISK_FULL] + outcomes[FAILED],
            attempts_left_out: outcomes[LEFT_OUT],
            set_aside,
            error: self.error.lock().clone(),
        }
    }

    fn count(&self, outcome: usize, connections: usize) {
        self.outcomes[outcome].fetch_add(connections as u64, Ordering::Relaxed);
    }

    /// Waits until there is something to do, then for more of it. Swaps `closed`, which is empty, for what has gathered.
    /// Returns damaged files, and whether the thread is to end.
    fn gather(&self, closed: &mut Vec<ClosedFlow>) -> (Vec<FileName>, bool) {
        let mut queue = self.queue.lock();
        if queue.closed.is_empty() && queue.damaged.is_empty() && !queue.is_ending {
            self.filled.wait_for(&mut queue, LONGEST_WAIT);
        }
        if !queue.is_ending {
            self.filled.wait_for(&mut queue, GATHERING);
        }
        std::mem::swap(closed, &mut queue.closed);
        (std::mem::take(&mut queue.damaged), queue.is_ending)
    }

    fn succeeded(&self) {
        if self.error.lock().take().is_some() {
            tracing::info!("the history is written again");
        }
    }

    /// Logs a failure unless it is the same as before.
    fn failed(&self, error: StoreError) {
        let text = format!("{:#}", anyhow::Error::from(error));
        let mut latest = self.error.lock();
        if latest.as_ref() != Some(&text) {
            tracing::warn!("the history cannot be written, closed connections are dropped: {text}");
            *latest = Some(text);
        }
    }

    fn note(&self, changes: Vec<FileChange>) {
        for change in changes {
            match change {
                FileChange::SetAside { name, aside } => {
                    self.set_aside.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("file {name} of the history is damaged and was renamed to {aside}");
                }
                FileChange::Removed(name) => tracing::info!("file {name} of the history was removed"),
            }
        }
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::HistoryDirectory { path: path.into(), source }
}

/// The thread that writes. Dropping it writes what waits, and ends the thread.
pub(in crate::agent) struct DiskThread {
    disk: Arc<DiskHistory>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Starts the thread, if there is a history on disk.
    pub(in crate::agent) fn start(shared: &Arc<Shared>) -> Result<Option<DiskThread>, AgentError> {
        let Some(disk) = &shared.disk else { return Ok(None) };
        let (of_thread, shared) = (Arc::clone(disk), Arc::clone(shared));
        let thread =
            thread::Builder::new().name("history".into()).spawn(move || write_all(&shared, &of_thread));
        let thread = thread.map_err(AgentError::system("starting the history thread"))?;
        Ok(Some(DiskThread { disk: Arc::clone(disk), thread: Some(thread) }))
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.disk.queue.lock().is_ending = true;
        self.disk.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

fn write_all(shared: &Shared, disk: &DiskHistory) {
    let mut writer = StoreWriter::new(disk.directory.clone(), disk.retention);
    let (mut closed, mut is_ending) = (Vec::new(), false);
    retire(&mut writer, disk);
    while !is_ending {
        let damaged;
        (damaged, is_ending) = disk.gather(&mut closed);
        for name in damaged {
            match writer.set_aside(name) {
                Ok(change) => disk.note(change.into_iter().collect()),
                Err(error) => disk.failed(error),
            }
        }
        for flows in closed.chunks(TRANSACTION) {
            write(shared, disk, &mut writer, flows);
        }
        closed.clear();
        closed.shrink_to(TRANSACTION);
        retire(&mut writer, disk);
    }
}

/// Writes flows in one transaction.
fn write(shared: &Shared, disk: &DiskHistory, writer: &mut StoreWriter, flows: &[ClosedFlow]) {
    let record =
        |closed: &ClosedFlow| shared.joined_close(&closed.key, &closed.flow, closed.hook, closed.at_ns);
    let closes: Vec<Close> = flows.iter().map(record).collect();
    let mut changes = Vec::new();
    let result = writer.write(&closes, Timestamp::now(), &mut changes);
    disk.note(changes);
    match result {
        Ok(left_out) => {
            disk.count(WRITTEN, closes.len() - left_out);
            disk.count(LEFT_OUT, left_out);
            disk.succeeded();
        }
        Err(error) => {
            disk.count(if error.is_full_disk() { DISK_FULL } else { FAILED }, closes.len());
            disk.failed(error);
        }
    }
}

/// Removes files that have to go, and measures the others.
fn retire(writer: &mut StoreWriter, disk: &DiskHistory) {
    let mut changes = Vec::new();
    match writer.retire(Timestamp::now(), &mut changes) {
        Ok(bytes) => disk.bytes.store(bytes, Ordering::Relaxed),
        Err(error) => disk.failed(error),
    }
    disk.note(changes);
}

/// Most connections that wait: 20 MiB.
const QUEUE_LEN: usize = 65_536;
/// Most connections of a transaction.
const TRANSACTION: usize = 4096;
/// Time for which connections gather before they are written: what a kill of the agent loses.
const GATHERING: Duration = Duration::from_millis(250);
/// Time after which files may have become too old, though no connection closes.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
