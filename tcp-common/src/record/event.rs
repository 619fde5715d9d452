//! Events: what the kernel programs report to the agent at once. The flow table remains authoritative.

use crate::flow::{Cause, Flow, Outcome, Previous};
use crate::key::FlowKey;
use crate::segment::{Flags, Segment};
use crate::wire::Packet;

/// One event.
///
/// Which fields have a meaning depends on `kind`; all others are 0. Events are built by one method per kind, which
/// sets every field, so that none keeps the value of an earlier event.
///
/// | field | segment | previous | deferred | evicted |
/// | --- | --- | --- | --- | --- |
/// | `slot` | yes | yes | yes, or `NO_SLOT` | yes |
/// | `hook` | of the segment | of the segment | of the segment | of the flow |
/// | `sender`, `segment`, `tags` | yes | the next incarnation's first segment | the segment to apply | - |
/// | `cause` | yes | of the next incarnation's first segment | - | - |
/// | `previous` | yes | yes | - | - |
/// | `from`, `to`, `reports` | yes | - | - | - |
/// | `flow` | after the segment | before the segment | - | when it was evicted |
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Time of the segment or eviction on the kernel's monotonic clock, ns.
    pub at_ns: u64,
    /// Number of events of this CPU before this one, lost ones included. A gap shows that events were lost.
    pub sequence: u64,
    /// Slot of the flow in the table of its family, or [`NO_SLOT`](crate::table::NO_SLOT).
    pub slot: u32,
    /// CPU that saw the segment.
    pub cpu: u32,
    /// Interface and direction, as in [`Sightings::hooks`](super::Sightings::hooks).
    pub hook: u32,
    /// One of [`event_kind`].
    pub kind: u8,
    /// End that sent the segment: 0 = A, 1 = B.
    pub sender: u8,
    /// Number of a [`Cause`].
    pub cause: u8,
    /// Number of a [`Previous`].
    pub previous: u8,
    /// Numbers of the states before the segment, A first.
    pub from: [u8; 2],
    /// Numbers of the states after the segment, A first.
    pub to: [u8; 2],
    /// Bits of [`reported`](super::reported) that the segment changed: what the event reports.
    pub reports: u32,
    /// The segment.
    pub segment: Segment,
    /// The VLAN tags of the segment's frame, as in [`Packet::tags`].
    pub tags: u32,
    /// The flow's key.
    pub key: FlowKey,
    /// The flow.
    pub flow: Flow,
}

const _: () = assert!(size_of::<Event>() == 368 && size_of::<Segment>() == 32);

/// The fields of an [`Event`] that have a meaning for every kind.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in `Event`")]
pub struct EventHeader {
    pub at_ns: u64,
    pub sequence: u64,
    pub slot: u32,
    pub cpu: u32,
    pub hook: u32,
}

impl Event {
    /// Builds a [`SEGMENT`](event_kind::SEGMENT) event. `flow` is the flow after the segment, with what the event
    /// `reports` of it.
    #[inline(always)]
    pub fn set_segment(
        &mut self,
        header: EventHeader,
        packet: &Packet,
        outcome: &Outcome,
        flow: &Flow,
        reports: u32,
    ) {
        let details = Details {
            kind: event_kind::SEGMENT,
            sender: packet.sender as u8,
            cause: outcome.cause as u8,
            previous: outcome.previous as u8,
            from: outcome.from.map(|state| state as u8),
            to: outcome.to.map(|state| state as u8),
            reports,
            tags: packet.tags,
        };
        self.set(header, details, &packet.segment, &packet.key, flow);
    }

    /// Builds a [`PREVIOUS`](event_kind::PREVIOUS) event. `flow` is the incarnation that ended.
    #[inline(always)]
    pub fn set_previous(
        &mut self,
        header: EventHeader,
        packet: &Packet,
        cause: Cause,
        previous: Previous,
        flow: &Flow,
    ) {
        let details = Details {
            sender: packet.sender as u8,
            cause: cause as u8,
            previous: previous as u8,
            tags: packet.tags,
            ..Details::of(event_kind::PREVIOUS)
        };
        self.set(header, details, &packet.segment, &packet.key, flow);
    }

