//! The cable between the two hosts: carries every frame, loses, doubles and delays some, and can be stopped.
//!
//! What befalls a frame depends on the seed, its flow and its number in the flow only. What the cable has done is kept
//! ([`PacketLog`]), so that a difference can be explained by the very segment that was missing. All frames as the server's
//! interface sent and received them are written to a capture.

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

use finwait::lab::{Side, Tap};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tcp_common::wire::{Link, parse};

use crate::packet_log::{LoggedFrame, PacketLog};

/// How bad the cable is: chances in percent, for each TCP frame.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// Decides, together with the flow.
    pub seed: u64,
    /// Lost.
    pub loss: f64,
    /// Delivered twice.
    pub duplicates: f64,
    /// Delayed by up to 20 ms, so that later ones overtake it.
    pub reorder: f64,
}

/// The cable, with a thread that carries.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    carrier: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

struct State {
    taps: [Tap; 2],
    impairment: Impairment,
    packet_log: PacketLog,
    /// Frames that wait, each until its time; true: a copy of one that came before.
    waiting: Vec<(Instant, LoggedFrame, bool, Vec<u8>)>,
    /// What hosts have sent since the cable was stopped, in order; `None` while it carries.
    stopped: Option<VecDeque<(LoggedFrame, Vec<u8>)>>,
    last_frame: Instant,
    capture: Capture,
}

impl Wire {
    /// Begins to carry. The capture is written to `capture`.
    pub(crate) fn start(taps: [Tap; 2], impairment: Impairment, capture: &Path) -> io::Result<Wire> {
        let state = State {
            taps,
            impairment,
            packet_log: PacketLog::default(),
            waiting: Vec::new(),
            stopped: None,
            last_frame: Instant::now(),
            capture: Capture::create(capture)?,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false) });
        let carrier = std::thread::Builder::new().name("wire".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.carry()
        })?;
        Ok(Wire { shared, carrier: Some(carrier) })
    }

    /// From now on no TCP frame is delivered. What hosts go on sending is taken and kept.
    pub(crate) fn stop(&self) {
        self.shared.state().stopped.get_or_insert_default();
    }

    /// Delivers what was kept, and everything after it.
    pub(crate) fn resume(&self) {
        let mut state = self.shared.state();
        for (frame_entry, frame) in state.stopped.take().unwrap_or_default() {
            state.carry(frame_entry, frame);
        }
    }

    /// How long no TCP frame has been sent or delivered.
    pub(crate) fn idle_time(&self) -> Duration {
        let state = self.shared.state();
        if state.waiting.is_empty() { state.last_frame.elapsed() } else { Duration::ZERO }
    }

    /// Looks at what the cable knows.
    pub(crate) fn with_log<T>(&self, read: impl FnOnce(&PacketLog) -> T) -> T {
        read(&self.shared.state().packet_log)
    }

    /// Writes out what is in the capture's buffer.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.shared.state().capture.0.flush()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(&self) {
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
            for side in [Side::Client, Side::Server] {
                for _ in 0..BATCH {
                    match state.taps[side as usize].receive(&mut buffer) {
                        Ok(Some(length)) => state.take(side, &buffer[..length]),
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }
    }
}

impl State {
    /// Takes a frame that a host has sent.
    fn take(&mut self, sender: Side, frame: &[u8]) {
        let Ok(packet) = parse(frame, Link::Ethernet, None) else {
            // Neighbour discovery and the like.
            let _ = self.taps[sender.peer() as usize].send(frame);
            return;
        };
        self.last_frame = Instant::now();
        if sender == Side::Server {
            self.capture.write(frame);
        }
        let frame_entry = self.packet_log.sent(sender, &packet);
        match &mut self.stopped {
            Some(kept) => kept.push_back((frame_entry, frame.to_vec())),
            None => self.carry(frame_entry, frame.to_vec()),
        }
    }

    /// Lets the impairment have its way with a frame.
    fn carry(&mut self, frame_entry: LoggedFrame, frame: Vec<u8>) {
        let mut hasher = DefaultHasher::new();
        (self.impairment.seed, frame_entry.key, frame_entry.sender as usize, frame_entry.number)
            .hash(&mut hasher);
        let mut rng = fastrand::Rng::with_seed(hasher.finish());
        let mut falls = |percent: f64| rng.f64() * 100.0 < percent;
        let (lost, doubled, delayed) =
            (falls(self.impairment.loss), falls(self.impairment.duplicates), falls(self.impairment.reorder));
        let later = Instant::now() + MAX_DELAY.mul_f64(rng.f64());
        if lost {
            self.packet_log.lost(&frame_entry);
            return;
        }
        self.packet_log.impaired(&frame_entry, doubled, delayed);
        // Of two copies the first may be late too.
        if doubled || delayed {
            self.waiting.push((later, frame_entry, !delayed, frame.clone()));
        }
        if !delayed {
            self.deliver(&frame_entry, false, &frame);
        } else if doubled {
            self.waiting.push((later + MAX_DELAY / 4, frame_entry, true, frame));
        }
    }

    fn deliver_due(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let now = Instant::now();
        let mut due: Vec<_> = self.waiting.extract_if(.., |(at, ..)| *at <= now).collect();
        due.sort_by_key(|(at, ..)| *at);
        for (_, frame_entry, copy, frame) in due {
            self.deliver(&frame_entry, copy, &frame);
        }
    }

    fn deliver(&mut self, frame_entry: &LoggedFrame, copy: bool, frame: &[u8]) {
        let receiver = frame_entry.sender.peer();
        if receiver == Side::Server {
            self.capture.write(frame);
        }
        self.last_frame = Instant::now();
        // A host that does not take a frame has lost it, which it may.
        match self.taps[receiver as usize].send(frame) {
            _ if copy => self.packet_log.copy_arrived(frame_entry),
            Ok(()) => self.packet_log.arrived(frame_entry),
            Err(_) => self.packet_log.lost(frame_entry),
        }
    }

    fn next_delivery(&self) -> Duration {
        let next = if self.stopped.is_some() { None } else { self.waiting.iter().map(|(at, ..)| *at).min() };
        next.map_or(MAX_POLL, |at| at.saturating_duration_since(Instant::now()).min(MAX_POLL))
    }
}

/// A classic pcap file with nanoseconds, headers only.
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

/// The longest that a frame is held back: long beside a round trip (below 1 ms), short beside a retransmission timer.
const MAX_DELAY: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(20);
const MAX_FRAME: usize = 2048;
const BATCH: usize = 64;
/// All headers with all options.
const SNAP_LEN: usize = 128;
