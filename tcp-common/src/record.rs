//! What crosses the kernel boundary: slots of the shared flow table, events, counters, settings.
//!
//! Everything here is `#[repr(C)]` integers with explicit padding and an asserted size. Nothing is an enum: the other
//! side may be another version, so bytes become enums through `from_repr` only.

use crate::flow::{Flow, Prediction};
use crate::ignored::Ignored;
use crate::key::{FlowKey, FlowKey4, Secret};
use crate::segment::Segment;
use crate::state::State;

/// Version of every layout in this module; the agent refuses maps of another one.
pub const LAYOUT: u32 = 7;

/// What a slot of a flow table has in the array that is searched: what finds the flow, and takes what was predicted. One
/// cache line in IPv4, never more than two in IPv6, which the alignment is for. The rest of the slot is its [`Record`], in an
/// array of its own: so a packet of an established connection touches a fifth of the memory, and of its pages.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug)]
pub struct Slot<K> {
    /// A [`Tag`].
    pub tag: u64,
    /// Which flow is here.
    pub key: K,
    /// What is expected of the next segments, and where each direction is seen.
    pub prediction: Prediction,
}

/// What else a slot holds, under the same number.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Where each direction was first seen, from end A, from end B: interface index shifted by one, bit 0 set on
    /// egress; 0 = nowhere yet.
    pub hooks: [u32; 2],
    /// The flow; in PREDICTED the prediction is ahead of it ([`Prediction::flush_into`]).
    pub flow: Flow,
}

/// A slot of the IPv4 table.
pub type Slot4 = Slot<FlowKey4>;
/// A slot of the IPv6 table.
pub type Slot6 = Slot<FlowKey>;

const _: () = assert!(size_of::<Slot4>() == 64 && size_of::<Slot6>() == 96 && size_of::<Record>() == 256);

impl Record {
    /// Of a slot that has just been claimed.
    pub const EMPTY: Record = Record { hooks: [0; 2], flow: Flow::EMPTY };
}

/// Bits of [`Flow::reported`]: what has been reported of an incarnation.
pub mod reported {
    use crate::flow::Outcome;

    /// The open has been counted, or an event of it is on its way to the agent.
    pub const OPEN: u32 = 1;
    /// The close has been counted and reported, or an event of it is on its way to the agent.
    pub const CLOSE: u32 = 2;

    /// Returns the bits of what an outcome's event reports.
    #[inline(always)]
    pub fn flags_for(outcome: &Outcome) -> u32 {
        (outcome.established as u32 * OPEN) | (outcome.over as u32 * CLOSE)
    }
}

/// A hook in the short form of [`crate::flow::DirectionPrediction`]. Two interfaces whose indices are equal modulo 2^14 share it: copies of
/// a packet at both are not told apart then.
#[inline(always)]
pub const fn short_hook(hook: u32) -> u16 {
    (hook << 1 | 1) as u16
}

/// What the kernel tells the agent at once. The table stays the truth.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Kernel clock, ns.
    pub at_ns: u64,
    /// Count of events of this CPU, lost ones included: a gap is a loss.
    pub sequence: u64,
    /// Slot of the flow, in the table of its family; `NO_SLOT` in a deferred one whose flow had none yet.
    pub slot: u32,
    /// CPU that saw the segment.
    pub cpu: u32,
    /// Interface and direction, as in [`Record::hooks`].
    pub hook: u32,
    /// One of [`event_kind`].
    pub kind: u8,
    /// Sender, 0 = A.
    pub sender: u8,
    /// A `Cause`.
    pub cause: u8,
    /// A `Previous`.
    pub previous: u8,
    /// States before, A first.
    pub from: [u8; 2],
    /// States after.
    pub to: [u8; 2],
    /// Bits of [`event_flag`].
    pub flags: u32,
    /// The segment.
    pub segment: Segment,
    /// Padding, always 0.
    pub reserved: u32,
    /// The flow's key.
    pub key: FlowKey,
    /// The flow after the segment; before it in [`event_kind::PREVIOUS`].
    pub flow: Flow,
}

const _: () = assert!(size_of::<Event>() == 360 && size_of::<Segment>() == 28);

/// How many events have ever been written to the ring of one CPU, and read from it; each side has a cache line for what it
/// writes. Event `n` is at slot `n % ring_len` of that ring ([`Settings::ring_len`]).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RingPositions {
    /// By the programs on that CPU; what is below it does not change until it has been read.
    pub written: u64,
    /// Padding.
    pub apart: [u64; 7],
    /// By the agent.
    pub read: u64,
    /// Padding.
    pub apart_too: [u64; 7],
}

/// Kinds of [`Event`].
pub mod event_kind {
    /// A state changed.
    pub const TRANSITION: u8 = 1;
    /// An incarnation ended because the next one began; `flow` is as it was before.
    pub const PREVIOUS: u8 = 2;
    /// The slot was busy: the agent is to apply `segment`.
    pub const DEFERRED: u8 = 3;
    /// A flow whose end nobody has reported yet had to make room; `flow` is as it was, `key` is its own.
    pub const EVICTED: u8 = 4;
}

