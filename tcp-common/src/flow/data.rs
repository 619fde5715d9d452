//! ACK, payload and FIN: the established connection and its close (R2..R11, R17..R24), step by step.

use super::ack::{apply_ack, choose_answer, scaled_window};
use super::claim::{Agreement, compare_claim, is_behind, outside};
use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::fin::{apply_cover, apply_fin, deliver_own_fin, note_first_copy};
use super::open::pending_bit;
use super::proof::prove;
use super::reassembly::{Payload, apply_payload, begin_stream};
use super::unseen::{leave_hole, leave_unseen, mark_sent};
use super::{Cause, EndState, Flow, Outcome, Previous, Step, sides};
use crate::segment::{Flags, Segment};
use crate::seq::{Seq, at_or_before, before};
use crate::state::{End, State};

impl Flow {
    /// Applies a segment with an ACK and without SYN and RST. Restarts TIME-WAIT where it does that.
    #[inline(always)]
    pub(super) fn on_data(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let cause = self.apply_data(step, outcome);
        self.restart_time_wait(step, cause, outcome);
        cause
    }

    /// The steps of [`on_data`](Self::on_data), in the order of RFC 9293 3.10.7.4: sequence number, ACK,
    /// payload, FIN. In two calls with the cause in memory: the verifier then follows the paths of the second
    /// once, not once for each path through the first.
    #[inline(always)]
    fn apply_data(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let aborters = self.facts & ABORTER;
        if !self.find_incarnation(step, outcome) {
            return Cause::Late;
        }
        // Bits and not a bool: the verifier then has one unknown number here, not one path for each value.
        let refuted = aborters & !self.facts;
        if self.accept(step, outcome) {
            self.apply_accepted(step, outcome);
            if refuted != 0 {
                return Cause::Reopened;
            }
        }
        outcome.cause
    }

    /// Whether the receiver accepts the segment, by its sequence number and its ACK. Sets the cause, which the
    /// next steps may change if it does.
    #[inline(never)]
    fn accept(&mut self, step: &Step, outcome: &mut Outcome) -> bool {
        let Step { now_ns, segment, .. } = *step;
        let sender = step.sender();
        if (self.ends[0].facts | self.ends[1].facts) & FIN_REPORTED != 0 {
            self.locate_fins(sender, segment);
        }
        if self.goes_on_from_pending(step) {
            outcome.cause = Cause::PendingSyn;
            return false;
        }
        if self.ends[sender.peer() as usize & 1].has(CLAIM) {
            self.agree_to_pending(step, outcome);
        }
        let idle = now_ns.saturating_sub(self.last_ns) >= PAWS_IDLE_NS;
        let (_, y) = sides(&mut self.ends, sender);
        choose_answer(y, segment.ack);
        outcome.cause = if y.has(CLAIM) && self.agree(now_ns, sender, segment.seq, segment.ack) {
            Cause::Resync
        } else if segment.payload_len == 0 {
            Cause::Ack
        } else {
            Cause::Data
        };
        let (x, y) = sides(&mut self.ends, sender);
        if let Some(cause) = reject(x, y, segment) {
            outcome.cause = cause;
            return false;
        }
        if segment.flags.has(Flags::FIN) && !idle && is_outdated(x, segment) {
            x.remember(segment);
            note_first_copy(x, y.isn, segment);
            outcome.cause = Cause::OldDupSeq;
            return false;
        }
        if y.has(SEQ) && before(y.snd_max, segment.ack) && !self.accept_ack_beyond(step, &mut outcome.cause) {
            outcome.cause = Cause::AckUnsent;
            return false;
        }
        true
    }

    /// Applies a segment that the receiver accepts.
    #[inline(never)]
    fn apply_accepted(&mut self, step: &Step, outcome: &mut Outcome) {
        let Step { now_ns, segment, .. } = *step;
        let sender = step.sender();
        self.facts &= !pending_bit(sender);
        let (x, _) = sides(&mut self.ends, sender);
        x.clear(REOPENING);
        if segment.seq == x.snd_max {
            // It goes on where it was: its claim was not its own.
            x.clear(CLAIM | CLAIM_FIN);
        }
        self.record_gaps(sender, segment);
        let (x, y) = sides(&mut self.ends, sender);
        // Before `covers` is computed, since `apply_payload` is a call: across a call the verifier of Linux
        // 6.1 forgets that `covers` matters, takes the code after `true` for the code after `false`, and
        // removes it as dead.
        begin_stream(x, segment.seq);
        let Payload { fresh, after_fin } = match segment.payload_len {
            0 => Payload::NONE,
            _ => apply_payload(x, y, segment, &mut outcome.cause),
        };
        // R24: a keepalive lies below what the receiver has acknowledged, which drops it with its ACK
        // (`tcp_sequence`).
        let dropped = y.has(ACK) && before(segment.end(), y.ack);
        if is_behind(x, y, segment.ack) {
            x.remember(segment);
        }
        let covers = apply_ack(x, y, segment, dropped);
        let first_fin = apply_fin(x, y, segment, &mut outcome.cause);
        if first_fin && self.closing_ns == 0 {
            self.closing_ns = now_ns;
        }
        deliver_own_fin(x, y, segment, fresh);
        apply_cover(x, y, segment, covers, after_fin);
        x.proved = prove(x, y, segment, covers, fresh) as u8;
        if x.has(SYN_ACK) && x.proved == State::Established as u8 {
            x.set(SYN_ACKED);
        }
        x.set(SEEN);
        x.window = scaled_window(x, y, segment);
        record_timestamp(x, y, segment);
    }

