//! SYN and SYN-ACK: the handshake, simultaneous and split opens, the next incarnation (R14..R16, R22).

use super::ack::MIN_WINDOW;
use super::claim::apply_claim;
use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::reassembly::begin_stream;
use super::{Cause, EndState, Flow, Outcome, Previous, Step, sides};
use crate::segment::Segment;
use crate::seq::{Seq, before};
use crate::state::{End, State};

impl Flow {
    /// Applies a SYN without ACK.
    #[inline(never)]
    pub(super) fn on_syn(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let Step { now_ns, segment, .. } = *step;
        let sender = step.sender();
        let ended = self.is_over();
        let silence = self.facts & flow_fact::SILENCE != 0;
        // R16: after a failure a host may try again with the same ISN.
        let failed = self.has_failed();
        let empty = self.incarnation == 0;
        let (x, y) = sides(&mut self.ends, sender);
        let same_isn = x.has(SYN) && x.isn == segment.seq;
        if empty || (ended && (silence || failed || !same_isn)) {
            self.begin(now_ns, sender, segment, if empty { Previous::None } else { Previous::Over }, outcome);
            return Cause::Syn;
        }
        let only_acked = x.has(SYN) && !x.has(BARE_SYN | SYN_ACK | SYN_ACKED);
        if only_acked && y.is_in(State::SynSent) && segment.seq.wrapping_sub(x.isn) <= 1 {
            // The second part of a split handshake, after an ACK.
            start(x, segment, State::SynSent);
            x.set(BARE_SYN);
            return Cause::Syn;
        }
        if same_isn {
            // R16: a copy proves SYN-SENT while the sender has shown nothing later.
            if x.proved > State::SynSent as u8 {
                return Cause::OldDupSyn;
            }
            record_syn_options(x, segment);
            if x.proved == State::SynSent as u8 && x.has(BARE_SYN) && !y.has(BARE_SYN) {
                x.clear(SYN_ACKED);
            }
            return Cause::SynAgain;
        }
        if y.has(REOPENING) {
            // Both open again.
            self.begin_pending(now_ns, sender.peer(), Previous::Over, outcome);
        }
        let (x, y) = sides(&mut self.ends, sender);
        if x.is_in(State::SynSent) && !y.has(SYN) {
            self.begin(now_ns, sender, segment, Previous::Superseded, outcome);
            return Cause::Syn;
        }
        if !x.has(SYN) && y.has(BARE_SYN) && !y.has(SYN_ACKED) {
            // Simultaneous open, or the first part of a split handshake.
            start(x, segment, State::SynSent);
            x.set(BARE_SYN);
            return Cause::Syn;
        }
        let peer_waits = y.is_in(State::TimeWait);
        let holder_alone = (x.is_in(State::TimeWait) || x.has(REOPENING)) && y.is_in(State::Closed);
        if holder_alone || (peer_waits && may_reuse(x, segment)) {
            self.begin(now_ns, sender, segment, Previous::Over, outcome);
            return Cause::Reuse;
        }
        if x.is_in(State::TimeWait) || x.is_in(State::Closed) {
            x.set(REOPENING);
            x.proved = State::SynSent as u8;
        }
        self.pending_isn = segment.seq;
        self.pending_payload = segment.payload_len as u16;
        self.pending_answered_ms = 0;
        self.pending_tsval = segment.tsval;
        self.facts = (self.facts & !(flow_fact::PENDING_A | flow_fact::PENDING_B)) | pending_bit(sender);
        Cause::PendingSyn
    }

