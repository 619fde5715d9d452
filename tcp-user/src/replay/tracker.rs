//! The flows of a capture: frames in, [`Output`]s out. No file, no clock, no terminal.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tcp_common::flow::flow_fact;
use tcp_common::wire::Captured;
use tcp_common::{End, Flow, FlowKey, Ignored, Kind, Outcome, Previous, Rules, State};

use super::deadlines::{Deadlines, Place};
use super::link::{self, LinkType};
use super::outbox::{Outbox, Output, Subject, Wanted, wall};
use super::statistics::Statistics;

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
    flows: HashMap<FlowKey, Followed>,
    deadlines: Deadlines,
    outbox: Outbox,
    statistics: Statistics,
    tickets: u64,
}

/// A flow in the table.
struct Followed {
    flow: Flow,
    place: Place,
    /// Place of its incarnation in the order of opening.
    order: u64,
    /// When its last segment came, whether it belonged or not, or when the clock changed it.
    touched_ns: u64,
    interface: Option<Arc<str>>,
    /// Where each end's segments are seen.
    points: [Point; 2],
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
            flows: HashMap::new(),
            deadlines: Deadlines::default(),
            outbox: Outbox { rules, wanted, outputs: VecDeque::new() },
            statistics: Statistics::default(),
            tickets: 0,
        }
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: &Frame<'_>) {
        self.statistics.frames += 1;
        self.advance(frame.at_ns);
        match self.follow(frame) {
            Ok(()) => self.statistics.tracked += 1,
            Err(Some(reason)) => self.statistics.ignored_by[reason as usize] += 1,
            Err(None) => self.statistics.foreign_link += 1,
        }
    }

    /// The next thing to tell.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.outputs.pop_front()
    }

    /// Ends the capture: tells the connections that are still followed, as they stand.
    pub fn finish(&mut self) {
        let mut flows: Vec<_> = self.flows.drain().collect();
        flows.sort_unstable_by_key(|(_, followed)| followed.order);
        self.deadlines = Deadlines::default();
        for (key, followed) in &flows {
            self.outbox.connection(&followed.subject(key), self.now_ns, followed.order);
        }
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
        let Replay { now_ns, flows, deadlines, outbox, .. } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let Some(followed) = flows.get_mut(key) else { return };
        followed.place.popped();
        let mut due_ns = followed.due_ns(&rules);
        if due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            if followed.flow.is_over() {
                outbox.connection(&followed.subject(key), now_ns, followed.order);
                flows.remove(key);
                return;
            }
            let outcome = followed.flow.tick(now_ns, &rules);
            followed.touched_ns = now_ns;
            tell(outbox, &followed.subject(key), now_ns, &outcome);
            due_ns = followed.due_after_tick(now_ns, &rules);
        }
        deadlines.at_most(&mut followed.place, key, due_ns);
    }

    /// Gives the frame's segment to its flow.
    fn follow(&mut self, frame: &Frame<'_>) -> Result<(), Option<Ignored>> {
        let link = frame.link.ok_or(None)?;
        let (packet, place) =
            link::parse(link, Captured { bytes: frame.bytes, wire_len: frame.wire_len }).map_err(Some)?;
        let (key, sender, segment) = (&packet.key, packet.sender, &packet.segment);
        let kind = segment.kind();
        if key.is_self_connect() {
            return Err(Some(Ignored::SelfConnect));
        }
        if kind == Kind::Bad {
            return Err(Some(Ignored::BadFlags));
        }
        let Replay { now_ns, flows, deadlines, outbox, statistics, tickets } = self;
        let (now_ns, rules) = (*now_ns, outbox.rules);
        let followed = match flows.entry(*key) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Every other segment begins an incarnation.
            Entry::Vacant(_) if kind == Kind::Rst => return Err(Some(Ignored::NoFlow)),
            Entry::Vacant(entry) => {
                *tickets += 1;
                entry.insert(Followed::new(*tickets, frame.interface))
            }
        };
        if !followed.claim(sender, (frame.point, place), now_ns) {
            return Err(Some(Ignored::Duplicate));
        }
        let before = followed.flow;
        let outcome = followed.flow.on_segment(now_ns, sender, segment, &rules);
        followed.touched_ns = now_ns;
        if outcome.previous != Previous::None {
            let ended = Followed { flow: before, interface: followed.interface.clone(), ..*followed };
            end_previous(outbox, key, ended, now_ns, &outcome);
            followed.interface = frame.interface.cloned();
        }
        if before.is_empty() || outcome.previous != Previous::None {
            statistics.connections += 1;
            followed.order = statistics.connections;
        }
        tell(outbox, &followed.subject(key), now_ns, &outcome);
        let due_ns = followed.due_ns(&rules);
        deadlines.at_most(&mut followed.place, key, due_ns);
        Ok(())
    }
}

impl Followed {
    fn new(ticket: u64, interface: Option<&Arc<str>>) -> Followed {
        Followed {
            flow: Flow::EMPTY,
            place: Place::new(ticket),
            order: 0,
            touched_ns: 0,
            interface: interface.cloned(),
            points: [Point::default(); 2],
        }
    }

    fn subject<'a>(&'a self, key: &'a FlowKey) -> Subject<'a> {
        Subject { key, flow: &self.flow, interface: self.interface.as_ref() }
    }

    /// When the clock will change it; R20: a flow that is over stays until it has been quiet for a while, so that late
    /// segments make no ghost.
    fn due_ns(&self, rules: &Rules) -> Option<u64> {
        if self.flow.is_over() {
            return Some(self.touched_ns.saturating_add(QUARANTINE_NS));
        }
        self.flow.next_deadline_ns(rules)
    }

    /// The same, when the clock has just acted. Silence that left an end in TIME-WAIT must not come up again.
    fn due_after_tick(&self, now_ns: u64, rules: &Rules) -> Option<u64> {
        let later = |due_ns: &u64| *due_ns > now_ns;
        let time_wait = || {
            let ends = [End::A, End::B].into_iter();
            ends.filter_map(|end| self.flow.time_wait_deadline_ns(end, rules)).filter(later).min()
        };
        self.due_ns(rules).filter(later).or_else(time_wait)
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
    let told = ended.flow.facts & flow_fact::OVER != 0;
    let from = [ended.flow.state(End::A), ended.flow.state(End::B)];
    ended.flow.end_previous(now_ns, outcome.previous, &outbox.rules);
    let subject = ended.subject(key);
    outbox.transitions(&subject, now_ns, from, [State::Closed; 2], outcome.cause);
    if !told {
        outbox.close(&subject, now_ns);
    }
    outbox.connection(&subject, now_ns, ended.order);
}

const SECOND_NS: u64 = 1_000_000_000;
/// No stamp is taken for later, so that every deadline lies in a future that exists: the year 2262.
const END_OF_TIME_NS: u64 = i64::MAX as u64;
/// How long a flow that is over stays.
const QUARANTINE_NS: u64 = 60 * SECOND_NS;
/// As in the kernel programs.
const POINT_SILENCE_NS: u64 = SECOND_NS;
