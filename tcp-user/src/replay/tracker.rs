//! The flows of a capture: frames in, [`Output`]s out. No file, no clock, no terminal.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use jiff::Timestamp;
use tcp_common::TableKey as _;
use tcp_common::wire::{Captured, Packet};
use tcp_common::{End, Flow, FlowKey, Ignored, Kind, Outcome, Previous, Rules};

use super::checksum::{self, Checksum};
use super::deadlines::{Deadlines, Place};
use super::link::{self, LinkType};
use super::machine::{InKernel, Machine};
use super::outbox::{Outbox, Output, Subject, Wanted, wall};
use super::statistics::Statistics;
use super::zeek::{Seen, Trace};
use crate::kernel::KernelError;
use crate::view::describe::client_end;

/// One frame of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub wire_len: usize,
    /// What it begins with; `None` if that cannot be read.
    pub link: Option<LinkType>,
    /// When, in ns since the epoch; `None`: when the frame before it was.
    pub at_ns: Option<u64>,
    /// Name of the interface, if the capture says it.
    pub interface: Option<&'a Arc<str>>,
    /// Number of the interface in the capture.
    pub point: u32,
}

impl<'a> Frame<'a> {
    /// A whole frame of a capture with one interface.
    pub fn new(bytes: &'a [u8], link: LinkType, at_ns: u64) -> Frame<'a> {
        Frame {
            bytes,
            wire_len: bytes.len(),
            link: Some(link),
            at_ns: Some(at_ns),
            interface: None,
            point: 1,
        }
    }
}

/// Follows the flows of a capture. Time is the capture's: any frame moves it, and what time ends is told at its own
/// time and in order, before the frame. Memory is bounded by the flows alive within the limits of the rules.
pub struct Replay {
    now_ns: u64,
    machine: Machine,
    flows: HashMap<FlowKey, Followed>,
    deadlines: Deadlines,
    outbox: Outbox,
    statistics: Statistics,
    tickets: u64,
    verify_checksums: bool,
    /// The flows that are left at the end of the capture, in the order of opening.
    remaining: std::vec::IntoIter<FlowKey>,
    finished: bool,
}

/// A flow in the table.
struct Followed {
    flow: Flow,
    place: Place,
    interface: Option<Arc<str>>,
    /// Where each end's segments are seen.
    points: [Point; 2],
    /// If Zeek's words are wanted.
    trace: Option<Box<Trace>>,
}

/// The observation point that a direction belongs to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Point {
    place: (u32, u64),
    at_ns: u64,
}

impl Replay {
    /// Nothing followed yet.
    pub fn new(rules: Rules, wanted: Wanted) -> Replay {
        Replay {
            // 0 is "never" in a flow.
            now_ns: 1,
            machine: Machine::Pure,
            flows: HashMap::new(),
            deadlines: Deadlines::default(),
            outbox: Outbox::new(rules, wanted),
            statistics: Statistics::default(),
            tickets: 0,
            verify_checksums: false,
            remaining: Vec::new().into_iter(),
            finished: false,
        }
    }

    /// Whether segments whose TCP checksum is wrong are dropped, as their receiver does it. They are counted in any case.
    pub fn verify_checksums(mut self, verify: bool) -> Replay {
        self.verify_checksums = verify;
        self
    }

    /// Lets the kernel programs follow the flows, in their own table.
    pub fn in_kernel(mut self, mut kernel: InKernel) -> Result<Replay, KernelError> {
        kernel.begin(self.outbox.rules)?;
        self.machine = Machine::Kernel(Box::new(kernel));
        Ok(self)
    }

    /// Gives the kernel programs back.
    pub fn into_kernel(self) -> Option<InKernel> {
        match self.machine {
            Machine::Pure => None,
            Machine::Kernel(kernel) => Some(*kernel),
        }
    }

    /// What kept the kernel programs from being run; `Ok` with how many segments they have given to a flow, `None` where
    /// they do not follow the flows.
    pub fn kernel_tracked(&mut self) -> Result<Option<u64>, KernelError> {
        match &mut self.machine {
            Machine::Pure => Ok(None),
            Machine::Kernel(kernel) => match kernel.take_fault() {
                Some(fault) => Err(fault),
                None => kernel.tracked().map(Some),
            },
        }
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: &Frame<'_>) {
        self.statistics.frames += 1;
        self.advance(frame.at_ns);
        match self.follow(frame) {
            Ok(()) => self.statistics.tracked += 1,
            Err(Unused::Ignored(reason)) => self.statistics.ignored_by[reason as usize] += 1,
            Err(Unused::ForeignLink) => self.statistics.foreign_link += 1,
            Err(Unused::Checksum) => self.statistics.bad_checksum += 1,
        }
    }

