//! The progress bar of a long replay.

use std::io::{IsTerminal, stderr, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::input::Input;

/// A bar on standard error that appears when a replay takes longer than [`DELAY`].
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    read: Arc<AtomicU64>,
    size: Option<u64>,
    started: Instant,
    /// Standard error is no terminal, or the bar would stand between records.
    hidden: bool,
    frames: u32,
}

impl Progress {
    pub(super) fn new(input: &Input, prints_meanwhile: bool) -> Progress {
        Progress {
            bar: None,
            read: Arc::clone(&input.read),
            size: input.size,
            started: Instant::now(),
            hidden: !stderr().is_terminal() || (prints_meanwhile && stdout().is_terminal()),
            frames: 0,
        }
    }

    /// Counts a frame and redraws the bar now and then.
    pub(super) fn frame(&mut self) {
        self.frames = self.frames.wrapping_add(1);
        if self.hidden || !self.frames.is_multiple_of(EVERY) {
            return;
        }
        if self.bar.is_none() && self.started.elapsed() >= DELAY {
            self.bar = Some(bar(self.size));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.read.load(Ordering::Relaxed));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A replay that takes less shows no bar.
const DELAY: Duration = Duration::from_secs(1);
/// Frames between two readings of the clock.
const EVERY: u32 = 4_096;
