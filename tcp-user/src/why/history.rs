//! What happened to one incarnation of a flow, in memory of a fixed limit.

use std::collections::VecDeque;

use tcp_common::flow::Initiator;
use tcp_common::seq::Seq;
use tcp_common::{Cause, End, Flags, Flow, Outcome, Segment, State};

/// The segments that made a connection what it is, oldest first. At most [`History::KEPT`]; the oldest are forgotten.
#[derive(Clone, Debug, Default)]
pub struct History {
    moments: VecDeque<Moment>,
    forgotten: u64,
}

/// A segment, or a change that no segment made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moment {
    /// Time on the tracker's clock, ns.
    pub(crate) at_ns: u64,
    /// `None` if a timer expired, an ICMP error came, or a check of the sockets found the change.
    pub(crate) segment: Option<SentSegment>,
    pub(crate) cause: Cause,
    /// States before and after, A first.
    pub(crate) from: [State; 2],
    pub(crate) to: [State; 2],
    /// What each end had sent by then, this segment included.
    pub(crate) sent: [Sent; 2],
}

/// What is kept of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SentSegment {
    pub(crate) sender: End,
    pub(crate) flags: Flags,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    /// Payload, in bytes.
    pub(crate) bytes: u32,
}

/// What an end has sent. Bytes that were sent again count once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sent {
    pub(crate) segments: u64,
    /// Payload, in bytes.
    pub(crate) bytes: u64,
}

impl History {
    /// Number of moments that are kept of one connection.
    pub(crate) const KEPT: usize = 256;

    /// A history of these moments, oldest first. `forgotten` is the number of earlier ones.
    pub(crate) fn new(moments: VecDeque<Moment>, forgotten: u64) -> History {
        History { moments, forgotten }
    }

    /// Records a segment and its outcome. `flow` is the flow after it.
    pub fn record(&mut self, at_ns: u64, sender: End, segment: &Segment, outcome: &Outcome, flow: &Flow) {
        let of_lifecycle = segment.flags.has(Flags::SYN | Flags::FIN | Flags::RST);
        if of_lifecycle || outcome.from != outcome.to || !outcome.cause.has_effect() {
            self.push(Moment::new(at_ns, Some(SentSegment::new(sender, segment)), outcome, flow));
        }
    }

    /// Records that something else than a segment changed a state. `flow` is the flow after it.
    pub fn record_change(&mut self, at_ns: u64, outcome: &Outcome, flow: &Flow) {
        if outcome.from != outcome.to {
            self.push(Moment::new(at_ns, None, outcome, flow));
        }
    }

    fn push(&mut self, moment: Moment) {
        if self.moments.len() == Self::KEPT {
            self.moments.pop_front();
            self.forgotten += 1;
        }
        self.moments.push_back(moment);
    }

    pub(crate) fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.moments.iter()
    }

    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

impl Moment {
    fn new(at_ns: u64, segment: Option<SentSegment>, outcome: &Outcome, flow: &Flow) -> Moment {
        let Outcome { cause, from, to, .. } = *outcome;
        Moment { at_ns, segment, cause, from, to, sent: Sent::of(flow) }
    }

    /// The SYN that began the incarnation, as recorded in the flow. `None` if it was not seen, or both ends sent one.
    pub(crate) fn first_syn(flow: &Flow) -> Option<Moment> {
        let Initiator::One(sender) = flow.initiator() else { return None };
        let segment =
            SentSegment { sender, flags: Flags(Flags::SYN), seq: flow.end(sender).isn(), ack: 0, bytes: 0 };
        let (mut to, mut sent) = ([State::Listen; 2], [Sent::default(); 2]);
        (to[sender as usize], sent[sender as usize].segments) = (State::SynSent, 1);
        let (at_ns, from, cause) = (flow.opened_ns(), [State::Closed; 2], Cause::Syn);
        Some(Moment { at_ns, segment: Some(segment), cause, from, to, sent })
    }

