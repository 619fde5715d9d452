//! The link between the two hosts: it forwards every frame, drops, duplicates and delays some, and can be
//! paused.
//!
//! The impairment of a frame depends only on the seed, the flow and the number of the frame in it. The link
//! keeps a [`PacketLog`], so that a difference can be explained by the segment that was missing. A capture
//! holds all frames as the server's interface sent and received them.

use std::collections::VecDeque;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use finwait::lab::{Role, Tap};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tcp_common::wire::{FirstHeader, parse};

use crate::packet_log::{LoggedFrame, PacketLog};

/// Impairment of the link: probabilities in percent, for each TCP frame.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// Seed of the random decisions.
    pub seed: u64,
    /// Frames dropped.
    pub loss: f64,
    /// Frames delivered twice.
    pub duplicates: f64,
    /// Frames delayed by up to 20 ms, so that later frames overtake them.
    pub reorder: f64,
}

/// The link, with the thread that forwards frames.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    forwarder: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

struct State {
    taps: [Tap; 2],
    impairment: Impairment,
    packet_log: PacketLog,
    /// Delayed frames with their time of delivery; true: a copy of a delivered frame.
    waiting: Vec<(Instant, LoggedFrame, bool, Vec<u8>)>,
    /// Frames sent since the link was paused, in order. `None` while it forwards.
    paused: Option<VecDeque<(LoggedFrame, Vec<u8>)>>,
    last_frame: Instant,
    capture: Capture,
}

