//! What crosses the kernel boundary: slots of the shared flow table, events, counters, settings.
//!
//! Everything here is `#[repr(C)]` integers with explicit padding and an asserted size. Nothing is an enum: the other
//! side may be another version, so bytes become enums through `from_u8` only.
//!
//! # The slot protocol
//!
//! A slot is owned through its 64-bit tag, and the tag changes by compare-and-swap only:
//!
//! * `FREE -> CLAIM`: one CPU claims the slot for a flow, writes the key, then looks through the window again.
//! * `CLAIM -> BUSY`: no other slot of the window has the flow; the claimer goes on as its owner.
//! * `CLAIM -> FREE`: another slot has it: the claimer gives way, or was made to by a claimer at a lower index.
//! * `LIVE -> BUSY`: a packet, or the agent, takes the flow to apply a segment or the clock.
//! * `BUSY -> LIVE`: done; the version in the tag is the next one, so that a reader who copied the flow meanwhile notices.
//! * `BUSY -> FREE`: the agent, or a claimer short of space, retires a flow.
//!
//! Two CPUs that claim the same flow at two places of the window: both write their claim before they look, so at least
//! one sees the other. Against a LIVE or BUSY slot the claimer gives way; between two claims the lower index wins and
//! takes the other's claim away, which the loser notices when its own step to BUSY fails.

use crate::flow::Flow;
use crate::ignored::Ignored;
use crate::key::FlowKey;
use crate::segment::Segment;
use crate::state::State;

/// How many neighbouring slots a flow may be in.
pub const WINDOW: u32 = 8;

/// Version of every layout in this module; the agent refuses maps of another one.
pub const LAYOUT: u32 = 1;

/// One place of the flow table.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// See [`Tag`].
    pub tag: u64,
    /// Which flow is here; meaningful in LIVE and BUSY.
    pub key: FlowKey,
    /// Where each direction was first seen: from end A, from end B.
    pub hooks: [HookSeen; 2],
    /// The flow.
    pub flow: Flow,
    /// Incarnation whose close the agent has counted. The agent's own; kernel programs clear it with a claim.
    pub reported: u32,
    /// Incarnation whose open the agent has counted, as above.
    pub counted: u32,
}

const _: () = assert!(size_of::<Slot>() == 320);

/// The observation point that a direction of a flow belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookSeen {
    /// Interface index shifted by one, bit 0 set on egress; 0 = none yet.
    pub hook: u32,
    /// When it last saw a segment, in units of 2^20 ns (about a millisecond), wrapping.
    pub at: u32,
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
    /// Holds a flow that somebody is changing.
    pub const BUSY: u64 = 3;

    /// Which of the four.
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
    /// Keyed with a secret seed, so that nobody outside can aim at one window.
    #[inline(always)]
    pub const fn of(key: &FlowKey, seed: u64) -> Hash {
        let [a, b, c, d, e] = key.words();
        let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
        hash = mix(hash ^ a);
        hash = mix(hash ^ b.rotate_left(17));
        hash = mix(hash ^ c.rotate_left(31));
        hash = mix(hash ^ d.rotate_left(47));
        Hash(mix(hash ^ e))
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

/// One round of the MurmurHash3 finalizer.
#[inline(always)]
const fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// What the kernel tells the agent at once. The table stays the truth.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Kernel clock, ns.
    pub at_ns: u64,
    /// Count of events of this CPU, lost ones included: a gap is a loss.
    pub sequence: u64,
    /// Slot of the flow.
    pub slot: u32,
    /// CPU that saw the segment.
    pub cpu: u32,
    /// Interface and direction, as in [`HookSeen::hook`].
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
    /// In a `PREVIOUS`: the agent had counted the close.
    pub const REPORTED: u32 = 8;
    /// In a `PREVIOUS`: the agent had counted the open.
    pub const COUNTED: u32 = 16;
}

/// Counters of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Packets that a program ran for; equals `tracked` plus the sum of `ignored`.
    pub seen: u64,
    /// Packets whose segment was given to a flow.
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
    /// Segments given to a flow, by `Cause`: what they did, or why they moved nothing.
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
    /// Number of slots minus one; a power of two minus one.
    pub mask: u32,
    /// [`LAYOUT`].
    pub layout: u32,
}

const _: () = assert!(size_of::<Settings>() == 152);