    /// Applies a SYN with ACK.
    #[inline(never)]
    pub(super) fn on_syn_ack(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let Step { now_ns, segment, .. } = *step;
        let sender = step.sender();
        let ended = self.is_over();
        let silence = self.facts & flow_fact::SILENCE != 0;
        let failed = self.has_failed();
        let pending = self.facts & pending_bit(sender.peer()) != 0
            && (segment.ack == self.pending_first() || segment.ack == self.pending_isn.wrapping_add(1));
        let empty = self.incarnation == 0;
        let (x, y) = sides(&mut self.ends, sender);
        let same_isn = x.has(SYN) && x.isn == segment.seq;
        if empty || ended {
            let of_this = same_isn || (y.has(BARE_SYN) && y.syn_acknowledged_by(segment.ack));
            if of_this && !silence && !failed {
                return Cause::Late;
            }
            // R22: the SYN was missed. The end that is answered has opened.
            let previous = if empty { Previous::None } else { Previous::Over };
            self.begin_unseen(
                now_ns,
                sender.peer(),
                segment.ack.wrapping_sub(1),
                segment.ack,
                previous,
                outcome,
            );
        } else if pending {
            let complete = self.complete();
            let previous = if complete { Previous::Over } else { Previous::Superseded };
            self.begin_pending(now_ns, sender.peer(), previous, outcome);
        } else if y.has(SYN) && !y.syn_acknowledged_by(segment.ack) {
            return Cause::BadSynAck;
        } else if same_isn {
            let again = x.has(SYN_ACK);
            if x.proved > State::SynReceived as u8 && y.has(SYN_ACKED) {
                return Cause::DupSynAck;
            }
            if again {
                if !(x.has(BARE_SYN) && y.has(BARE_SYN)) {
                    x.clear(SYN_ACKED);
                }
                y.set(SYN_ACKED);
                return Cause::SynAckAgain;
            }
        } else if !y.has(SYN) || y.proved > State::SynSent as u8 {
            return Cause::BadSynAck;
        }
        let opener_too = self.facts & opener_bit(sender) != 0;
        let (x, y) = sides(&mut self.ends, sender);
        let opened_actively = x.has(BARE_SYN);
        let acked = x.has(SYN_ACKED) && opened_actively;
        if x.has(SYN_ACK) {
            x.claim[0] = x.isn;
            x.clear(CLAIM | CLAIM_FIN);
            x.set(OTHER_ANSWER);
        }
        start(x, segment, State::SynReceived);
        // What a peer refuses comes again with the same numbers.
        x.bytes = segment.payload_len as u64;
        x.set(SYN_ACK | ACK);
        if acked {
            x.set(SYN_ACKED);
        } else {
            x.clear(SYN_ACKED);
        }
        x.ack = segment.ack;
        let unseen_syn = !y.has(SYN);
        if unseen_syn {
            // A SYN and a SYN-ACK of one end: the other has sent a SYN as well.
            y.isn = segment.ack.wrapping_sub(1);
            y.set(SYN | SEQ | BARE_SYN);
        }
        y.set(SYN_ACKED);
        if y.proved <= State::SynSent as u8 {
            // A Fast Open payload that the server refused is sent again: the stream begins at the ACK.
            y.bytes = segment.ack.wrapping_sub(y.isn).wrapping_sub(1) as u64;
            y.first_seq = segment.ack;
            y.rcv_nxt = segment.ack;
            y.snd_max = segment.ack;
        }
        let split = y.has(BARE_SYN) && y.has(SYN_ACK) && x.has(BARE_SYN);
        if split || unseen_syn || (opened_actively && !opener_too && y.has(SYN_ACK)) {
            self.facts |= flow_fact::INITIATOR_A | flow_fact::INITIATOR_B;
        }
        Cause::SynAck
    }

    /// Begins the next incarnation with a SYN of `opener`.
    #[inline(always)]
    fn begin(
        &mut self,
        now_ns: u64,
        opener: End,
        segment: &Segment,
        previous: Previous,
        outcome: &mut Outcome,
    ) {
        self.reset_for_next(now_ns, previous, outcome);
        self.facts |= opener_bit(opener);
        let (x, _) = sides(&mut self.ends, opener);
        start(x, segment, State::SynSent);
        x.set(BARE_SYN);
    }

    /// Begins the next incarnation with the SYN that was pending.
    #[inline(always)]
    pub(super) fn begin_pending(
        &mut self,
        now_ns: u64,
        opener: End,
        previous: Previous,
        outcome: &mut Outcome,
    ) {
        let (isn, first, tsval) = (self.pending_isn, self.pending_first(), self.pending_tsval);
        self.begin_unseen(now_ns, opener, isn, first, previous, outcome);
        let (x, _) = sides(&mut self.ends, opener);
        x.tsval = tsval;
        x.set(BARE_SYN | SEEN);
        x.proved = State::SynSent as u8;
        x.state = State::SynSent as u8;
    }

    /// Sequence number of the first byte after the pending SYN and its payload.
    #[inline(always)]
    pub(super) const fn pending_first(&self) -> Seq {
        self.pending_isn.wrapping_add(1).wrapping_add(self.pending_payload as u32)
    }

    /// R14: whether the segment goes on from the pending SYN of its sender, whose SYN-ACK was not seen. It is
    /// the sender's claim then, and of the next incarnation if the peer agrees.
    #[inline(always)]
    pub(super) fn goes_on_from_pending(&mut self, step: &Step) -> bool {
        let Step { now_ns, segment, .. } = *step;
        if self.facts & pending_bit(step.sender()) == 0 {
            return false;
        }
        let first = self.pending_first();
        let x = &mut self.ends[step.sender as usize & 1];
        if segment.seq.wrapping_sub(first) > MIN_WINDOW || !before(x.snd_max, segment.seq) {
            return false;
        }
        x.remember(segment);
        if self.pending_answered_ms == 0 {
            self.pending_answered_ms = ((now_ns / MS) as u16).max(1);
        }
        true
    }