impl Wire {
    /// Starts forwarding and writes the capture to `capture`.
    pub(crate) fn start(taps: [Tap; 2], impairment: Impairment, capture: &Path) -> io::Result<Wire> {
        let state = State {
            taps,
            impairment,
            packet_log: PacketLog::default(),
            waiting: Vec::new(),
            paused: None,
            last_frame: Instant::now(),
            capture: Capture::create(capture)?,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false) });
        let forwarder = std::thread::Builder::new().name("wire".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.forward()
        })?;
        Ok(Wire { shared, forwarder: Some(forwarder) })
    }

    /// Delivers no TCP frame until [`Wire::resume`]. Frames that the hosts send are kept.
    pub(crate) fn pause(&self) {
        self.shared.state().paused.get_or_insert_default();
    }

    /// Delivers the kept frames and forwards again.
    pub(crate) fn resume(&self) {
        let mut state = self.shared.state();
        for (logged, frame) in state.paused.take().unwrap_or_default() {
            state.impair(logged, frame);
        }
    }

    /// Time since the last TCP frame was sent or delivered.
    pub(crate) fn idle_time(&self) -> Duration {
        let state = self.shared.state();
        if state.waiting.is_empty() { state.last_frame.elapsed() } else { Duration::ZERO }
    }

    /// Reads the packet log.
    pub(crate) fn with_log<T>(&self, read: impl FnOnce(&PacketLog) -> T) -> T {
        read(&self.shared.state().packet_log)
    }

    /// Writes the capture's buffer to its file.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.shared.state().capture.0.flush()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(forwarder) = self.forwarder.take() {
            let _ = forwarder.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self) {
        let taps = self.state().taps.each_ref().map(|tap| tap.as_fd().try_clone_to_owned());
        let [Ok(client), Ok(server)] = taps else { return };
        let mut buffer = vec![0; MAX_FRAME];
        while !self.stop.load(Ordering::Relaxed) {
            let mut ready = [
                PollFd::new(client.as_fd(), PollFlags::POLLIN),
                PollFd::new(server.as_fd(), PollFlags::POLLIN),
            ];
            let pause = self.state().next_delivery();
            let _ = poll(&mut ready, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
            let mut state = self.state();
            state.deliver_due();
            for side in [Role::Client, Role::Server] {
                for _ in 0..BATCH {
                    match state.taps[side as usize].receive(&mut buffer) {
                        Ok(Some(length)) => state.accept(side, &buffer[..length]),
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }
    }
}

impl State {
    /// Accepts a frame that a host has sent.
    fn accept(&mut self, sender: Role, frame: &[u8]) {
        let Ok(packet) = parse(frame, FirstHeader::Ethernet, None) else {
            // Not TCP: neighbour discovery and the like.
            let _ = self.taps[sender.peer() as usize].send(frame);
            return;
        };
        self.last_frame = Instant::now();
        if sender == Role::Server {
            self.capture.write(frame);
        }
        let logged = self.packet_log.sent(sender, &packet);
        match &mut self.paused {
            Some(kept) => kept.push_back((logged, frame.to_vec())),
            None => self.impair(logged, frame.to_vec()),
        }
    }

    /// Drops, duplicates, delays or delivers a frame, as the impairment decides.
    fn impair(&mut self, logged: LoggedFrame, frame: Vec<u8>) {
        let mut hasher = DefaultHasher::new();
        (self.impairment.seed, logged.key, logged.sender as usize, logged.number).hash(&mut hasher);
        let mut rng = fastrand::Rng::with_seed(hasher.finish());
        let mut happens = |percent: f64| rng.f64() * 100.0 < percent;
        let (lost, doubled, delayed) = (
            happens(self.impairment.loss),
            happens(self.impairment.duplicates),
            happens(self.impairment.reorder),
        );
        let later = Instant::now() + MAX_DELAY.mul_f64(rng.f64());
        if lost {
            self.packet_log.lost(&logged);
            return;
        }
        self.packet_log.impaired(&logged, doubled, delayed);
        // The first of two copies may be late too.
        if doubled || delayed {
            self.waiting.push((later, logged, !delayed, frame.clone()));
        }
        if !delayed {
            self.deliver(&logged, false, &frame);
        } else if doubled {
            self.waiting.push((later + MAX_DELAY / 4, logged, true, frame));
        }
    }

    fn deliver_due(&mut self) {
        if self.paused.is_some() {
            return;
        }
        let now = Instant::now();
        let mut due: Vec<_> = self.waiting.extract_if(.., |(at, ..)| *at <= now).collect();
        due.sort_by_key(|(at, ..)| *at);
        for (_, logged, copy, frame) in due {
            self.deliver(&logged, copy, &frame);
        }
    }

    fn deliver(&mut self, logged: &LoggedFrame, copy: bool, frame: &[u8]) {
        let receiver = logged.sender.peer();
        if receiver == Role::Server {
            self.capture.write(frame);
        }
        self.last_frame = Instant::now();
        // A frame that the host does not accept counts as lost.
        match self.taps[receiver as usize].send(frame) {
            _ if copy => self.packet_log.copy_arrived(logged),
            Ok(()) => self.packet_log.arrived(logged),
            Err(_) => self.packet_log.lost(logged),
        }
    }

    fn next_delivery(&self) -> Duration {
        let next = if self.paused.is_some() { None } else { self.waiting.iter().map(|(at, ..)| *at).min() };
        next.map_or(MAX_POLL, |at| at.saturating_duration_since(Instant::now()).min(MAX_POLL))
    }
}

/// A classic pcap file with nanosecond timestamps, headers only.
struct Capture(BufWriter<File>);

impl Capture {
    fn create(path: &Path) -> io::Result<Capture> {
        const NANOSECONDS: u32 = 0xa1b2_3c4d;
        const ETHERNET: u32 = 1;
        let mut file = BufWriter::new(File::create(path)?);
        for word in [NANOSECONDS, 2 | 4 << 16, 0, 0, SNAP_LEN as u32, ETHERNET] {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(Capture(file))
    }

    fn write(&mut self, frame: &[u8]) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = frame.len().min(SNAP_LEN);
        let words = [at.as_secs() as u32, at.subsec_nanos(), kept as u32, frame.len() as u32];
        let header: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        // A full disk spoils the capture, not the storm.
        let _ = self.0.write_all(&header).and_then(|()| self.0.write_all(&frame[..kept]));
    }
}

/// The longest delay of a frame: long compared with a round trip (below 1 ms), short compared with a
/// retransmission timer.
const MAX_DELAY: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(20);
const MAX_FRAME: usize = 2048;
const BATCH: usize = 64;
/// All headers with all options.
const SNAP_LEN: usize = 128;