    /// What the moment's own segment adds to what its sender has sent.
    pub(super) fn own(&self) -> [Sent; 2] {
        let mut own = [Sent::default(); 2];
        if let Some(segment) = &self.segment {
            let again = matches!(self.cause, Cause::SynAgain | Cause::SynAckAgain | Cause::FinAgain);
            let is_new = self.cause.has_effect() && !again;
            let bytes = if is_new { u64::from(segment.bytes) } else { 0 };
            own[segment.sender as usize] = Sent { segments: 1, bytes };
        }
        own
    }
}

impl SentSegment {
    /// What is kept of this segment.
    pub(crate) fn new(sender: End, segment: &Segment) -> SentSegment {
        let Segment { flags, seq, ack, payload_len, .. } = *segment;
        SentSegment { sender, flags, seq, ack, bytes: payload_len }
    }
}

impl Sent {
    /// What the ends of a flow have sent, A first.
    pub(crate) fn of(flow: &Flow) -> [Sent; 2] {
        [End::A, End::B]
            .map(|end| Sent { segments: u64::from(flow.end(end).segments()), bytes: flow.payload_bytes(end) })
    }

    /// What was sent since `before`, without `own`.
    pub(super) fn since(self, before: Sent, own: Sent) -> Sent {
        Sent {
            segments: self.segments.saturating_sub(before.segments + own.segments),
            bytes: self.bytes.saturating_sub(before.bytes + own.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use tcp_common::Rules;

    use super::*;

    #[test]
    fn the_oldest_moments_are_forgotten() {
        let outcome = Outcome { cause: Cause::SynAgain, ..Outcome::unchanged([State::Established; 2]) };
        let syn = Segment { flags: Flags(Flags::SYN), wire_segments: 1, ..Segment::default() };
        let mut history = History::default();
        for at_ns in 0..History::KEPT as u64 + 3 {
            history.record(at_ns, End::A, &syn, &outcome, &Flow::EMPTY);
        }
        assert_eq!((history.moments().count(), history.forgotten()), (History::KEPT, 3));
        assert_eq!(history.moments().next().map(|moment| moment.at_ns), Some(3));
    }

    #[test]
    fn segments_that_change_only_numbers_are_counted() {
        let (mut flow, mut history) = (Flow::EMPTY, History::default());
        let mut send = |at_ns, sender, flags, seq, ack, payload_len| {
            let flags = Flags(flags);
            let segment = Segment {
                flags,
                seq,
                ack,
                payload_len,
                window: 9000,
                wire_segments: 1,
                ..Segment::default()
            };
            let outcome = flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
            history.record(at_ns, sender, &segment, &outcome, &flow);
        };
        send(1, End::A, Flags::SYN, 100, 0, 0);
        send(2, End::B, Flags::SYN | Flags::ACK, 900, 101, 0);
        send(3, End::A, Flags::ACK, 101, 901, 0);
        send(4, End::B, Flags::ACK, 901, 101, 1000);
        send(5, End::B, Flags::ACK, 1901, 101, 500);
        send(6, End::B, Flags::ACK, 1901, 101, 500);
        send(7, End::B, Flags::ACK | Flags::FIN, 2401, 101, 12);
        let moments: Vec<_> = history.moments().collect();
        let [.., opened, fin] = moments[..] else { panic!("{moments:?}") };
        assert_eq!((moments.len(), opened.at_ns, fin.at_ns), (4, 3, 7));
        let [a, b] = [0, 1].map(|end: usize| fin.sent[end].since(opened.sent[end], fin.own()[end]));
        assert_eq!((a, b), (Sent::default(), Sent { segments: 3, bytes: 1500 }));
    }

    #[test]
    fn the_first_syn_is_taken_from_the_flow() {
        let mut flow = Flow::EMPTY;
        let syn = Segment { flags: Flags(Flags::SYN), seq: 100, wire_segments: 1, ..Segment::default() };
        let outcome = flow.on_segment(7, End::B, &syn, &Rules::RFC);
        let mut history = History::default();
        history.record(7, End::B, &syn, &outcome, &flow);
        assert_eq!(Moment::first_syn(&flow).as_ref(), history.moments().next());
        assert_eq!(Moment::first_syn(&Flow::EMPTY), None);
    }
}
