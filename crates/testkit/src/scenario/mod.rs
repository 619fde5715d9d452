//! The scenarios of `conformance/scenarios`, and how a state machine is checked against one.
//!
//! `conformance/README.md` describes the format of the files.

mod check;
mod parse;
mod proved;
#[cfg(test)]
mod tests;

use tcp_common::{End, Flow, Rules, Segment, State};

use crate::frames;

pub use check::{StateMachine, check, run};
pub use parse::{LAST_RULE, ParseError, parse};
pub use proved::proved_states;

/// The pairs of initial sequence numbers that every scenario is run with.
pub const ISN_PAIRS: [(u32, u32); 5] = [
    (1000, 5000),
    (0, 0),
    (4_294_967_295, 4_294_967_290),
    (2_147_483_647, 2_147_483_640),
    (4_294_967_294, 4_294_967_294),
];

/// Where `cargo test` finds the golden file of the proved states.
pub const PROVED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/scenarios/proved.txt");

// `FILES`: name and text of every scenario file, in the order of their names. Written by build.rs; the
// texts are embedded because tests also run in a virtual machine that has no source tree.
include!(concat!(env!("OUT_DIR"), "/scenario_files.rs"));

/// A scenario: what the tap sees, and what is right about both ends after each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The scenario's name, such as `S001`.
    pub id: String,
    /// What happens in the scenario.
    pub title: String,
    /// The source: a section of an RFC, a kernel function, a capture.
    pub source: String,
    /// The rules of docs/STATE_MACHINE.md that it is about: 4 for R4.
    pub cites: Vec<u8>,
    /// The rules that the state machine runs with.
    pub rules: Rules,
    /// The location of the ends that the scenario requires.
    pub requires: [Option<Location>; 2],
    /// A pair of initial sequence numbers to run besides [`ISN_PAIRS`].
    pub isn: Option<(u32, u32)>,
    /// The steps in the order in which the tap sees them.
    pub steps: Vec<Step>,
    /// One close record per incarnation, as reported after the last step.
    pub closes: Vec<Close>,
}

/// Where an end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// On the observer's own host.
    Local,
    /// On another host.
    Remote,
}

/// One segment, or a tick of the clock, and the expected states after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When the step happens, ms since the start of the scenario.
    pub at_ms: u64,
    /// What happens.
    pub event: Event,
    /// What is right about ends a and b afterwards; `None` only if the tap does not see the segment.
    pub expected: Option<[Expected; 2]>,
}

/// What happens in a step. Ends a and b of the scenario are written as [`End::A`] and [`End::B`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The tap sees a segment. Its numbers are relative: the SYN of each end has sequence number 0.
    Seen(End, Segment),
    /// A segment is sent, but the tap misses it.
    Missed(End, Segment),
    /// The tap sees an ICMP error that quotes this end's segment.
    Quoted(End, Segment, QuotingError),
    /// Only the clock advances.
    Tick,
}

/// Type and code of an ICMP error that quotes a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotingError {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// What is right about one end after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Acceptable states; the first is the recommended one.
    pub states: Vec<State>,
    /// When the end's TIME-WAIT ends, ms since the start of the scenario.
    pub time_wait_until_ms: Option<u64>,
    /// What the end's own segments prove. `None` if the golden file does not have the scenario yet.
    pub proved: Option<State>,
}

/// The expected close record of one incarnation. Ends are named `a` and `b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Acceptable close kinds.
    pub kinds: Vec<String>,
    /// The end that opened the connection: `a`, `b`, `both` or `unknown`.
    pub opener: String,
    /// Acceptable answers to which end closed first: `a`, `b`, `both` or `none`.
    pub closers: Vec<String>,
    /// The end that reset the connection: `a`, `b` or `none`.
    pub aborter: String,
    /// The ends that sent a FIN: ``, `a`, `b` or `ab`.
    pub fins: String,
    /// Whether both FINs were acknowledged.
    pub complete: bool,
    /// Whether an end lost its state; `None` if the scenario does not say.
    pub state_lost: Option<bool>,
    /// How much of the connection was seen; `None` if the scenario does not say.
    pub confidence: Option<String>,
    /// Bytes of payload that each end sent; `None` if the scenario does not say.
    pub bytes: Option<[u64; 2]>,
}

/// One way to run a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The initial sequence numbers of ends a and b.
    pub isn: (u32, u32),
    /// Whether the scenario's end a is end B of the flow's key.
    pub swapped: bool,
    /// Whether every segment is seen twice.
    pub doubled: bool,
    /// Whether the scenario's ends a and b are on the observer's own host.
    pub local: [bool; 2],
}

