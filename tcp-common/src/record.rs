//! What crosses the kernel boundary: slots of the shared flow table, events, counters, settings.
//!
//! Everything here is `#[repr(C)]` integers with explicit padding and an asserted size. Nothing is an enum: the other
//! side may be another version, so bytes become enums through `from_u8` only.
//!
//! # The slot protocol
//!
//! A slot is owned through its 64-bit tag. Whoever wants it changes the tag by compare-and-swap; whoever has made it BUSY
//! is alone with it and may let go by a plain store, after everything else that it wrote:
//!
//! * `FREE -> CLAIM`: one CPU claims the slot for a flow, writes the key, then looks through the window again.
//! * `CLAIM -> BUSY`: no other slot of the window has the flow; the claimer goes on as its owner.
//! * `CLAIM -> FREE`: another slot has it: the claimer gives way, or was made to by a claimer at a lower index.
//! * `LIVE` or `STEADY -> BUSY`: a packet, or the agent, takes the flow to apply a segment or the clock.
//! * `BUSY -> LIVE` or `STEADY`: done; the version in the tag is the next one, so that a reader who copied the flow
//!   meanwhile notices.
//! * `BUSY -> FREE`: the agent, or a claimer short of space, retires a flow.
//!
//! Two CPUs that claim the same flow at two places of the window: both write their claim before they look, so at least
//! one sees the other. Against a LIVE, STEADY or BUSY slot the claimer gives way; between two claims the lower index wins
//! and takes the other's claim away, which the loser notices when its own step to BUSY fails.
//!
//! STEADY is LIVE with a [`Prediction`]: what the first cache line says is newer than the flow, until
//! [`Prediction::settle`] writes it back, which is the first thing to do with a STEADY slot that is not for a predicted
//! segment. Whoever releases a slot decides anew which of the two it is ([`Slot::rest`]).

use crate::flow::{Flow, Prediction};
use crate::ignored::Ignored;
use crate::key::{FlowKey, FlowKey4, TableKey};
use crate::segment::Segment;
use crate::state::State;

/// How many neighbouring slots a flow may be in.
pub const WINDOW: u32 = 8;

/// Version of every layout in this module; the agent refuses maps of another one.
pub const LAYOUT: u32 = 2;

/// One place of a flow table. Its first cache line finds the flow and takes what was predicted.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot<K> {
    /// See [`Tag`].
    pub tag: u64,
    /// Which flow is here; meaningful from LIVE on.
    pub key: K,
    /// What is expected of the next segments, and where each direction is seen.
    pub prediction: Prediction,
    /// Where each direction was first seen, from end A, from end B: interface index shifted by one, bit 0 set on
    /// egress; 0 = nowhere yet.
    pub hooks: [u32; 2],
    /// The flow; behind the prediction in STEADY.
    pub flow: Flow,
}

/// A place of the IPv4 table.
pub type Slot4 = Slot<FlowKey4>;
/// A place of the IPv6 table.
pub type Slot6 = Slot<FlowKey>;

const _: () = assert!(size_of::<Slot4>() == 320 && size_of::<Slot6>() == 384);
const _: () = assert!(core::mem::offset_of!(Slot4, hooks) == 64);

/// Marks of the agent in [`Flow::marks`].
pub mod mark {
    /// The open of this incarnation has been counted.
    pub const OPEN_COUNTED: u32 = 1;
    /// Its close has been counted and reported.
    pub const CLOSE_REPORTED: u32 = 2;
}

impl<K: TableKey> Slot<K> {
    /// Makes a slot that has just been claimed an empty one.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.prediction = Prediction::EMPTY;
        self.hooks = [0; 2];
        self.flow = Flow::EMPTY;
    }

    /// The phase in which to release it, with a new prediction where there can be one.
    #[inline(always)]
    pub fn rest(&mut self) -> u64 {
        if self.prediction.renew(&self.flow) { Tag::STEADY } else { Tag::LIVE }
    }
}

/// A hook in the short form of [`crate::flow::Lane`]. Two hooks may share it: then copies of a packet at both are not told
/// apart, with a chance of 1 in 65535.
#[inline(always)]
pub const fn short_hook(hook: u32) -> u16 {
    let folded = (hook.wrapping_mul(0x9e37_79b1) >> 16) as u16;
    if folded == 0 { 1 } else { folded }
}