    /// Builds a [`DEFERRED`](event_kind::DEFERRED) event.
    #[inline(always)]
    pub fn set_deferred(&mut self, header: EventHeader, packet: &Packet) {
        let details =
            Details { sender: packet.sender as u8, tags: packet.tags, ..Details::of(event_kind::DEFERRED) };
        self.set(header, details, &packet.segment, &packet.key, &Flow::EMPTY);
    }

    /// Builds an [`EVICTED`](event_kind::EVICTED) event. `key` and `flow` are those of the evicted flow.
    #[inline(always)]
    pub fn set_evicted(&mut self, header: EventHeader, key: &FlowKey, flow: &Flow) {
        self.set(header, Details::of(event_kind::EVICTED), &NO_SEGMENT, key, flow);
    }

    /// Sets every field. Field by field, because a BPF stack has no room for a whole event.
    #[inline(always)]
    fn set(&mut self, header: EventHeader, details: Details, segment: &Segment, key: &FlowKey, flow: &Flow) {
        let Event {
            at_ns,
            sequence,
            slot,
            cpu,
            hook,
            kind,
            sender,
            cause,
            previous,
            from,
            to,
            reports,
            segment: event_segment,
            tags,
            key: event_key,
            flow: event_flow,
        } = self;
        *at_ns = header.at_ns;
        *sequence = header.sequence;
        *slot = header.slot;
        *cpu = header.cpu;
        *hook = header.hook;
        *kind = details.kind;
        *sender = details.sender;
        *cause = details.cause;
        *previous = details.previous;
        *from = details.from;
        *to = details.to;
        *reports = details.reports;
        *event_segment = *segment;
        *tags = details.tags;
        *event_key = *key;
        *event_flow = *flow;
    }
}

/// The fields of an [`Event`] that have a meaning for some kinds only.
struct Details {
    kind: u8,
    sender: u8,
    cause: u8,
    previous: u8,
    from: [u8; 2],
    to: [u8; 2],
    reports: u32,
    tags: u32,
}

impl Details {
    #[inline(always)]
    const fn of(kind: u8) -> Details {
        Details { kind, sender: 0, cause: 0, previous: 0, from: [0; 2], to: [0; 2], reports: 0, tags: 0 }
    }
}

const NO_SEGMENT: Segment = Segment {
    seq: 0,
    ack: 0,
    payload_len: 0,
    tsval: 0,
    tsecr: 0,
    window: 0,
    mss: 0,
    flags: Flags(0),
    wscale: 0,
    options: 0,
    wire_segments: 0,
};

/// How many events have ever been written to one CPU's ring, and read from it. Each side has a cache line of its own.
///
/// Event `n` is element `n % ring_len` of that ring ([`Settings::ring_len`](super::Settings::ring_len)).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RingPositions {
    /// Number of events written by the programs. Events below it do not change before they have been read.
    pub written: u64,
    /// Padding to a cache line.
    pub written_padding: [u64; 7],
    /// Number of events read by the agent.
    pub read: u64,
    /// Padding to a cache line.
    pub read_padding: [u64; 7],
}

/// Kinds of [`Event`].
pub mod event_kind {
    /// A segment changed a state, or is a SYN, FIN or RST of a known flow that changed none.
    pub const SEGMENT: u8 = 1;
    /// An incarnation ended because the segment began the next one.
    pub const PREVIOUS: u8 = 2;
    /// Another thread kept the flow locked. The agent must apply the segment.
    pub const DEFERRED: u8 = 3;
    /// A flow was evicted, in TIME-WAIT or before its close was reported.
    pub const EVICTED: u8 = 4;
}
