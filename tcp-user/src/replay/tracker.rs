//! The flows of a capture: frames in, [`Output`]s out. No file, no clock, no terminal.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use jiff::Timestamp;
use tcp_common::TableKey as _;
use tcp_common::record::Sighting;
use tcp_common::wire::{self, Captured, Content, Packet};
use tcp_common::{Cause, FlowKey, Ignored, Previous, Rules, SegmentKind};

use super::checksum::{self, Checksum};
use super::datagrams::Datagrams;
use super::deadlines::Deadlines;
use super::decap::Inner;
use super::domains::Domains;
use super::link::{self, Bare, LinkType};
use super::machine::{InKernel, Machine};
use super::mirror::RecentPackets;
use super::outbox::{Outbox, Output, Selection, wall};
use super::statistics::Statistics;
use super::tracked_flow::TrackedFlow;
use super::warning::{Warning, WarningCounts};
use super::zeek::SeenSegment;
use crate::kernel::KernelError;
use crate::options::KeyBy;
use crate::view::describe::client_end;

/// One frame of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The bytes that were captured.
    pub bytes: &'a [u8],
    /// Length on the wire, in bytes.
    pub wire_len: usize,
    /// Link type; `None` if finwait does not read it.
    pub link: Option<LinkType>,
    /// Time of capture, ns since the epoch; `None` for that of the frame before.
    pub at_ns: Option<u64>,
    /// Name of the interface, if the capture has it.
    pub interface: Option<&'a Arc<str>>,
    /// Number of the capture point, from 1: the same for an interface in every section of the capture.
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

/// Tracks the flows of a capture. The clock is the capture's: every frame advances it. A timer that expires
/// on the way is reported at its own time, before the frame. Memory is bounded by the flows alive within
/// the limits of the rules.
pub struct Replay {
    now_ns: u64,
    machine: Machine,
    flows: HashMap<FlowKey, TrackedFlow>,
    deadlines: Deadlines,
    outbox: Outbox,
    statistics: Statistics,
    tickets: u64,
    /// Numbers of the capture points: interface, and point within the host.
    points: HashMap<(u32, u64), u32>,
    verify_checksums: bool,
    decap: bool,
    domains: Domains,
    recent: RecentPackets,
    datagrams: Datagrams,
    warnings: WarningCounts,
    /// The flows still tracked at the end of the capture, in the order of opening.
    remaining: std::vec::IntoIter<FlowKey>,
    finished: bool,
}

impl Replay {
    /// A replay without flows.
    pub fn new(rules: Rules, selection: Selection) -> Replay {
        Replay {
            // 0 is "never" in a flow.
            now_ns: 1,
            machine: Machine::Pure,
            flows: HashMap::new(),
            deadlines: Deadlines::default(),
            outbox: Outbox::new(rules, selection),
            statistics: Statistics::default(),
            tickets: 0,
            points: HashMap::new(),
            verify_checksums: false,
            decap: true,
            domains: Domains::default(),
            recent: RecentPackets::default(),
            datagrams: Datagrams::default(),
            warnings: WarningCounts::default(),
            remaining: Vec::new().into_iter(),
            finished: false,
        }
    }

    /// Sets whether segments with a bad TCP checksum are dropped, as their receiver does. They are counted
    /// in any case.
    pub fn verify_checksums(mut self, verify: bool) -> Replay {
        self.verify_checksums = verify;
        self
    }

    /// Sets whether the segments inside tunnels are tracked, which is the default.
    pub fn decap(mut self, decap: bool) -> Replay {
        self.decap = decap;
        self
    }

    /// Sets what distinguishes connections.
    pub fn key(mut self, key: KeyBy) -> Replay {
        self.domains = Domains::by(key);
        self
    }

    /// Makes the kernel programs track the flows, in their own table.
    ///
    /// # Errors
    ///
    /// If the programs' table or settings cannot be set up.
    pub fn in_kernel(mut self, mut kernel: InKernel) -> Result<Replay, KernelError> {
        kernel.begin(self.outbox.rules)?;
        self.machine = Machine::Kernel(Box::new(kernel));
        Ok(self)
    }

