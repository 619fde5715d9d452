//! The event thread: reads the event rings and scans the flow table in a loop, more often if there is more to
//! do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::error::AgentError;
use super::notify;
use super::tracker::{BATCH, Tracker};
use crate::kernel::Diagnostics;

/// The event thread. Dropping it stops the thread and waits for its end.
pub(super) struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(tracker: Tracker, diagnostics: Option<Diagnostics>) -> Result<Worker, AgentError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (on_end, ended) = oneshot::channel::<()>();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("events".into()).spawn(move || {
            // Dropped when the thread ends, also by a panic.
            let _on_end = on_end;
            event_loop(tracker, diagnostics, &stopped);
        });
        let thread = thread.map_err(AgentError::system("starting the event thread"))?;
        Ok(Worker { stop, thread: Some(thread), ended })
    }

    /// Returns only if the thread has panicked.
    pub(super) async fn ended(&mut self) -> Result<(), AgentError> {
        let _ = (&mut self.ended).await;
        Err(AgentError::EventThread)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by `ended`.
            let _ = thread.join();
        }
    }
}

fn event_loop(mut tracker: Tracker, mut diagnostics: Option<Diagnostics>, stop: &AtomicBool) {
    let mut watchdog = Watchdog::new();
    let many = (tracker.ring_len() / PART_FILLED) as usize;
    let (mut pause, mut scanned_at) = (LONGEST_PAUSE, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let count = tracker.drain();
        let elapsed = scanned_at.elapsed();
        scanned_at += elapsed;
        let behind = tracker.scan(elapsed);
        if let Some(diagnostics) = &mut diagnostics {
            diagnostics.flush();
        }
        watchdog.progressed();
        pause = if count >= many || behind { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        if count < BATCH {
            thread::sleep(pause);
        }
    }
}

/// Notifies systemd's watchdog while the event thread, on which everything else depends, makes progress. The
/// notifications stop if a ring never empties, a scan never ends or a lock is never released.
struct Watchdog {
    /// Longest time systemd waits for a notification; `None` if the watchdog is off.
    timeout: Option<Duration>,
    notified_at: Instant,
}

impl Watchdog {
    fn new() -> Watchdog {
        Watchdog { timeout: sd_notify::watchdog_enabled(), notified_at: Instant::now() }
    }

    fn progressed(&mut self) {
        if self.timeout.is_some_and(|timeout| self.notified_at.elapsed() >= timeout / 4) {
            notify(NotifyState::Watchdog);
            self.notified_at = Instant::now();
        }
    }
}

/// Pause between rounds while there is little to do. It bounds the delay of an event.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// Pause between rounds while there is much to do.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// A round that reads more than this fraction (1/8) of a ring is followed by a short pause.
const PART_FILLED: u32 = 8;
