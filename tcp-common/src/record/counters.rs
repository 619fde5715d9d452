//! Counters of the kernel programs.

use crate::flow::Cause;
use crate::ignored::Ignored;
use crate::state::State;

use super::time_wait::TimeWaitVisit;

/// Counters of one CPU, or their sum over several.
///
/// To keep the fast path short, a predicted segment is counted in `predicted` and `merged` only. All other fields count
/// what was not predicted; the methods include both.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Predicted packets, by direction (ingress, egress) and [`predicted`].
    pub predicted: [[u64; predicted::COUNT]; 2],
    /// Additional wire segments of these packets, where GRO or GSO made one packet of several segments.
    pub merged: [[u64; predicted::COUNT]; 2],
    /// Packets that were not predicted. Equals `tracked` plus the sum of `ignored` plus [`Counters::fragments_pending`].
    pub seen: u64,
    /// Packets whose segment was applied to a flow or deferred, predicted ones excluded.
    pub tracked: u64,
    /// Ignored packets, by [`Ignored`].
    pub ignored: [u64; Ignored::COUNT],
    /// Fragments that began to wait for the rest of their datagram.
    pub fragments_held: u64,
    /// Fragments that have waited: their datagram became whole, or did not in time.
    pub fragments_released: u64,
    /// Transitions of one end: `[remote, local][from][to]`.
    pub transitions: [[[u64; State::COUNT]; State::COUNT]; 2],
    /// Wire segments, by direction (ingress, egress) and [`segment_kind`], predicted ones excluded.
    pub segments: [[u64; segment_kind::COUNT]; 2],
    /// Events that were published.
    pub events: u64,
    /// Events that were lost because the ring was full.
    pub events_lost: u64,
    /// SYN, FIN and RST that changed no state and were not published, because half of the ring was full.
    pub events_withheld: u64,
    /// Segments that were deferred to the agent because their flow was locked.
    pub deferred: u64,
    /// Evicted flows: closed, half-open, in TIME-WAIT, as in `Tag::CLOSED` and the next two phases.
    pub evicted: [u64; 3],
    /// Insertions that were retried because another flow of the same home slot was inserted or removed meanwhile.
    pub insert_retries: u64,
    /// Segments that were applied to a flow, by [`Cause`], predicted ones excluded.
    pub causes: [u64; 64],
    /// Segments at ends in TIME-WAIT: `[TimeWaitVisit][remote, local]`.
    pub time_wait_visits: [[u64; 2]; TimeWaitVisit::COUNT],
}

impl Counters {
    /// Returns the number of packets that a program ran for.
    pub fn packets_seen(&self) -> u64 {
        self.seen + self.packets_predicted()
    }

    /// Returns the number of packets whose segment was applied to a flow or deferred.
    pub fn packets_tracked(&self) -> u64 {
        self.tracked + self.packets_predicted()
    }

    /// Returns the number of fragments that wait for the rest of their datagram.
    pub fn fragments_pending(&self) -> u64 {
        // The CPUs' counters are not read at one moment.
        self.fragments_held.saturating_sub(self.fragments_released)
    }

    fn packets_predicted(&self) -> u64 {
        self.predicted.as_flattened().iter().sum()
    }

    /// Returns the number of packets whose segment was applied to a flow with this effect.
    pub fn packets_by_cause(&self, cause: Cause) -> u64 {
        let kind = match cause {
            Cause::Ack => predicted::ACK,
            Cause::Data => predicted::DATA,
            _ => return self.causes[cause as usize],
        };
        self.causes[cause as usize] + self.predicted.iter().map(|kinds| kinds[kind]).sum::<u64>()
    }

    /// Returns the number of wire segments by direction (ingress, egress) and [`segment_kind`].
    pub fn segments_by_kind(&self) -> [[u64; segment_kind::COUNT]; 2] {
        let mut segments = self.segments;
        for (direction, kinds) in segments.iter_mut().enumerate() {
            for (kind, predicted) in
                [(segment_kind::ACK, predicted::ACK), (segment_kind::DATA, predicted::DATA)]
            {
                kinds[kind] += self.predicted[direction][predicted] + self.merged[direction][predicted];
            }
        }
        segments
    }
}

/// Kinds of segments in [`Counters::predicted`].
pub mod predicted {
    /// Empty ACK.
    pub const ACK: usize = 0;
    /// Payload.
    pub const DATA: usize = 1;
    /// Number of kinds.
    pub const COUNT: usize = 2;
}

/// Kinds of segments in [`Counters::segments`].
pub mod segment_kind {
    /// SYN without ACK.
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
    /// Number of kinds.
    pub const COUNT: usize = 6;
    /// Label values, in the order of the numbers.
    pub const NAMES: [&str; COUNT] = ["syn", "syn_ack", "fin", "rst", "data", "ack"];
}