    /// The next thing to tell.
    pub fn poll(&mut self) -> Option<Output> {
        while self.outbox.outputs.is_empty() && self.tell_remaining() {}
        self.outbox.outputs.pop_front()
    }

    /// Ends the capture: tells the connections that are still followed, as they stand.
    pub fn finish(&mut self) {
        self.deadlines = Deadlines::default();
        let mut remaining: Vec<_> =
            self.flows.iter().map(|(key, followed)| (followed.flow.opened_ns(), *key)).collect();
        remaining.sort_unstable();
        self.remaining = remaining.into_iter().map(|(_, key)| key).collect::<Vec<_>>().into_iter();
        self.finished = true;
    }

    fn tell_remaining(&mut self) -> bool {
        if !self.finished {
            return false;
        }
        let Some(key) = self.remaining.next() else { return self.outbox.rest(self.now_ns) };
        if let Some(followed) = self.flows.remove(&key) {
            self.outbox.remaining(&followed.subject(&key), self.now_ns);
        }
        true
    }

    /// What was counted so far.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// How many flows are followed now, those over but not yet forgotten included.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// The capture's time.
    pub fn now(&self) -> Timestamp {
        wall(self.now_ns)
    }

    /// Moves the clock, never backwards, and lets it end what is due on the way.
    fn advance(&mut self, to_ns: Option<u64>) {
        let to_ns = to_ns.unwrap_or(self.now_ns).min(END_OF_TIME_NS);
        if to_ns < self.now_ns {
            self.statistics.out_of_order += u64::from(self.statistics.frames > 1);
            return;
        }
        while let Some((due_ns, key)) = self.deadlines.pop(to_ns) {
            self.now_ns = due_ns.max(self.now_ns);
            self.look_at(&key);
        }
        self.now_ns = to_ns;
    }

    /// Lets the clock act on a flow that came up, and forgets it if it has been over for long enough.
    fn look_at(&mut self, key: &FlowKey) {
        let Replay { now_ns, machine, flows, deadlines, outbox, .. } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let Some(followed) = flows.get_mut(key) else { return };
        followed.place.popped();
        let mut due_ns = followed.flow.due_ns(&rules);
        if due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            if followed.flow.is_over() {
                outbox.ended(&followed.subject(key), now_ns);
                flows.remove(key);
                machine.forget(key);
                return;
            }
            let outcome = machine.tick(now_ns, key, &mut followed.flow, &rules);
            tell(outbox, &followed.subject(key), now_ns, &outcome);
            due_ns = followed.flow.due_after_tick_ns(now_ns, &rules);
        }
        deadlines.at_most(&mut followed.place, key, due_ns);
    }

    /// Gives the frame's segment to its flow.
    fn follow(&mut self, frame: &Frame<'_>) -> Result<(), Unused> {
        let link = frame.link.ok_or(Unused::ForeignLink)?;
        let bare = link::strip(link, Captured { bytes: frame.bytes, wire_len: frame.wire_len })?;
        let packet = bare.parse()?;
        let checksum_wrong = self.check(checksum::verify(bare.packet.bytes, &packet));
        if checksum_wrong && self.verify_checksums {
            self.trace_ignored(&packet, true);
            return Err(Unused::Checksum);
        }
        let (key, sender, segment) = (&packet.key, packet.sender, &packet.segment);
        let kind = segment.kind();
        if key.is_self_connect() {
            return Err(Ignored::SelfConnect.into());
        }
        if kind == Kind::Bad {
            self.trace_ignored(&packet, false);
            return Err(Ignored::BadFlags.into());
        }
        let Replay { now_ns, machine, flows, deadlines, outbox, statistics, tickets, .. } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let followed = match flows.entry(*key) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Every other segment begins an incarnation.
            Entry::Vacant(_) if kind == Kind::Rst => return Err(Ignored::NoFlow.into()),
            Entry::Vacant(entry) => {
                *tickets += 1;
                entry.insert(Followed::new(*tickets, frame.interface, outbox.wanted.zeek))
            }
        };
        if !followed.claim(sender, (frame.point, bare.place), now_ns) {
            return Err(Ignored::Duplicate.into());
        }
        let before = followed.flow;
        let outcome = machine.segment(now_ns, &bare, &packet, &mut followed.flow, &rules)?;
        if outcome.previous != Previous::None {
            let trace = followed.trace.as_mut().map(std::mem::take);
            let ended = Followed { flow: before, trace, interface: followed.interface.clone(), ..*followed };
            end_previous(outbox, key, ended, now_ns, &outcome);
            followed.interface = frame.interface.cloned();
        }
        if before.is_empty() || outcome.previous != Previous::None {
            statistics.connections += 1;
        }
        if let Some(trace) = &mut followed.trace {
            let (after, orig) = (&followed.flow, client_end(key, &followed.flow));
            let (at_ns, before, cause) = (now_ns, &before, outcome.cause);
            trace.take(&Seen { at_ns, sender, segment, before, after, cause, orig, checksum_wrong });
        }
        tell(outbox, &followed.subject(key), now_ns, &outcome);
        let due_ns = followed.flow.due_ns(&rules);
        deadlines.at_most(&mut followed.place, key, due_ns);
        Ok(())
    }

    /// Counts what the checksum says. Returns whether it is wrong.
    fn check(&mut self, checksum: Checksum) -> bool {
        self.statistics.checksum_wrong += u64::from(checksum == Checksum::Wrong);
        self.statistics.checksum_offloaded += u64::from(checksum == Checksum::Offloaded);
        checksum == Checksum::Wrong
    }

    fn trace_ignored(&mut self, packet: &Packet, checksum_wrong: bool) {
        if self.outbox.wanted.zeek
            && let Some(trace) = self.flows.get_mut(&packet.key).and_then(|followed| followed.trace.as_mut())
        {
            trace.take_ignored(packet.sender, &packet.segment, checksum_wrong);
        }
    }
}