    /// Returns the kernel programs, if they tracked the flows.
    pub fn into_kernel(self) -> Option<InKernel> {
        match self.machine {
            Machine::Pure => None,
            Machine::Kernel(kernel) => Some(*kernel),
        }
    }

    /// Number of segments that the kernel programs have given to a flow; `None` if they do not track the
    /// flows.
    ///
    /// # Errors
    ///
    /// If the programs could not be run on a frame.
    pub fn kernel_tracked(&mut self) -> Result<Option<u64>, KernelError> {
        match &mut self.machine {
            Machine::Pure => Ok(None),
            Machine::Kernel(kernel) => match kernel.take_fault() {
                Some(fault) => Err(fault),
                None => kernel.tracked().map(Some),
            },
        }
    }

    /// Counts a warning, and adds the first ones of each kind to the records.
    pub(super) fn warn(&mut self, warning: Warning) {
        if let Warning::Outlier { .. } | Warning::Fraction { .. } = warning {
            self.statistics.impossible_times += 1;
        }
        if self.warnings.admit(&warning) {
            self.outbox.outputs.push_back(Output::Warning(warning));
        }
    }

    /// Processes the next frame.
    pub fn push(&mut self, frame: &Frame<'_>) {
        self.statistics.frames += 1;
        self.advance(frame.at_ns);
        let mut frames = 1;
        match self.track(frame, &mut frames) {
            Ok(()) => self.statistics.tracked += frames,
            Err(Unusable::Waits) => {}
            Err(Unusable::Ignored(reason)) => self.statistics.ignored_by[reason as usize] += frames,
            Err(Unusable::ForeignLink) => self.statistics.foreign_link += frames,
            Err(Unusable::Checksum) => self.statistics.bad_checksum += frames,
        }
        self.statistics.fragments_pending = self.datagrams.len();
    }

    /// The next record, if there is one.
    pub fn poll(&mut self) -> Option<Output> {
        while self.outbox.outputs.is_empty() && self.list_remaining() {}
        self.outbox.outputs.pop_front()
    }

    /// Ends the capture: the connections that are still tracked are reported in their last state.
    pub fn finish(&mut self) {
        self.statistics.ignored_by[Ignored::Fragment as usize] += self.datagrams.clear();
        self.statistics.fragments_pending = 0;
        self.deadlines = Deadlines::default();
        let mut remaining: Vec<_> =
            self.flows.iter().map(|(key, tracked)| (tracked.flow.opened_ns(), *key)).collect();
        remaining.sort_unstable();
        self.remaining = remaining.into_iter().map(|(_, key)| key).collect::<Vec<_>>().into_iter();
        self.finished = true;
    }

    fn list_remaining(&mut self) -> bool {
        if !self.finished {
            return false;
        }
        let Some(key) = self.remaining.next() else { return self.outbox.list_first_ended(self.now_ns) };
        if let Some(tracked) = self.flows.remove(&key) {
            self.outbox.remaining(&tracked.subject(&key), self.now_ns);
        }
        true
    }

    /// Counts so far.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Number of flows in the table, including those that are over and not yet forgotten.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Time of the capture.
    pub fn now(&self) -> Timestamp {
        wall(self.now_ns)
    }

    /// Advances the clock, never backwards, and expires what is due on the way.
    fn advance(&mut self, to_ns: Option<u64>) {
        let to_ns = to_ns.unwrap_or(self.now_ns).min(END_OF_TIME_NS);
        if to_ns < self.now_ns {
            self.statistics.out_of_order += u64::from(self.statistics.frames > 1);
            return;
        }
        while let Some((due_ns, key)) = self.deadlines.pop(to_ns) {
            self.now_ns = due_ns.max(self.now_ns);
            self.expire(&key);
        }
        self.now_ns = to_ns;
    }

