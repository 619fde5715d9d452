//! What segments do to an end in TIME-WAIT.

use strum::{IntoStaticStr, VariantArray};

use crate::flow::{Cause, Flow, Outcome, end_fact};
use crate::segment::{Flags, Segment};
use crate::seq::before;
use crate::state::{End, State};

/// What a segment did that arrived at an end in TIME-WAIT, or that the end sent.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum TimeWaitVisit {
    /// The peer's FIN was sent again, because the last ACK was lost. 2MSL began again.
    Restarted = 0,
    /// A late copy of an old segment had no effect: what TIME-WAIT is for.
    OldDuplicate = 1,
    /// A SYN with an older sequence number or timestamp was not accepted at once.
    ReuseRefused = 2,
    /// A SYN of the peer began the next connection, because its sequence number is higher.
    ReusedBySequence = 3,
    /// A SYN of the peer began the next connection, because its timestamp is newer (RFC 6191).
    ReusedByTimestamp = 4,
    /// The end itself began the next connection (`tcp_tw_reuse`).
    ReusedByHolder = 5,
}

impl TimeWaitVisit {
    /// Number of kinds.
    pub const COUNT: usize = TimeWaitVisit::VARIANTS.len();

    /// Every kind, in the order of their numbers.
    pub const ALL: [TimeWaitVisit; TimeWaitVisit::COUNT] = match TimeWaitVisit::VARIANTS.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// Name in machine output: `old_duplicate`.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What a segment of `sender` did to its receiver's TIME-WAIT, without ending it.
    #[inline(always)]
    pub fn of(sender: End, segment: &Segment, outcome: &Outcome) -> Option<TimeWaitVisit> {
        if outcome.restarted {
            return Some(TimeWaitVisit::Restarted);
        }
        let receiver = sender.peer() as usize & 1;
        let waits = |states: &[State; 2]| states[receiver] as u8 == State::TimeWait as u8;
        if !waits(&outcome.from) || !waits(&outcome.to) {
            return None;
        }
        // The end had received everything before it entered TIME-WAIT.
        let is_old = !outcome.cause.has_effect() || segment.payload_len != 0;
        if !is_old || segment.flags.has(Flags::RST) {
            return None;
        }
        let refused = matches!(outcome.cause, Cause::PendingSyn) && segment.flags.has(Flags::SYN);
        Some(if refused { TimeWaitVisit::ReuseRefused } else { TimeWaitVisit::OldDuplicate })
    }
}

impl Flow {
    /// How a SYN of `sender` has ended a TIME-WAIT of this flow, which is the one before the SYN, and the end that was in
    /// it.
    #[inline(always)]
    pub fn reused_time_wait(&self, sender: End, segment: &Segment) -> (TimeWaitVisit, End) {
        let (x, receiver) = (self.end(sender), sender.peer());
        if self.state(receiver) as u8 != State::TimeWait as u8 {
            return (TimeWaitVisit::ReusedByHolder, sender);
        }
        let both = x.has(end_fact::TIMESTAMP) && segment.has(Segment::HAS_TIMESTAMP);
        let visit = if both && before(x.tsval(), segment.tsval) {
            TimeWaitVisit::ReusedByTimestamp
        } else {
            TimeWaitVisit::ReusedBySequence
        };
        (visit, receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rules;

    const ACK: u8 = Flags::ACK;
    const FIN: u8 = Flags::FIN | Flags::ACK;

    fn segment(flags: u8, seq: u32, ack: u32, tsval: u32) -> Segment {
        let options = if tsval == 0 { 0 } else { Segment::HAS_TIMESTAMP };
        Segment { flags: Flags(flags), seq, ack, tsval, options, window: 1000, ..Segment::default() }
    }

    /// End A is in TIME-WAIT.
    fn waiting(tsval: u32) -> Flow {
        let mut flow = Flow::EMPTY;
        for (sender, flags, seq, ack) in [
            (End::A, Flags::SYN, 100, 0),
            (End::B, Flags::SYN | ACK, 900, 101),
            (End::A, ACK, 101, 901),
            (End::A, FIN, 101, 901),
            (End::B, FIN, 901, 102),
            (End::A, ACK, 102, 902),
        ] {
            flow.on_segment(1_000, sender, &segment(flags, seq, ack, tsval), &Rules::RFC);
        }
        assert_eq!(flow.states(), [State::TimeWait, State::Closed]);
        flow
    }

    /// What a segment does to the TIME-WAIT of end A, and whether it goes on.
    fn visit(tsval: u32, sender: End, segment: Segment) -> Option<(TimeWaitVisit, End)> {
        let (mut flow, before) = (waiting(tsval), waiting(tsval));
        let outcome = flow.on_segment(2_000, sender, &segment, &Rules::RFC);
        match outcome.cause {
            Cause::Reuse => Some(before.reused_time_wait(sender, &segment)),
            _ => TimeWaitVisit::of(sender, &segment, &outcome).map(|visit| (visit, sender.peer())),
        }
    }

    #[test]
    fn each_segment_at_a_time_wait_has_its_name() {
        use TimeWaitVisit::*;
        let syn = |seq, tsval| segment(Flags::SYN, seq, 0, tsval);
        for (name, tsval, sender, segment, expected) in [
            ("the FIN again", 0, End::B, segment(FIN, 901, 102, 0), Some((Restarted, End::A))),
            (
                "old data",
                0,
                End::B,
                Segment { payload_len: 1, ..segment(ACK, 900, 101, 0) },
                Some((OldDuplicate, End::A)),
            ),
            ("a higher number", 0, End::B, syn(9_000, 0), Some((ReusedBySequence, End::A))),
            ("a lower number", 0, End::B, syn(500, 0), Some((ReuseRefused, End::A))),
            ("a newer timestamp", 7, End::B, syn(500, 8), Some((ReusedByTimestamp, End::A))),
            ("an older timestamp", 7, End::B, syn(9_000, 6), Some((ReuseRefused, End::A))),
            ("the same timestamp", 7, End::B, syn(9_000, 7), Some((ReusedBySequence, End::A))),
            ("the holder", 0, End::A, syn(9_000, 0), Some((ReusedByHolder, End::A))),
            ("an RST", 0, End::B, segment(Flags::RST, 902, 0, 0), None),
        ] {
            assert_eq!(visit(tsval, sender, segment), expected, "{name}");
        }
    }
}
