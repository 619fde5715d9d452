//! RST: accepted only if a host would accept it (RFC 5961 3.2, rules R12 and R13).

use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::open::pending_bit;
use super::{Cause, EndState, Flow, Outcome, Previous, Step, sides};
use crate::segment::{Flags, Segment};
use crate::seq::{at_or_before, before};
use crate::state::{End, State};

impl Flow {
    /// Applies a RST, and remembers why if it is not accepted.
    #[inline(always)]
    pub(super) fn on_reset(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let cause = self.judge_reset(step, outcome);
        let number = (cause as u32).wrapping_sub(FIRST_IGNORED).wrapping_add(1);
        if number.wrapping_sub(1) < IGNORED.len() as u32 {
            self.facts = self.facts & !flow_fact::IGNORED_RST | number << flow_fact::IGNORED_RST_SHIFT;
        }
        cause
    }

    /// Why the latest RST of this incarnation that was not accepted was not: blind, late, or ignored by the rules in
    /// force. `None` if there was none.
    pub fn ignored_rst(&self) -> Option<Cause> {
        let number = (self.facts & flow_fact::IGNORED_RST) >> flow_fact::IGNORED_RST_SHIFT;
        IGNORED.get((number as usize).checked_sub(1)?).copied()
    }

    #[inline(never)]
    fn judge_reset(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let Step { now_ns, segment, rules, .. } = *step;
        let sender = step.sender();
        if self.incarnation == 0 {
            return Cause::RstNoFlow;
        }
        if self.is_over() {
            return Cause::RstClosed;
        }
        self.agree_to_reset(step);
        let complete = self.complete();
        if self.refuses_pending(sender, segment) {
            let previous = if complete { Previous::Over } else { Previous::Superseded };
            self.begin_pending(now_ns, sender.peer(), previous, outcome);
        }
        let (x, y) = sides(&mut self.ends, sender);
        let reopens = y.has(REOPENING);
        let answers_syn = y.is_in(State::SynSent) && !reopens;
        if answers_syn {
            let fits = segment.flags.has(Flags::ACK) && y.syn_acknowledged_by(segment.ack);
            if !fits {
                return Cause::RstSynSent;
            }
        } else if x.is_in(State::TimeWait) && y.is_in(State::Closed) {
            // Nothing was seen that it could answer.
            return Cause::RstClosed;
        } else if !is_exact(x, y, segment) {
            let offset = segment.seq.wrapping_sub(x.rcv_nxt);
            return if offset < y.window { Cause::RstInexact } else { Cause::RstOutOfWindow };
        } else if y.is_in(State::TimeWait) && rules.rfc1337 != 0 {
            return self.close_sender_only(sender);
        }
        let holder_lost = x.is_in(State::TimeWait);
        let ends_time_wait = holder_lost || y.is_in(State::TimeWait);
        if reopens || self.facts & pending_bit(sender) != 0 {
            // R13: one end is in SYN-SENT of the next incarnation. The RST ends only the old one.
            let previous = match (complete, sender) {
                (true, _) => Previous::Over,
                (false, End::A) => Previous::AbortedByA,
                (false, End::B) => Previous::AbortedByB,
            };
            self.begin_pending(now_ns, if reopens { sender.peer() } else { sender }, previous, outcome);
            return Cause::Rst;
        }
        let refuses = answers_syn && !x.has(SYN_ACK);
        x.proved = State::Closed as u8;
        x.set(SEEN);
        self.abort(now_ns, sender);
        if !segment.flags.has(Flags::ACK) {
            self.facts |= flow_fact::FORGOTTEN;
        }
        if holder_lost {
            self.facts |= flow_fact::TIME_WAIT_LOST;
        }
        if ends_time_wait {
            self.facts |= time_wait_reset_bit(sender);
        }
        if refuses {
            self.facts |= flow_fact::REFUSED;
            return Cause::Refused;
        }
        Cause::Rst
    }

    /// Whether the RST answers the pending SYN of an end that is in SYN-SENT by it.
    #[inline(always)]
    fn refuses_pending(&self, sender: End, segment: &Segment) -> bool {
        let y = &self.ends[sender.peer() as usize & 1];
        y.has(REOPENING)
            && segment.flags.has(Flags::ACK)
            && before(self.pending_isn, segment.ack)
            && at_or_before(segment.ack, self.pending_first())
    }

    /// R19: applies the claim of the receiver that the RST agrees with. An end that is not synchronized
    /// answers a claim by a RST with just these numbers, unless the RST has an ACK (RFC 9293 3.5.2).
    #[inline(always)]
    fn agree_to_reset(&mut self, step: &Step) {
        let Step { now_ns, segment, .. } = *step;
        let (x, y) = sides(&mut self.ends, step.sender());
        let acks = segment.flags.has(Flags::ACK);
        let synchronized = !x.is_in(State::SynSent) && (acks || !x.is_in(State::SynReceived));
        let synchronized = synchronized && !y.is_in(State::SynSent);
        if y.has(CLAIM) && segment.seq == y.claim[2] && synchronized {
            let ack = if acks { segment.ack } else { y.claim[1] };
            self.agree(now_ns, step.sender(), segment.seq, ack);
        }
    }