    /// Applies the clock to a flow that was popped from the queue, or forgets it if its quarantine is over.
    fn expire(&mut self, key: &FlowKey) {
        let Replay { now_ns, machine, flows, deadlines, outbox, .. } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let Some(tracked) = flows.get_mut(key) else { return };
        tracked.queue_handle.popped();
        let mut due_ns = tracked.flow.due_ns(&rules);
        if due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            if tracked.flow.is_over() {
                outbox.ended(&tracked.subject(key), now_ns);
                flows.remove(key);
                machine.forget(key);
                return;
            }
            let outcome = machine.tick(now_ns, key, &mut tracked.flow, &rules);
            if let Some(history) = &mut tracked.history {
                history.record_change(now_ns, &outcome, &tracked.flow);
            }
            tracked.publish(outbox, key, now_ns, &outcome);
            due_ns = tracked.flow.due_after_tick_ns(now_ns, &rules);
        }
        deadlines.at_most(&mut tracked.queue_handle, key, due_ns);
    }

    /// Applies what is in the frame to its flow. Sets `frames` to 2 if it makes a datagram whole: the first and the last
    /// fragment count with the segment.
    fn track(&mut self, frame: &Frame<'_>, frames: &mut u64) -> Result<(), Unusable> {
        let link = frame.link.ok_or(Unusable::ForeignLink)?;
        let captured = Captured { bytes: frame.bytes, wire_len: frame.wire_len };
        let (inner, mut packet, content) = link::parse(link, captured, self.decap)?;
        if content != Content::Icmp {
            packet.key.domain = self.domains.of(self.now_ns, frame, &inner.bare, &packet)?;
        }
        match content {
            Content::Segment | Content::BehindOptions => self.track_segment(frame, &inner, &packet),
            Content::Icmp => self.track_icmp(frame, &inner.bare, packet),
            Content::Fragment => {
                self.statistics.ignored_by[Ignored::Fragment as usize] += self.datagrams.expire(self.now_ns);
                let whole = self.datagrams.add(self.now_ns, &inner, &packet)?.ok_or(Unusable::Waits)?;
                self.statistics.ignored_by[Ignored::Fragment as usize] += u64::from(whole.is_by_middle);
                *frames = 2;
                let whole = whole.complete()?;
                self.track_segment(frame, &whole.inner(), &whole.packet)
            }
        }
    }

    /// Applies an ICMP message to the flow that it is about.
    fn track_icmp(&mut self, frame: &Frame<'_>, bare: &Bare<'_>, mut packet: Packet) -> Result<(), Unusable> {
        let error = wire::parse_icmp(&bare.packet, &mut packet)?;
        packet.key.domain = self.domains.of(self.now_ns, frame, bare, &packet)?;
        let Replay { now_ns, machine, flows, deadlines, outbox, statistics, .. } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let tracked = flows.get_mut(&packet.key).ok_or(Ignored::Icmp)?;
        let before = tracked.flow;
        let outcome = machine.icmp(now_ns, bare, (&packet, error), &mut tracked.flow, &rules)?;
        if outcome.previous != Previous::None {
            tracked.end_previous(before, outbox, &packet.key, now_ns, &outcome);
            statistics.connections += 1;
        }
        if let Some(history) = &mut tracked.history {
            history.record_change(now_ns, &outcome, &tracked.flow);
        }
        tracked.publish(outbox, &packet.key, now_ns, &outcome);
        let due_ns = tracked.flow.due_ns(&rules);
        deadlines.at_most(&mut tracked.queue_handle, &packet.key, due_ns);
        if outcome.cause == Cause::Nothing { Err(Ignored::Icmp.into()) } else { Ok(()) }
    }

    /// Applies a segment to its flow.
    fn track_segment(
        &mut self,
        frame: &Frame<'_>,
        &Inner { bare, tunnel }: &Inner<'_>,
        packet: &Packet,
    ) -> Result<(), Unusable> {
        let (checksum, sum) = checksum::verify(bare.packet.bytes, packet);
        let checksum_wrong = self.check(checksum);
        if checksum_wrong && self.verify_checksums {
            self.trace_ignored(packet, true);
            return Err(Unusable::Checksum);
        }
        let (key, sender, segment) = (&packet.key, packet.sender, &packet.segment);
        let kind = segment.kind();
        if key.is_self_connect() {
            return Err(Ignored::SelfConnect.into());
        }
        if kind == SegmentKind::Bad {
            self.trace_ignored(packet, false);
            return Err(Ignored::BadFlags.into());
        }
        let capture_point = (frame.point, bare.capture_point);
        let hook = self.hook(capture_point);
        let Replay {
            now_ns, machine, flows, deadlines, outbox, statistics, tickets, recent, domains, ..
        } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let tracked = match flows.entry(*key) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Any segment but a RST begins an incarnation.
            Entry::Vacant(_) if kind == SegmentKind::Rst => return Err(Ignored::NoFlow.into()),
            Entry::Vacant(entry) => {
                *tickets += 1;
                let mut tracked = TrackedFlow::new(*tickets, &outbox.selection);
                (tracked.interface, tracked.tunnel) = (frame.interface.cloned(), tunnel);
                tracked.scope = key.is_link_local().then(|| domains.link_name(key.domain).cloned()).flatten();
                entry.insert(tracked)
            }
        };
        let identifications = &mut tracked.identifications[sender as usize];
        if recent.is_copy(identifications, (&bare, packet), capture_point, sum, now_ns) {
            return Err(Ignored::Duplicate.into());
        }
        let seen = Sighting { hook, tags: packet.tags, at_ns: now_ns, sender, segment };
        let direction = &mut tracked.directions[sender as usize];
        let verdict = tracked.sightings.judge(&tracked.flow, direction, &seen);
        if let Some(reason) = verdict.ignored() {
            return Err(reason.into());
        }
        let before = tracked.flow;
        let outcome = machine.segment(now_ns, &bare, packet, &mut tracked.flow, &rules)?;
        tracked.sightings.note(direction, &seen, verdict, outcome.cause.has_effect());
        if outcome.previous != Previous::None {
            tracked.end_previous(before, outbox, key, now_ns, &outcome);
            (tracked.interface, tracked.tunnel) = (frame.interface.cloned(), tunnel);
        }
        if before.is_empty() || outcome.previous != Previous::None {
            statistics.connections += 1;
        }
        if let Some(trace) = &mut tracked.trace {
            let (after, orig) = (&tracked.flow, client_end(key, &tracked.flow));
            let (at_ns, before, cause) = (now_ns, &before, outcome.cause);
            trace.record(&SeenSegment { at_ns, sender, segment, before, after, cause, orig, checksum_wrong });
        }
        if let Some(history) = &mut tracked.history {
            history.record(now_ns, sender, segment, &outcome, &tracked.flow);
        }
        tracked.publish(outbox, key, now_ns, &outcome);
        outbox.ignored_rst(&tracked.subject(key), now_ns, sender, outcome.cause);
        let due_ns = tracked.flow.due_ns(&rules);
        deadlines.at_most(&mut tracked.queue_handle, key, due_ns);
        Ok(())
    }

    /// Returns a number for the point of capture, in the form of a hook.
    fn hook(&mut self, point: (u32, u64)) -> u32 {
        let next = self.points.len() as u32 + 1;
        *self.points.entry(point).or_insert(next)
    }

    /// Counts the verdict on a checksum. Returns whether it is wrong.
    fn check(&mut self, checksum: Checksum) -> bool {
        self.statistics.checksum_wrong += u64::from(checksum == Checksum::Wrong);
        self.statistics.checksum_offloaded += u64::from(checksum == Checksum::Offloaded);
        checksum == Checksum::Wrong
    }

    fn trace_ignored(&mut self, packet: &Packet, checksum_wrong: bool) {
        if self.outbox.selection.zeek
            && let Some(trace) = self.flows.get_mut(&packet.key).and_then(|tracked| tracked.trace.as_mut())
        {
            trace.record_ignored(packet.sender, &packet.segment, checksum_wrong);
        }
    }
}

/// Why a frame is not counted as one of a flow.
enum Unusable {
    /// A fragment that waits for the rest of its datagram: it is counted later.
    Waits,
    Ignored(Ignored),
    ForeignLink,
    Checksum,
}

impl From<Ignored> for Unusable {
    fn from(reason: Ignored) -> Unusable {
        Unusable::Ignored(reason)
    }
}

/// Latest time that is taken from a capture, so that deadlines do not overflow: the year 2262.
const END_OF_TIME_NS: u64 = i64::MAX as u64;