/// Why a frame was given to no flow.
enum Unused {
    Ignored(Ignored),
    ForeignLink,
    Checksum,
}

impl From<Ignored> for Unused {
    fn from(reason: Ignored) -> Unused {
        Unused::Ignored(reason)
    }
}

impl Followed {
    fn new(ticket: u64, interface: Option<&Arc<str>>, traced: bool) -> Followed {
        Followed {
            flow: Flow::EMPTY,
            place: Place::new(ticket),
            interface: interface.cloned(),
            points: [Point::default(); 2],
            trace: traced.then(Box::default),
        }
    }

    fn subject<'a>(&'a self, key: &'a FlowKey) -> Subject<'a> {
        let trace = self.trace.as_deref();
        Subject { key, flow: &self.flow, interface: self.interface.as_ref(), trace }
    }

    /// A direction belongs to the point that saw it first, until that point falls silent. Returns whether the segment
    /// counts; at another point it is a copy.
    fn claim(&mut self, sender: End, place: (u32, u64), now_ns: u64) -> bool {
        let point = &mut self.points[sender as usize];
        if point.at_ns != 0 && point.place != place && now_ns - point.at_ns < POINT_SILENCE_NS {
            return false;
        }
        *point = Point { place, at_ns: now_ns };
        true
    }
}

/// Tells what a segment or the clock did.
fn tell(outbox: &mut Outbox, subject: &Subject<'_>, now_ns: u64, outcome: &Outcome) {
    outbox.transitions(subject, now_ns, outcome.from, outcome.to, outcome.cause);
    if outcome.over {
        outbox.close(subject, now_ns);
    }
}

/// Tells the end of the incarnation that a segment replaced; its close only if that was not told before.
fn end_previous(outbox: &mut Outbox, key: &FlowKey, mut ended: Followed, now_ns: u64, outcome: &Outcome) {
    let end = ended.flow.end_previous(now_ns, outcome.previous, &outbox.rules);
    let end = Outcome { cause: outcome.cause, ..end };
    if let (Some(trace), Some(aborter)) = (&mut ended.trace, outcome.previous.aborter()) {
        trace.aborted(aborter);
    }
    let subject = ended.subject(key);
    tell(outbox, &subject, now_ns, &end);
    outbox.ended(&subject, now_ns);
}

const SECOND_NS: u64 = 1_000_000_000;
/// No stamp is taken for later, so that every deadline lies in a future that exists: the year 2262.
const END_OF_TIME_NS: u64 = i64::MAX as u64;
/// As in the kernel programs.
const POINT_SILENCE_NS: u64 = SECOND_NS;