/// The parts of a slot's tag: phase in bits 0..8, fingerprint in bits 8..32, version in bits 32..64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// Nobody's.
    pub const FREE: u64 = 0;
    /// Being claimed: fingerprint valid, key not.
    pub const CLAIM: u64 = 1;
    /// Holds a flow.
    pub const LIVE: u64 = 2;
    /// Holds a flow whose next segments are predicted.
    pub const STEADY: u64 = 3;
    /// Holds a flow that somebody is changing.
    pub const BUSY: u64 = 4;

    /// Whether it holds a flow that nobody is changing.
    #[inline(always)]
    pub const fn at_rest(self) -> bool {
        self.phase() == Tag::LIVE || self.phase() == Tag::STEADY
    }

    /// Which of the five.
    #[inline(always)]
    pub const fn phase(self) -> u64 {
        self.0 & 0xff
    }

    /// The fingerprint with the phase bits cleared, as [`Hash::fingerprint`] gives it.
    #[inline(always)]
    pub const fn fingerprint(self) -> u64 {
        self.0 & 0xffff_ff00
    }

    /// The same flow in another phase, next version.
    #[inline(always)]
    pub const fn next(self, phase: u64) -> Tag {
        Tag(((self.0 & 0xffff_ffff_ffff_ff00) | phase).wrapping_add(1 << 32))
    }

    /// A claim of this slot for a fingerprint, next version.
    #[inline(always)]
    pub const fn claim(self, fingerprint: u64) -> Tag {
        Tag((((self.0 >> 32) + 1) << 32) | fingerprint | Tag::CLAIM)
    }
}

/// Hash of a key: where its window begins and what its fingerprint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

impl Hash {
    /// The hash of a key; `seed` is the secret of [`Settings`].
    #[inline(always)]
    pub fn of<K: TableKey>(key: &K, seed: u64) -> Hash {
        Hash(key.hash(seed))
    }

    /// First slot of the window, for a table of `mask + 1` slots.
    #[inline(always)]
    pub const fn base(self, mask: u32) -> u32 {
        self.0 as u32 & mask
    }

    /// 24 bits for the tag, in place.
    #[inline(always)]
    pub const fn fingerprint(self) -> u64 {
        (self.0 >> 32) & 0xffff_ff00
    }
}

/// What the kernel tells the agent at once. The table stays the truth.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Kernel clock, ns.
    pub at_ns: u64,
    /// Count of events of this CPU, lost ones included: a gap is a loss.
    pub sequence: u64,
    /// Slot of the flow, in the table of its family; `u32::MAX` in a deferred one whose flow was just being claimed.
    pub slot: u32,
    /// CPU that saw the segment.
    pub cpu: u32,
    /// Interface and direction, as in [`Slot::hooks`].
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

/// Kinds of [`Event`].
pub mod event_kind {
    /// A state changed.
    pub const TRANSITION: u8 = 1;
    /// An incarnation ended because the next one began; `flow` is as it was before.
    pub const PREVIOUS: u8 = 2;
    /// The slot was busy: the agent is to apply `segment`.
    pub const DEFERRED: u8 = 3;
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
    /// Packets whose segment was what its flow predicted: empty ACKs, and those with payload.
    pub predicted: [u64; 2],
    /// All other packets that a program ran for; equals `tracked` plus the sum of `ignored`.
    pub seen: u64,
    /// Of those, packets whose segment was given to a flow.
    pub tracked: u64,
    /// Packets without a flow, by [`Ignored`].
    pub ignored: [u64; Ignored::COUNT],
    /// Transitions of one end: `[remote, local][from][to]`.
    pub transitions: [[[u64; State::COUNT]; State::COUNT]; 2],
    /// Segments by direction (ingress, egress) and [`segment_kind`].
    pub segments: [[u64; segment_kind::COUNT]; 2],
    /// Events written to the ring.
    pub events: u64,
    /// Events that found the ring full.
    pub events_lost: u64,
    /// Segments handed to the agent because the slot was busy.
    pub deferred: u64,
    /// Flows evicted to make room: over, half-open, TIME-WAIT.
    pub evicted: [u64; 3],
    /// Claims given up in favour of another CPU's.
    pub claims_yielded: u64,
    /// Segments given to a flow, predicted ones aside, by `Cause`: what they did, or why they moved nothing.
    pub causes: [u64; 64],
    /// Restarts of TIME-WAIT: the peer's FIN came again.
    pub time_wait_restarted: u64,
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
    /// Secret of [`Hash::of`].
    pub seed: u64,
    /// Time to use instead of the kernel's clock, ns; 0 = the kernel's clock. For tests.
    pub clock_ns: u64,
    /// Silence after which an ESTABLISHED end is given up, ns; `u64::MAX` = never.
    pub steady_silence_ns: u64,
    /// Length of a jiffy, ns; 0 = unknown: the exact clock for every packet.
    pub jiffy_ns: u64,
    /// The kernel's clock at jiffy 0, ns, wrapping.
    pub jiffies_at_ns: u64,
    /// Number of slots of the IPv4 table minus one; a power of two minus one.
    pub mask_v4: u32,
    /// The same of the IPv6 table.
    pub mask_v6: u32,
    /// [`LAYOUT`].
    pub layout: u32,
    /// Padding, always 0.
    pub reserved: u32,
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

const _: () = assert!(size_of::<Settings>() == 184);