    /// R12: closes the sender of a RST that its receiver, in TIME-WAIT, ignores (RFC 1337).
    #[inline(always)]
    fn close_sender_only(&mut self, sender: End) -> Cause {
        let complete = self.complete();
        let x = &mut self.ends[sender as usize & 1];
        x.proved = State::Closed as u8;
        if x.is_in(State::Closed) {
            return Cause::RstRfc1337;
        }
        x.set(GONE);
        if !complete {
            self.facts |= aborter_bit(sender);
        }
        Cause::Rst
    }

    /// Ends the incarnation by a RST of `aborter`. A close that was complete keeps the kind that its FINs
    /// gave it.
    #[inline(always)]
    pub(super) fn abort(&mut self, now_ns: u64, aborter: End) {
        if !self.complete() {
            self.facts |= aborter_bit(aborter);
        }
        self.end_both(now_ns);
    }

    /// Ends the incarnation at both ends.
    #[inline(always)]
    pub(super) fn end_both(&mut self, now_ns: u64) {
        if self.closing_ns == 0 {
            self.closing_ns = now_ns;
        }
        for x in &mut self.ends {
            x.set(GONE);
            x.clear(REOPENING | CLAIM | CLAIM_FIN);
        }
    }
}

/// Causes of RSTs that belong to a connection and are not accepted (RFC 9293 3.10.7.3, RFC 5961 3.2, RFC 1337), in the
/// order of their numbers.
const IGNORED: [Cause; 4] = Cause::IGNORED_RSTS;
const FIRST_IGNORED: u32 = IGNORED[0] as u32;

/// The fact that an accepted RST of this end ended the connection.
#[inline(always)]
const fn aborter_bit(end: End) -> u32 {
    match end {
        End::A => flow_fact::ABORTER_A,
        End::B => flow_fact::ABORTER_B,
    }
}

/// The fact that an accepted RST of this end ended a TIME-WAIT.
#[inline(always)]
const fn time_wait_reset_bit(end: End) -> u32 {
    match end {
        End::A => flow_fact::TIME_WAIT_RESET_A,
        End::B => flow_fact::TIME_WAIT_RESET_B,
    }
}

/// R12: whether the RST has a number that a host accepts: the sender's in-order edge, its highest number,
/// the receiver's last ACK, or the number of the sender's FIN if the receiver has it (`tcp_reset_check`).
/// Always true for a flow that was adopted and whose numbers are unknown (R25).
#[inline(always)]
fn is_exact(x: &EndState, y: &EndState, segment: &Segment) -> bool {
    if !x.has(SEQ) || segment.seq == x.rcv_nxt {
        return true;
    }
    if y.is_in(State::TimeWait) {
        return false;
    }
    // Bytes that were not seen are not held by the receiver either, a FIN that was seen is (Linux: the
    // highest SACK edge).
    (segment.seq == x.snd_max && (x.has(FIN) || !x.has(UNSEEN)))
        // The first segment seen may have been a keepalive, unless it was a SYN; or the FIN was located by an
        // ACK of all before it.
        || ((x.has(FIN_REPORTED) || !(y.has(SEEN) || x.has(BARE_SYN | SYN_ACK)))
            && segment.seq == x.rcv_nxt.wrapping_add(1))
        || (y.has(ACK) && segment.seq == y.ack)
        || (x.has(FIN_DELIVERED) && segment.seq == x.fin_end.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flags, Rules};

    #[test]
    fn the_latest_rst_that_was_not_accepted_is_remembered_until_the_next_incarnation() {
        let numbers = IGNORED.map(|cause| cause as u32 - FIRST_IGNORED);
        assert_eq!(numbers, [0, 1, 2, 3]);
        let mut flow = Flow::EMPTY;
        let mut send = |sender, flags, seq, ack| {
            let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
            let cause = flow.on_segment(1_000, sender, &segment, &Rules::RFC).cause;
            (cause, flow.ignored_rst())
        };
        send(End::A, Flags::SYN, 100, 0);
        assert_eq!(send(End::B, Flags::RST | Flags::ACK, 0, 7), (Cause::RstSynSent, Some(Cause::RstSynSent)));
        send(End::B, Flags::SYN | Flags::ACK, 900, 101);
        send(End::A, Flags::ACK, 101, 901);
        assert_eq!(send(End::B, Flags::RST, 911, 0), (Cause::RstInexact, Some(Cause::RstInexact)));
        assert_eq!(send(End::B, Flags::RST, 90_000, 0).1, Some(Cause::RstOutOfWindow));
        assert_eq!(
            send(End::B, Flags::RST | Flags::ACK, 901, 101),
            (Cause::Rst, Some(Cause::RstOutOfWindow))
        );
        assert_eq!(send(End::A, Flags::SYN, 700_000, 0), (Cause::Syn, None));
    }
}
