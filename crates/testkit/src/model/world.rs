//! The network between two endpoints: it loses, duplicates and reorders. The tap is on the host of end A.

use tcp_common::{End, Flags, Segment, State};

use super::{Endpoint, Script};

/// A segment as the tap saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When the tap saw it, ns.
    pub at_ns: u64,
    /// The end that sent it.
    pub sender: End,
    /// The segment itself.
    pub segment: Segment,
}

/// Both endpoints and the segments in flight.
pub struct World {
    /// The clock, ns.
    pub now_ns: u64,
    /// Both endpoints, A first.
    pub ends: [Endpoint; 2],
    /// Whether a RST was lost in the network, which the tap cannot see.
    pub lost_reset: bool,
    /// Whether something happened that the observer does not follow: A held more than two separate
    /// blocks (R10), or a listening end answered a SYN of an earlier incarnation (R16).
    pub beyond: bool,
    in_flight: [Vec<Segment>; 2],
    seen: Vec<Seen>,
}

impl World {
    /// Two endpoints without a connection; the script chooses who listens and the ISNs.
    pub fn new(script: &mut Script) -> World {
        let isn = |script: &mut Script| match script.below(4) {
            0 => 1_000,
            1 => u32::MAX - script.below(300) as u32,
            2 => (1 << 31) - script.below(300) as u32,
            _ => script.number(),
        };
        let listens = [script.below(2) == 1, script.below(4) != 3];
        let (a, b) = (isn(script), isn(script));
        World {
            now_ns: START_NS,
            ends: [Endpoint::new(a, listens[0]), Endpoint::new(b, listens[1])],
            lost_reset: false,
            beyond: false,
            in_flight: [Vec::new(), Vec::new()],
            seen: Vec::new(),
        }
    }

    /// Makes one thing happen. Returns the segments that the tap saw, immediate answers included.
    pub fn step(&mut self, script: &mut Script) -> Vec<Seen> {
        self.now_ns += 1_000_000;
        let end = if script.below(2) == 0 { End::A } else { End::B };
        let mut out = Vec::new();
        let own = &mut self.ends[end as usize];
        match script.below(24) {
            0..=8 => self.deliver(end, script),
            9 => self.lose(end, script),
            10 => self.repeat(end, script),
            11..=13 => own.write(LENGTHS[script.below(LENGTHS.len())], &mut out),
            14 | 15 => own.shut_down(LENGTHS[script.below(LENGTHS.len())], &mut out),
            16 => own.close(LENGTHS[script.below(LENGTHS.len())], &mut out),
            17 | 18 => own.acknowledge(&mut out),
            19 | 20 => own.retransmit(LENGTHS[script.below(LENGTHS.len())], &mut out),
            21 => self.open(end, script, &mut out),
            22 => own.probe(script.below(2) as u32, &mut out),
            _ => self.rare(end, script, &mut out),
        }
        self.send(end, out);
        std::mem::take(&mut self.seen)
    }

    /// Opens actively. A listening end never does; without any listener each end opens once, because
    /// the tap could not see which SYN met which incarnation.
    fn open(&mut self, end: End, script: &mut Script, out: &mut Vec<Segment>) {
        let peer = &self.ends[end.peer() as usize];
        let own = &self.ends[end as usize];
        if !own.listens && (peer.listens || own.is_fresh) {
            self.ends[end as usize].open(70_000 + script.below(1 << 16) as u32, out);
        }
    }

    fn rare(&mut self, end: End, script: &mut Script, out: &mut Vec<Segment>) {
        match script.below(4) {
            0 | 1 => self.ends[end as usize].abort(out),
            // Only B: the tap cannot see what happens inside the host of A without a segment.
            2 => self.ends[1].crash(),
            _ => self.let_two_msl_pass(),
        }
    }