/// All scenarios, in the order of their files.
///
/// # Panics
///
/// Panics if a file is malformed. The message has the file and the line.
pub fn load() -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (file, text) in FILES {
        let parsed = parse(file, text).unwrap_or_else(|error| panic!("conformance/scenarios/{error}"));
        for scenario in parsed {
            assert!(
                scenarios.iter().all(|other| other.id != scenario.id),
                "conformance/scenarios/{file}: there is another scenario {}",
                scenario.id
            );
            scenarios.push(scenario);
        }
    }
    proved::attach(&mut scenarios);
    scenarios
}

impl Scenario {
    /// Whether the scenario's expectations hold with these ends on the observer's own host.
    pub fn holds(&self, local: [bool; 2]) -> bool {
        let is_there = |(required, local): (&Option<Location>, bool)| match required {
            None => true,
            Some(Location::Local) => local,
            Some(Location::Remote) => !local,
        };
        self.requires.iter().zip(local).all(is_there)
    }

    /// The pairs of initial sequence numbers to run it with.
    pub fn isn_pairs(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        ISN_PAIRS.into_iter().chain(self.isn)
    }
}

impl Step {
    /// When the step happens, on the state machine's clock.
    pub fn at_ns(&self) -> u64 {
        START_NS + self.at_ms * MS
    }

    /// The sender and the segment, with the numbers of a variant; `None` if the tap sees none.
    pub fn segment(&self, variant: Variant) -> Option<(End, Segment)> {
        let Event::Seen(sender, relative) = self.event else { return None };
        Some(variant.absolute(sender, relative))
    }

    /// The sender and the segment that an ICMP error quotes, with the numbers of a variant, and the error;
    /// `None` if the tap sees none.
    pub fn quoted(&self, variant: Variant) -> Option<(End, Segment, QuotingError)> {
        let Event::Quoted(sender, relative, message) = self.event else { return None };
        let (sender, segment) = variant.absolute(sender, relative);
        Some((sender, segment, message))
    }

    /// The IPv4 frame that the tap sees, with the numbers of a variant; `None` if it sees none.
    pub fn frame(&self, variant: Variant) -> Option<Vec<u8>> {
        if let Some((sender, segment, QuotingError { kind, code })) = self.quoted(variant) {
            return Some(frames::icmp_error(&frames::frame(sender, &segment), kind, code));
        }
        let (sender, segment) = self.segment(variant)?;
        Some(frames::frame(sender, &segment))
    }

    /// Whether only the clock advances.
    pub fn is_tick(&self) -> bool {
        self.event == Event::Tick
    }
}

impl Variant {
    /// The end of the flow's key and the segment with absolute numbers.
    fn absolute(&self, sender: End, relative: Segment) -> (End, Segment) {
        let (own, peer) = match sender {
            End::A => self.isn,
            End::B => (self.isn.1, self.isn.0),
        };
        let acks = relative.flags.has(tcp_common::Flags::ACK);
        let segment = Segment {
            seq: own.wrapping_add(relative.seq),
            ack: if acks { peer.wrapping_add(relative.ack) } else { 0 },
            ..relative
        };
        (self.end(sender), segment)
    }

    /// The scenario as written, with the ISNs 1000 and 5000, seen in the middle of the network.
    pub const PLAIN: Variant =
        Variant { isn: (1_000, 5_000), swapped: false, doubled: false, local: [false; 2] };

    /// The end of the flow's key that is the scenario's end a ([`End::A`]) or b. It is its own inverse.
    pub fn end(&self, end: End) -> End {
        if self.swapped { end.peer() } else { end }
    }

    /// The name, `a` or `b`, that an end of the flow's key has in the scenario.
    pub fn name(&self, end: End) -> &'static str {
        match self.end(end) {
            End::A => "a",
            End::B => "b",
        }
    }

    /// Whether this end of the flow's key is on the observer's own host.
    pub fn is_local(&self, end: End) -> bool {
        self.local[self.end(end) as usize]
    }

    /// A flow of which only the location of its ends is known.
    pub fn empty(&self) -> Flow {
        let mut flow = Flow::EMPTY;
        for end in [End::A, End::B] {
            flow.set_local(end, self.is_local(end));
        }
        flow
    }
}

const MS: u64 = 1_000_000;
/// The state machine's clock at the start of a scenario; not 0, because 0 must mean nothing special to
/// the machine.
const START_NS: u64 = 3_600_000_000_000;
