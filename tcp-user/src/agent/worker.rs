//! The mirror's thread: drains the ring and sweeps the table, again and again, the more often the more there is to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::notify;
use super::tracker::{BATCH, Tracker};
use crate::kernel::Diagnostics;

/// The thread; it is asked to stop, and waited for, when this is dropped.
pub(super) struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts it.
    pub(super) fn start(tracker: Tracker, diagnostics: Option<Diagnostics>) -> Result<Worker> {
        let stop = Arc::new(AtomicBool::new(false));
        let (at_end, ended) = oneshot::channel::<()>();
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new().name("mirror".into()).spawn(move || {
            // Dropped when the thread ends, however it does.
            let _at_end = at_end;
            event_loop(tracker, diagnostics, &asked);
        });
        Ok(Worker { stop, thread: Some(thread.context("starting the mirror's thread")?), ended })
    }

    /// Comes back only if the thread has failed.
    pub(super) async fn ended(&mut self) -> Result<()> {
        let _ = (&mut self.ended).await;
        bail!("the mirror has stopped; this is a defect of finwait")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it failed, `ended` has said so.
            let _ = thread.join();
        }
    }
}

fn event_loop(mut tracker: Tracker, mut diagnostics: Option<Diagnostics>, stop: &AtomicBool) {
    let mut watchdog = Watchdog::new();
    let many = (tracker.ring_len() / PART_FILLED) as usize;
    let (mut pause, mut swept_at) = (LONGEST_PAUSE, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let count = tracker.drain();
        let elapsed = swept_at.elapsed();
        swept_at += elapsed;
        let rest = tracker.sweep(elapsed);
        if let Some(diagnostics) = &mut diagnostics {
            diagnostics.flush();
        }
        watchdog.progressed();
        pause = if count >= many || rest { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        if count < BATCH {
            thread::sleep(pause);
        }
    }
}

/// Tells systemd that the tracker, on which all the rest depends, gets on: with a ring that is never empty, a table that
/// is never swept, or a lock that never comes free, it falls silent.
struct Watchdog {
    /// How long systemd waits; `None` where it does not.
    patience: Option<Duration>,
    told_at: Instant,
}

impl Watchdog {
    fn new() -> Watchdog {
        Watchdog { patience: sd_notify::watchdog_enabled(), told_at: Instant::now() }
    }

    fn progressed(&mut self) {
        if self.patience.is_some_and(|patience| self.told_at.elapsed() >= patience / 4) {
            notify(NotifyState::Watchdog);
            self.told_at = Instant::now();
        }
    }
}

/// While there is little to do: how late an event may be told.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// While there is much to do.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// The part of a ring that one pause may fill: with more events the next round comes soon.
const PART_FILLED: u32 = 8;