    /// R19: whether a segment of `sender` agrees with the claim of the peer, which is then applied.
    #[inline(always)]
    pub(super) fn agree(&mut self, now_ns: u64, sender: End, seq: Seq, ack: Seq) -> bool {
        let (x, y) = sides(&mut self.ends, sender);
        let agreement = compare_claim(x, y, seq, ack);
        if agreement == Agreement::None {
            return false;
        }
        if y.has(FIN) && self.closing_ns == 0 {
            self.closing_ns = now_ns;
        }
        if agreement == Agreement::Gap {
            self.facts |= flow_fact::GAP;
        }
        true
    }

    /// Finds the incarnation that the segment belongs to, or begins one in the middle (R21). Returns
    /// whether there is one: a segment after the end revives it only by R9.
    #[inline(always)]
    fn find_incarnation(&mut self, step: &Step, outcome: &mut Outcome) -> bool {
        if self.incarnation == 0 || (self.is_over() && self.facts & flow_fact::SILENCE != 0) {
            let previous = if self.incarnation == 0 { Previous::None } else { Previous::Over };
            self.begin_midstream(step.now_ns, previous, outcome);
            return true;
        }
        !self.is_over() || self.is_revived_by(step.sender(), step.segment) || self.is_refuted_by(step)
    }

    /// R21: begins an incarnation whose handshake was not seen.
    #[inline(always)]
    fn begin_midstream(&mut self, now_ns: u64, previous: Previous, outcome: &mut Outcome) {
        self.reset_for_next(now_ns, previous, outcome);
        self.facts |= flow_fact::MIDSTREAM;
        for x in &mut self.ends {
            x.set(SYN | SYN_ACKED);
        }
    }

    /// Records bytes of either end that the segment shows to have been sent, and that were not seen (R11).
    #[inline(always)]
    fn record_gaps(&mut self, sender: End, segment: &Segment) {
        let (x, y) = sides(&mut self.ends, sender);
        let knew = y.has(FIN | UNSEEN);
        if y.has(SEEN) && before(y.rcv_nxt, segment.ack) && leave_hole(y, segment.ack) {
            self.facts |= flow_fact::GAP;
        }
        if !knew && y.has(UNSEEN) {
            mark_sent(x);
        }
        if segment.end() == segment.seq && !x.has(FIN) && x.has(SEQ) && before(x.snd_max, segment.seq) {
            leave_unseen(x, y, segment.seq);
        }
    }
}

/// Why the receiver does not accept the segment; `None` if it does. A segment outside the window is
/// remembered (R19).
#[inline(always)]
fn reject(x: &mut EndState, y: &mut EndState, segment: &Segment) -> Option<Cause> {
    let unanswered = y.is_in(State::SynSent) && !x.has(SYN);
    if (unanswered || y.is_in(State::SynReceived)) && !before(y.isn, segment.ack) {
        // The receiver answers with a RST and waits on: the segment is of an earlier incarnation.
        return Some(Cause::AckUnsent);
    }
    if x.is_in(State::SynSent) && !x.has(REOPENING) && before(segment.seq, x.isn) {
        return Some(Cause::OldDupSeq);
    }
    if unanswered && !y.syn_acknowledged_by(segment.ack) {
        // R22: more than the SYN cannot be acknowledged before the opener has sent it.
        x.remember(segment);
        return Some(Cause::AckUnsent);
    }
    let cause = outside(x, y, segment.seq)?;
    x.remember(segment);
    Some(cause)
}

/// Whether PAWS drops the segment: its timestamp is more than a tick older than TS.Recent (RFC 7323 5;
/// `tcp_paws_check`).
#[inline(always)]
fn is_outdated(x: &EndState, segment: &Segment) -> bool {
    let has_both = x.has(TIMESTAMP) && segment.has(Segment::HAS_TIMESTAMP);
    has_both && before(segment.tsval.wrapping_add(1), x.tsval)
}

/// Records the timestamp as the receiver's TS.Recent: only of a segment that begins at or below its last ACK
/// (RFC 7323 4.3), and of both FINs and what follows them (R15). Between two ends that are proved to be
/// ESTABLISHED no segment need write it: what is kept is a lower bound.
#[inline(always)]
fn record_timestamp(x: &mut EndState, y: &EndState, segment: &Segment) {
    if !segment.has(Segment::HAS_TIMESTAMP) || (x.has(TIMESTAMP) && before(segment.tsval, x.tsval)) {
        return;
    }
    const ESTABLISHED: u8 = State::Established as u8;
    let closing = x.has(FIN) && (y.has(FIN) || segment.flags.has(Flags::FIN));
    let steady = x.proved >= ESTABLISHED && y.proved >= ESTABLISHED;
    if closing || (!steady && y.has(ACK) && at_or_before(segment.seq, y.ack)) {
        x.tsval = segment.tsval;
        x.set(TIMESTAMP);
    }
}

/// A RST ended the connection.
const ABORTER: u32 = flow_fact::ABORTER_A | flow_fact::ABORTER_B;
/// How long TS.Recent is valid on an idle connection, ns (`TCP_PAWS_24DAYS`).
const PAWS_IDLE_NS: u64 = 24 * 86_400 * 1_000_000_000;
