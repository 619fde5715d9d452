//! What has been reported of an incarnation, and what is still to be reported.
//!
//! Kernel programs and agent set the bits while they have the flow locked. So each open, close and end of a
//! TIME-WAIT is reported once, by whichever of them comes first.

use crate::flow::Flow;
use crate::state::End;

/// Bits of [`Flow::reported`]. A bit is set if the agent has counted it, or if an event of it is on its way to the
/// agent.
pub mod reported {
    /// Both ends have been ESTABLISHED.
    pub const OPEN: u32 = 1;
    /// The close is complete. Cleared again if it is refuted (R28).
    pub const CLOSE: u32 = 2;
    /// End A has left TIME-WAIT. Cleared again if a late segment shows that it has not.
    pub const LEFT_TIME_WAIT_A: u32 = 4;
    /// End B has left TIME-WAIT.
    pub const LEFT_TIME_WAIT_B: u32 = 8;
    /// The SYN was sent again without an answer. Only the agent's scan sets it: no event reports it.
    pub const ATTEMPT: u32 = 16;
}

impl Flow {
    /// Marks everything that holds now as reported. Returns the bits of [`reported`] that this changes; each is
    /// for the caller to report.
    #[inline(always)]
    pub fn report(&mut self) -> u32 {
        let unreported = self.unreported();
        self.set_reported(self.reported() ^ unreported);
        unreported
    }

    /// The bits of [`reported`] in which what was reported differs from what holds now; never
    /// [`ATTEMPT`](reported::ATTEMPT), which the agent keeps itself.
    #[inline(always)]
    pub fn unreported(&self) -> u32 {
        let left = |end: End| self.end(end).has_left_time_wait() as u32;
        let holds = (self.was_established() as u32 * reported::OPEN)
            | (self.was_finished() as u32 * reported::CLOSE)
            | (left(End::A) * reported::LEFT_TIME_WAIT_A)
            | (left(End::B) * reported::LEFT_TIME_WAIT_B);
        holds ^ (self.reported() & !reported::ATTEMPT)
    }
}

#[cfg(test)]
mod tests {
    use super::reported::{ATTEMPT, CLOSE, LEFT_TIME_WAIT_A, OPEN};
    use super::*;
    use crate::{Cause, Flags, Rules, Segment, State};

    /// Applies segments: sender, flags, sequence and acknowledgment number, bytes of payload. Returns what each of
    /// them reports.
    fn reports(flow: &mut Flow, segments: &[(End, u8, u32, u32, u32)]) -> Vec<u32> {
        let send = |&(sender, flags, seq, ack, payload_len): &(End, u8, u32, u32, u32)| {
            let segment =
                Segment { flags: Flags(flags), seq, ack, payload_len, window: 1000, ..Segment::default() };
            flow.on_segment(1_000, sender, &segment, &Rules::RFC);
            flow.report()
        };
        segments.iter().map(send).collect()
    }

    const ACK: u8 = Flags::ACK;
    const SYN: u8 = Flags::SYN;
    const FIN: u8 = Flags::FIN;
    const RST: u8 = Flags::RST;

    /// The handshake of an incarnation that begins with this number.
    fn handshake(isn: u32) -> [(End, u8, u32, u32, u32); 3] {
        [(End::A, SYN, isn, 0, 0), (End::B, SYN | ACK, isn, isn + 1, 0), (End::A, ACK, isn + 1, isn + 1, 0)]
    }

    #[test]
    fn a_close_is_reported_when_both_ends_are_done_and_the_end_of_time_wait_later() {
        let mut flow = Flow::EMPTY;
        assert_eq!(reports(&mut flow, &handshake(100)), [0, 0, OPEN]);
        let close = [
            (End::A, FIN | ACK, 101, 101, 0),
            (End::B, FIN | ACK, 101, 102, 0),
            (End::A, ACK, 102, 102, 0),
            // The last ACK was lost: end B is in LAST-ACK again, and CLOSED again.
            (End::B, FIN | ACK, 101, 102, 0),
            (End::A, ACK, 102, 102, 0),
        ];
        assert_eq!(reports(&mut flow, &close), [0, 0, CLOSE, 0, 0]);
        flow.tick(1_000 + Rules::RFC.time_wait_remote_ns, &Rules::RFC);
        assert_eq!(flow.report(), LEFT_TIME_WAIT_A);
        assert_eq!(flow.unreported(), 0);
    }

    #[test]
    fn what_was_not_marked_is_still_to_be_reported() {
        let mut flow = Flow::EMPTY;
        reports(&mut flow, &handshake(100));
        let before = flow.reported();
        reports(&mut flow, &[(End::A, RST | ACK, 101, 101, 0)]);
        flow.set_reported(before);
        assert_eq!(flow.unreported(), CLOSE);
    }

    #[test]
    fn a_refuted_close_clears_the_bit_and_the_next_close_sets_it_again() {
        let mut flow = Flow::EMPTY;
        reports(&mut flow, &handshake(100));
        let segments = [
            (End::A, RST | ACK, 101, 101, 0),
            (End::B, ACK, 101, 101, 10),
            (End::A, ACK, 101, 111, 0),
            (End::A, RST | ACK, 101, 111, 0),
        ];
        assert_eq!(reports(&mut flow, &segments), [CLOSE, 0, CLOSE, CLOSE]);
        assert_eq!(flow.reported(), OPEN | CLOSE);
    }

    #[test]
    fn a_reset_time_wait_is_known_by_the_sender_of_the_rst() {
        let closed = || {
            let mut flow = Flow::EMPTY;
            reports(&mut flow, &handshake(100));
            let close = [(End::A, FIN | ACK, 101, 101, 0), (End::B, FIN | ACK, 101, 102, 0)];
            reports(&mut flow, &close);
            assert_eq!(flow.states(), [State::TimeWait, State::LastAck]);
            flow
        };
        for (sender, seq, lost) in [(End::A, 102, true), (End::B, 102, false)] {
            let mut flow = closed();
            assert_eq!(reports(&mut flow, &[(sender, RST, seq, 0, 0)]), [CLOSE | LEFT_TIME_WAIT_A]);
            assert_eq!((flow.time_wait_resetter(), flow.state_lost()), (Some(sender), lost), "{sender:?}");
        }
        let mut flow = closed();
        let outcome = flow.tick(u64::MAX, &Rules::RFC);
        assert_eq!((outcome.cause, flow.time_wait_resetter()), (Cause::TimeWaitExpired, None));
    }

    #[test]
    fn a_reported_attempt_stays_reported_when_it_is_answered() {
        let mut flow = Flow::EMPTY;
        let [syn, syn_ack, ack] = handshake(100);
        reports(&mut flow, &[syn]);
        flow.set_reported(ATTEMPT);
        assert_eq!(flow.unreported(), 0);
        assert_eq!(reports(&mut flow, &[syn_ack, ack]), [0, OPEN]);
        assert_eq!(flow.reported(), ATTEMPT | OPEN);
    }

    #[test]
    fn the_next_incarnation_begins_unreported() {
        let mut flow = Flow::EMPTY;
        reports(&mut flow, &handshake(100));
        reports(&mut flow, &[(End::A, RST | ACK, 101, 101, 0)]);
        assert_eq!(reports(&mut flow, &handshake(900_000)), [0, 0, OPEN]);
        assert_eq!(flow.reported(), OPEN);
    }
}
