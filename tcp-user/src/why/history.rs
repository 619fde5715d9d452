//! What happened to one incarnation of a flow, in memory of a fixed limit.

use std::collections::VecDeque;

use tcp_common::seq::Seq;
use tcp_common::{Cause, End, Flags, Outcome, Segment, State};

/// The segments that made a connection what it is, oldest first. At most [`KEPT`]; the oldest are forgotten.
#[derive(Clone, Debug, Default)]
pub struct History {
    moments: VecDeque<Moment>,
    forgotten: u64,
    /// Other segments since the last moment.
    carried: [Carried; 2],
}

/// A segment, or a timer that expired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Time on the tracker's clock, ns.
    pub(super) at_ns: u64,
    /// `None` if a timer expired.
    pub(super) segment: Option<SentSegment>,
    pub(super) cause: Cause,
    /// States before and after, A first.
    pub(super) from: [State; 2],
    pub(super) to: [State; 2],
    /// Other segments between the moment before and this one, by sender.
    pub(super) carried: [Carried; 2],
}

/// What is kept of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentSegment {
    pub(super) sender: End,
    pub(super) flags: Flags,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    /// Payload, in bytes.
    pub(super) bytes: u32,
}

/// Segments that changed nothing but numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub(super) segments: u64,
    /// Payload, in bytes.
    pub(super) bytes: u64,
}

impl History {
    /// Records a segment and its outcome.
    pub fn record(&mut self, at_ns: u64, sender: End, segment: &Segment, outcome: &Outcome) {
        let lifecycle = segment.flags.has(Flags::SYN | Flags::FIN | Flags::RST);
        if !lifecycle && outcome.from == outcome.to && outcome.cause.has_effect() {
            let carried = &mut self.carried[sender as usize];
            carried.segments += u64::from(segment.wire_segments);
            carried.bytes += u64::from(segment.payload_len);
            return;
        }
        let sent = SentSegment {
            sender,
            flags: segment.flags,
            seq: segment.seq,
            ack: segment.ack,
            bytes: segment.payload_len,
        };
        self.push(at_ns, Some(sent), outcome);
    }

    /// Records that a timer expired, or that something else than a segment changed a state.
    pub fn record_timer(&mut self, at_ns: u64, outcome: &Outcome) {
        if outcome.from != outcome.to {
            self.push(at_ns, None, outcome);
        }
    }

    fn push(&mut self, at_ns: u64, segment: Option<SentSegment>, outcome: &Outcome) {
        if self.moments.len() == KEPT {
            self.moments.pop_front();
            self.forgotten += 1;
        }
        let carried = std::mem::take(&mut self.carried);
        let Outcome { cause, from, to, .. } = *outcome;
        self.moments.push_back(Moment { at_ns, segment, cause, from, to, carried });
    }

    pub(super) fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.moments.iter()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(super) fn carried(&self) -> &[Carried; 2] {
        &self.carried
    }
}

/// Number of moments that are kept of one connection.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_moments_are_forgotten() {
        let outcome = Outcome { cause: Cause::SynAgain, ..Outcome::unchanged([State::Established; 2]) };
        let syn = Segment { flags: Flags(Flags::SYN), wire_segments: 1, ..Segment::default() };
        let mut history = History::default();
        for at_ns in 0..KEPT as u64 + 3 {
            history.record(at_ns, End::A, &syn, &outcome);
        }
        assert_eq!((history.moments().count(), history.forgotten()), (KEPT, 3));
        assert_eq!(history.moments().next().map(|moment| moment.at_ns), Some(3));
    }

    #[test]
    fn segments_that_change_only_numbers_are_counted() {
        let outcome = Outcome { cause: Cause::Data, ..Outcome::unchanged([State::Established; 2]) };
        let data =
            Segment { flags: Flags(Flags::ACK), payload_len: 1000, wire_segments: 2, ..Segment::default() };
        let fin = Segment { flags: Flags(Flags::ACK | Flags::FIN), wire_segments: 1, ..Segment::default() };
        let mut history = History::default();
        history.record(1, End::B, &data, &outcome);
        history.record(2, End::B, &data, &outcome);
        history.record(3, End::A, &fin, &Outcome { cause: Cause::Fin, ..outcome });
        let moment = history.moments().next().expect("the FIN");
        let [a, b] = moment.carried.map(|carried| (carried.segments, carried.bytes));
        assert_eq!((a, b), ((0, 0), (4, 2000)));
        assert_eq!(history.carried().map(|carried| carried.segments), [0, 0]);
    }
}