    /// Lets more than 2MSL pass; segments in flight are lost.
    pub fn let_two_msl_pass(&mut self) {
        self.lose_everything();
        self.now_ns += 2 * MSL_NS + 1_000_000_000;
        for end in &mut self.ends {
            end.tick(self.now_ns, 2 * MSL_NS);
        }
    }

    /// Delivers everything without faults until neither end has anything left to send. Then each end
    /// that holds a connection sends a probe. Calls `see` with the segments that the tap saw. Returns
    /// whether both ends came to rest.
    pub fn come_to_rest(&mut self, mut see: impl FnMut(&World, Vec<Seen>)) -> bool {
        for round in 0..40 {
            self.now_ns += 1_000_000;
            // Two ends that disagree would answer each other forever; hosts limit the rate of such ACKs.
            for _ in 0..100 {
                let Some(end) = [End::A, End::B].into_iter().find(|&end| !self.towards(end).is_empty())
                else {
                    break;
                };
                self.arrive(end, 0);
                let seen = std::mem::take(&mut self.seen);
                see(self, seen);
            }
            self.lose_everything();
            for end in [End::A, End::B] {
                let mut out = Vec::new();
                self.ends[end as usize].acknowledge(&mut out);
                self.ends[end as usize].retransmit(65_000, &mut out);
                if round >= 20 && round % 2 == 0 {
                    self.ends[end as usize].probe(0, &mut out);
                }
                self.send(end, out);
                let seen = std::mem::take(&mut self.seen);
                see(self, seen);
            }
        }
        !self.ends.iter().any(Endpoint::is_busy)
    }

    /// The state of one end.
    pub fn state(&self, end: End) -> State {
        self.ends[end as usize].state
    }

    fn deliver(&mut self, to: End, script: &mut Script) {
        let count = self.towards(to).len();
        if count > 0 {
            let index = if script.one_in(4) { script.below(count) } else { 0 };
            self.arrive(to, index);
        }
    }

    fn lose(&mut self, to: End, script: &mut Script) {
        let count = self.towards(to).len();
        if count > 0 {
            let index = script.below(count);
            let lost = self.in_flight[to as usize].remove(index);
            self.lost_reset |= lost.flags.has(Flags::RST);
        }
    }

    fn repeat(&mut self, to: End, script: &mut Script) {
        let count = self.towards(to).len();
        if count > 0 {
            let copy = self.in_flight[to as usize][script.below(count)];
            self.in_flight[to as usize].push(copy);
        }
    }

    /// Loses every segment in flight.
    pub fn lose_everything(&mut self) {
        for lost in self.in_flight.iter_mut().flat_map(|way| way.drain(..)) {
            self.lost_reset |= lost.flags.has(Flags::RST);
        }
    }

    fn arrive(&mut self, to: End, index: usize) {
        let segment = self.in_flight[to as usize].remove(index);
        if to == End::A {
            self.seen.push(Seen { at_ns: self.now_ns, sender: End::B, segment });
        }
        let mut out = Vec::new();
        let begins = self.state(to) == State::Listen;
        self.ends[to as usize].receive(&segment, self.now_ns, &mut out);
        let old_syn = begins
            && self.state(to) == State::SynReceived
            && !self.ends[to.peer() as usize].opens_with(segment.seq);
        self.beyond |= old_syn || self.ends[0].blocks_held() > 2;
        self.send(to, out);
    }

    fn send(&mut self, from: End, segments: Vec<Segment>) {
        for segment in segments {
            if from == End::A {
                self.seen.push(Seen { at_ns: self.now_ns, sender: End::A, segment });
            }
            self.in_flight[from.peer() as usize].push(segment);
        }
    }

    fn towards(&self, end: End) -> &[Segment] {
        &self.in_flight[end as usize]
    }
}

const LENGTHS: [u32; 6] = [0, 1, 100, 536, 1_460, 4_000];
/// Maximum segment lifetime, ns; TIME-WAIT lasts twice as long.
const MSL_NS: u64 = 30_000_000_000;
const START_NS: u64 = 3_600_000_000_000;
