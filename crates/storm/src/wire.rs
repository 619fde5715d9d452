//! The link between the two hosts: it forwards every frame, drops, duplicates and delays some, and can be
//! paused.
//!
//! What a world has between the hosts besides the link is at the server host: a router, or a network tap. So it
//! has each segment when the server host has it, and the link impairs what passes between it and the client
//! host.
//!
//! The impairment of a frame depends only on the seed, the flow and the number of the frame in it. The link
//! keeps a [`PacketLog`], so that a difference can be explained by the segment that was missing. A capture
//! holds all frames as the server's interface sent and received them.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use finwait::lab::Role;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tcp_common::wire::{FirstHeader, parse};

use crate::capture::Capture;
use crate::network::Middle;
use crate::packet_log::{LoggedFrame, PacketLog};
use crate::port::{Cable, Port};

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
    ports: [Port; 2],
    middle: Middle,
    impairment: Impairment,
    packet_log: PacketLog,
    /// Delayed datagrams with their time of delivery; true: a copy of a delivered one.
    waiting: Vec<(Instant, Datagram, bool)>,
    /// Datagrams sent since the link was paused, in order. `None` while it forwards.
    paused: Option<VecDeque<Datagram>>,
    last_frame: Instant,
    /// TCP frames sent over each cable.
    cables: [u64; 2],
    /// Frames that carried a part of a datagram that the router had divided.
    fragments: u64,
    capture: Capture,
}

/// A datagram on the link: one frame, or the fragments that the router has made of it.
#[derive(Clone)]
struct Datagram {
    logged: LoggedFrame,
    cable: Cable,
    frames: Vec<Vec<u8>>,
}

impl Wire {
    /// Starts forwarding between the hosts and writes the capture to `capture`.
    pub(crate) fn start(
        ports: [Port; 2],
        middle: Middle,
        impairment: Impairment,
        capture: &Path,
    ) -> io::Result<Wire> {
        let state = State {
            ports,
            middle,
            impairment,
            packet_log: PacketLog::default(),
            waiting: Vec::new(),
            paused: None,
            last_frame: Instant::now(),
            cables: [0; 2],
            fragments: 0,
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
        for datagram in state.paused.take().unwrap_or_default() {
            state.impair(datagram);
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

    /// The TCP frames sent over each cable, and the fragments that the router has made.
    pub(crate) fn traffic(&self) -> ([u64; 2], u64) {
        let state = self.shared.state();
        (state.cables, state.fragments)
    }

    /// Writes the capture's buffer to its file.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.shared.state().capture.flush()
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
        let Ok(files) = self.state().files() else { return };
        let mut buffer = vec![0; MAX_FRAME];
        while !self.stop.load(Ordering::Relaxed) {
            let mut ready: Vec<_> =
                files.iter().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
            let pause = self.state().next_delivery();
            let _ = poll(&mut ready, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
            let mut state = self.state();
            state.deliver_due();
            for side in [Role::Client, Role::Server] {
                for _ in 0..BATCH {
                    match state.ports[side as usize].receive(&mut buffer) {
                        Ok(Some((cable, length))) => state.accept(side, cable, &buffer[..length]),
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }
    }
}

impl State {
    fn files(&self) -> io::Result<Vec<OwnedFd>> {
        self.ports.iter().flat_map(Port::files).map(|file| file.try_clone_to_owned()).collect()
    }

    /// Accepts a frame that a host has sent.
    fn accept(&mut self, sender: Role, cable: Cable, frame: &[u8]) {
        let Ok(packet) = parse(frame, FirstHeader::Ethernet, None) else {
            // Not TCP: neighbour discovery and the like. Behind a router every neighbour is known.
            if !matches!(self.middle, Middle::Router(_)) {
                let _ = self.ports[sender.peer() as usize].send(cable, frame);
            }
            return;
        };
        self.last_frame = Instant::now();
        self.cables[cable] += 1;
        let logged = self.packet_log.sent(sender, &packet);
        let mut datagram = Datagram { logged, cable, frames: vec![frame.to_vec()] };
        if sender == Role::Server {
            self.capture.write(frame);
            self.pass_middle(&mut datagram, false);
        }
        if datagram.frames.is_empty() {
            self.packet_log.lost(&logged);
            return;
        }
        match &mut self.paused {
            Some(kept) => kept.push_back(datagram),
            None => self.impair(datagram),
        }
    }

    /// Passes a datagram through what lies between the link and the server host. `again`: it is a copy that
    /// the link has made.
    fn pass_middle(&mut self, datagram: &mut Datagram, again: bool) {
        match &mut self.middle {
            Middle::Nothing => {}
            Middle::Router(router) => {
                let sender = datagram.logged.sender;
                let passed =
                    datagram.frames.iter().map(|frame| router.pass(sender, frame).unwrap_or_default());
                datagram.frames = passed.flatten().collect();
                if datagram.frames.len() > 1 {
                    self.fragments += datagram.frames.len() as u64;
                }
            }
            Middle::Tap(tap) => {
                for frame in &datagram.frames {
                    let shown = tap.show(&datagram.logged, again, frame).unwrap_or(false);
                    self.packet_log.tapped(&datagram.logged, shown);
                }
            }
        }
    }

    /// Drops, duplicates, delays or delivers a datagram, as the impairment decides.
    fn impair(&mut self, datagram: Datagram) {
        let logged = datagram.logged;
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
            self.waiting.push((later, datagram.clone(), !delayed));
        }
        if !delayed {
            self.deliver(datagram, false);
        } else if doubled {
            self.waiting.push((later + MAX_DELAY / 4, datagram, true));
        }
    }

    fn deliver_due(&mut self) {
        if self.paused.is_some() {
            return;
        }
        let now = Instant::now();
        let mut due: Vec<_> = self.waiting.extract_if(.., |(at, ..)| *at <= now).collect();
        due.sort_by_key(|(at, ..)| *at);
        for (_, datagram, copy) in due {
            self.deliver(datagram, copy);
        }
    }

    fn deliver(&mut self, mut datagram: Datagram, copy: bool) {
        let receiver = datagram.logged.sender.peer();
        if receiver == Role::Server {
            self.pass_middle(&mut datagram, copy);
            datagram.frames.iter().for_each(|frame| self.capture.write(frame));
        }
        self.last_frame = Instant::now();
        let Datagram { logged, cable, frames } = datagram;
        let port = &self.ports[receiver as usize];
        let arrives = !frames.is_empty() && frames.iter().all(|frame| port.send(cable, frame).is_ok());
        // A frame that the host does not accept counts as lost.
        match arrives {
            _ if copy => self.packet_log.copy_arrived(&logged),
            true => self.packet_log.arrived(&logged),
            false => self.packet_log.lost(&logged),
        }
    }

    fn next_delivery(&self) -> Duration {
        let next = if self.paused.is_some() { None } else { self.waiting.iter().map(|(at, ..)| *at).min() };
        next.map_or(MAX_POLL, |at| at.saturating_duration_since(Instant::now()).min(MAX_POLL))
    }
}

/// The longest delay of a frame: long compared with a round trip (below 1 ms), short compared with a
/// retransmission timer.
const MAX_DELAY: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(20);
pub(crate) const MAX_FRAME: usize = 2048;
const BATCH: usize = 64;
