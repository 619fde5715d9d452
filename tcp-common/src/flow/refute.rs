//! An accepted RST can be refuted (R28): its receiver ignored it, because of TCP-MD5 (RFC 2385), TCP-AO (RFC
//! 5925) or a firewall, and the connection goes on.

use super::ack::MIN_WINDOW;
use super::claim::{apply_claim, is_near};
use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::{Cause, Flow, Outcome, Step, sides};
use crate::seq::before;

impl Flow {
    /// Whether the segment is the first to acknowledge bytes, or a FIN, that its receiver sent after the RST
    /// that ended the connection. The connection then goes on. Otherwise a segment with bytes or a FIN becomes its sender's
    /// claim.
    #[inline(never)]
    pub(super) fn is_refuted_by(&mut self, step: &Step) -> bool {
        if !self.is_refutable() {
            return false;
        }
        let segment = step.segment;
        let (x, y) = sides(&mut self.ends, step.sender());
        let [start, end, acked] = y.claim;
        let agrees = y.has(CLAIM)
            && before(x.ack, segment.ack)
            && segment.ack.wrapping_sub(start).wrapping_sub(1) < end.wrapping_sub(start)
            && is_near(start, y.rcv_nxt, MIN_WINDOW)
            && is_near(segment.seq, acked, MIN_WINDOW);
        if !agrees {
            if segment.end() != segment.seq {
                x.remember(segment);
            }
            return false;
        }
        x.clear(GONE);
        y.clear(GONE);
        apply_claim(x, y);
        self.undo_reset();
        true
    }

    /// Reopens a connection that a RST ended, since a check has found the socket of one of its ends alive.
    /// `None` if no RST ended it.
    pub fn reopen(&mut self, now_ns: u64) -> Option<Outcome> {
        if !self.is_over() || !self.is_refutable() {
            return None;
        }
        let mut outcome = Outcome::unchanged(self.states());
        for x in &mut self.ends {
            x.clear(GONE);
            x.proved = 0;
        }
        self.undo_reset();
        self.last_ns = now_ns;
        outcome.cause = Cause::Reopened;
        self.derive_states(now_ns, &mut outcome);
        Some(outcome)
    }

    /// Whether a RST ended the connection, and was refuted since.
    #[inline(always)]
    pub const fn was_reopened(&self) -> bool {
        self.facts & flow_fact::REOPENED != 0
    }

    /// Whether a RST ended the connection that was no refusal. After a refusal another attempt may follow.
    #[inline(always)]
    pub fn is_refutable(&self) -> bool {
        self.facts & (flow_fact::ABORTER_A | flow_fact::ABORTER_B) != 0
            && self.facts & flow_fact::REFUSED == 0
    }

    #[inline(always)]
    fn undo_reset(&mut self) {
        self.facts &= !(flow_fact::ABORTER_A
            | flow_fact::ABORTER_B
            | flow_fact::FORGOTTEN
            | flow_fact::TIME_WAIT_LOST
            | flow_fact::TIME_WAIT_RESET_A
            | flow_fact::TIME_WAIT_RESET_B
            | flow_fact::FINISHED);
        self.facts |= flow_fact::REOPENED;
        if !(self.ends[0].has(FIN) || self.ends[1].has(FIN)) {
            self.closing_ns = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{CloseKind, End, Flags, Flow, Rules, Segment, State};

    #[test]
    fn a_living_socket_refutes_a_reset_and_nothing_else() {
        let mut flow = Flow::EMPTY;
        let send = |flow: &mut Flow, sender, flags, seq, ack| {
            let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
            flow.on_segment(1_000, sender, &segment, &Rules::RFC);
        };
        send(&mut flow, End::A, Flags::SYN, 100, 0);
        send(&mut flow, End::B, Flags::SYN | Flags::ACK, 900, 101);
        send(&mut flow, End::A, Flags::ACK, 101, 901);
        assert!(flow.reopen(2_000).is_none());
        send(&mut flow, End::A, Flags::RST | Flags::ACK, 101, 901);
        let outcome = flow.reopen(2_000).expect("a RST ended it");
        assert_eq!((outcome.from, outcome.to), ([State::Closed; 2], [State::Established; 2]));
        assert_eq!((flow.close_kind(), flow.was_reopened(), flow.closing_ns()), (CloseKind::Open, true, 0));
        send(&mut flow, End::A, Flags::RST | Flags::ACK, 101, 901);
        assert!(flow.is_over() && flow.close_kind() == CloseKind::RstAbort);
    }
}