    /// R14: begins the next incarnation, if the segment acknowledges what the peer claims to have sent after
    /// its pending SYN. It began when the peer acknowledged the SYN-ACK that was not seen, less than 65 s ago.
    #[inline(always)]
    pub(super) fn agree_to_pending(&mut self, step: &Step, outcome: &mut Outcome) {
        let Step { now_ns, segment, .. } = *step;
        let opener = step.sender().peer();
        if self.facts & pending_bit(opener) == 0 || self.pending_answered_ms == 0 {
            return;
        }
        let y = &self.ends[opener as usize & 1];
        let (claim, fin) = (y.claim, y.facts & CLAIM_FIN);
        let [start, end, acked] = claim;
        let agrees = start.wrapping_sub(self.pending_first()) <= MIN_WINDOW
            && segment.ack.wrapping_sub(start) <= end.wrapping_sub(start)
            && segment.seq.wrapping_sub(acked) <= MIN_WINDOW;
        if !agrees {
            return;
        }
        let ago_ms = ((now_ns / MS) as u16).wrapping_sub(self.pending_answered_ms);
        let previous = if self.complete() { Previous::Over } else { Previous::Superseded };
        self.begin_pending(now_ns - u64::from(ago_ms) * MS, opener, previous, outcome);
        let (x, y) = sides(&mut self.ends, step.sender());
        begin_stream(x, acked);
        x.set(SYN);
        y.claim = claim;
        y.set(CLAIM | fin | SYN_ACKED);
        y.state = State::Established as u8;
        apply_claim(x, y);
        if fin != 0 {
            self.closing_ns = now_ns;
        }
    }

    /// Begins the next incarnation with a SYN of `opener` of which only the numbers are known.
    #[inline(always)]
    fn begin_unseen(
        &mut self,
        now_ns: u64,
        opener: End,
        isn: Seq,
        first: Seq,
        previous: Previous,
        outcome: &mut Outcome,
    ) {
        self.reset_for_next(now_ns, previous, outcome);
        self.facts |= opener_bit(opener);
        let (x, _) = sides(&mut self.ends, opener);
        x.set(SYN | SEQ);
        x.isn = isn;
        x.first_seq = first;
        x.rcv_nxt = first;
        x.snd_max = first;
        x.window = DEFAULT_WINDOW;
    }

    /// Resets the flow for the next incarnation. Keeps which ends are local and the count of incarnations.
    #[inline(never)]
    pub(super) fn reset_for_next(&mut self, now_ns: u64, previous: Previous, outcome: &mut Outcome) {
        let incarnation = match self.incarnation.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        let local = self.facts & (flow_fact::LOCAL_A | flow_fact::LOCAL_B);
        *self = Flow::EMPTY;
        self.incarnation = incarnation;
        self.facts = local;
        self.opened_ns = now_ns;
        outcome.from = [State::Closed, State::Closed];
        outcome.previous = previous;
    }
}

/// The fact that this end has a pending SYN.
#[inline(always)]
pub(super) const fn pending_bit(end: End) -> u32 {
    match end {
        End::A => flow_fact::PENDING_A,
        End::B => flow_fact::PENDING_B,
    }
}

/// The fact that this end sent the SYN.
#[inline(always)]
pub(super) const fn opener_bit(end: End) -> u32 {
    match end {
        End::A => flow_fact::INITIATOR_A,
        End::B => flow_fact::INITIATOR_B,
    }
}

/// Applies the numbers and options of an end's SYN or SYN-ACK.
#[inline(always)]
fn start(x: &mut EndState, segment: &Segment, proved: State) {
    x.isn = segment.seq;
    x.first_seq = segment.end();
    x.rcv_nxt = x.first_seq;
    x.snd_max = x.first_seq;
    x.proved = proved as u8;
    x.clear(CLAIM | CLAIM_FIN);
    x.set(SYN | SEQ | SEEN);
    record_syn_options(x, segment);
}

/// Records window and options of a SYN.
#[inline(always)]
fn record_syn_options(x: &mut EndState, segment: &Segment) {
    // The window field of a SYN is never scaled (RFC 7323 2.2).
    x.window = segment.window as u32;
    if segment.has(Segment::HAS_WSCALE) {
        x.wscale = segment.wscale;
        x.set(WSCALE);
    }
    if segment.has(Segment::HAS_TIMESTAMP) {
        x.tsval = segment.tsval;
        x.set(TIMESTAMP);
    }
}

/// R15 and RFC 6191: whether the peer of `x`, in TIME-WAIT, accepts this SYN for a new connection.
#[inline(always)]
fn may_reuse(x: &EndState, segment: &Segment) -> bool {
    if x.has(TIMESTAMP) && segment.has(Segment::HAS_TIMESTAMP) {
        if before(x.tsval, segment.tsval) {
            return true;
        }
        if before(segment.tsval, x.tsval) {
            return false;
        }
    }
    x.has(SEQ) && before(x.rcv_nxt, segment.seq)
}

/// One millisecond, in ns.
const MS: u64 = 1_000_000;
/// Window that is assumed of an end before it has sent one, in bytes.
const DEFAULT_WINDOW: u32 = 65_535;