/// Bits of [`Event::flags`].
pub mod event_flag {
    /// The incarnation is over.
    pub const OVER: u32 = 1;
    /// Both ends have just become ESTABLISHED.
    pub const ESTABLISHED: u32 = 2;
    /// TIME-WAIT was restarted.
    pub const RESTARTED: u32 = 4;
}

/// Counters of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Packets whose segment was what its flow predicted, by direction (ingress, egress) and [`predicted`].
    pub predicted: [[u64; predicted::COUNT]; 2],
    /// How many more segments these were on the wire, where GSO or GRO had made one of many.
    pub merged: [[u64; predicted::COUNT]; 2],
    /// All other packets that a program ran for; equals `tracked` plus the sum of `ignored`.
    pub seen: u64,
    /// Of those, packets whose segment was given to a flow.
    pub tracked: u64,
    /// Packets without a flow, by [`Ignored`].
    pub ignored: [u64; Ignored::COUNT],
    /// Transitions of one end: `[remote, local][from][to]`.
    pub transitions: [[[u64; State::COUNT]; State::COUNT]; 2],
    /// All other segments by direction (ingress, egress) and [`segment_kind`].
    pub segments: [[u64; segment_kind::COUNT]; 2],
    /// Events written to the ring.
    pub events: u64,
    /// Events that found the ring full.
    pub events_lost: u64,
    /// Segments handed to the agent because the slot was busy.
    pub deferred: u64,
    /// Flows evicted to make room: over, half open, TIME-WAIT, as `Tag::CLOSED` and the next two.
    pub evicted: [u64; 3],
    /// Claims given up because another flow of the same home came or went meanwhile.
    pub insert_retries: u64,
    /// Segments given to a flow, predicted ones aside, by `Cause`: what they did, or why they moved nothing.
    pub causes: [u64; 64],
    /// Restarts of TIME-WAIT: the peer's FIN came again.
    pub time_wait_restarted: u64,
}

/// Numbers of segment kinds in [`Counters::predicted`].
pub mod predicted {
    /// Empty ACK.
    pub const ACK: usize = 0;
    /// Payload.
    pub const DATA: usize = 1;
    /// How many.
    pub const COUNT: usize = 2;
}

/// Numbers of segment kinds in [`Counters::segments`].
pub mod segment_kind {
    /// SYN alone.
    pub const SYN: usize = 0;
    /// SYN with ACK.
    pub const SYN_ACK: usize = 1;
    /// FIN.
    pub const FIN: usize = 2;
    /// RST.
    pub const RST: usize = 3;
    /// Payload without SYN, FIN or RST.
    pub const DATA: usize = 4;
    /// Empty ACK.
    pub const ACK: usize = 5;
    /// How many.
    pub const COUNT: usize = 6;
    /// Label values, in the order of the numbers.
    pub const NAMES: [&str; COUNT] = ["syn", "syn_ack", "fin", "rst", "data", "ack"];
}

/// What the agent tells the kernel programs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The rules of the state machine.
    pub rules: crate::flow::Rules,
    /// What the hash is keyed with.
    pub secret: Secret,
    /// Time to use instead of the kernel's clock, ns; 0 = the kernel's clock. For tests, with `jiffy_ns` 0.
    pub clock_ns: u64,
    /// [`Rules::steady_silence_ns`](crate::flow::Rules::steady_silence_ns).
    pub steady_silence_ns: u64,
    /// Length of a jiffy, ns; 0 = unknown: the exact clock for every packet.
    pub jiffy_ns: u64,
    /// The kernel's clock at jiffy 0, ns, wrapping.
    pub jiffies_at_ns: u64,
    /// Number of slots of the IPv4 table.
    pub slots_v4: u32,
    /// The same of the IPv6 table.
    pub slots_v6: u32,
    /// [`LAYOUT`].
    pub layout: u32,
    /// Events that the ring of a CPU holds, a power of two.
    pub ring_len: u32,
}

impl Settings {
    /// Before the agent has set any.
    pub const NONE: Settings = Settings {
        rules: crate::flow::Rules::RFC,
        secret: Secret([[0; 2]; 5]),
        clock_ns: 0,
        steady_silence_ns: 0,
        jiffy_ns: 0,
        jiffies_at_ns: 0,
        slots_v4: 0,
        slots_v6: 0,
        layout: LAYOUT,
        ring_len: 0,
    };
}

/// The two clocks of the kernel at one moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// `bpf_jiffies64`.
    pub jiffies: u64,
    /// `bpf_ktime_get_ns`, ns.
    pub monotonic_ns: u64,
}

const _: () = assert!(size_of::<Settings>() == 216);
