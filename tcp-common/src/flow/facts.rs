//! The facts, and the states that follow from them.

use super::{EndState, Flow, Outcome, reread};
use crate::segment::Segment;
use crate::seq::{at_or_before, before};
use crate::state::State;

/// Facts about one end, bits of `EndState::facts`.
pub mod end_fact {
    /// Its SYN was seen, or is known from the peer's ACK of it.
    pub const SYN: u32 = 1 << 0;
    /// It sent a SYN without ACK: it opened actively.
    pub const BARE_SYN: u32 = 1 << 1;
    /// It sent a SYN with ACK.
    pub const SYN_ACK: u32 = 1 << 2;
    /// The peer acknowledged its SYN, and that ACK is assumed to have arrived.
    pub const SYN_ACKED: u32 = 1 << 3;
    /// Its sequence numbers are known.
    pub const SEQ: u32 = 1 << 4;
    /// It sent an acknowledgment number.
    pub const ACK: u32 = 1 << 5;
    /// It sent a FIN, ending at `fin_end`.
    pub const FIN: u32 = 1 << 6;
    /// The peer has that FIN, and everything before it.
    pub const FIN_DELIVERED: u32 = 1 << 7;
    /// The peer's ACK of that FIN has reached this end; taken back when the FIN is sent again.
    pub const FIN_ACKED: u32 = 1 << 8;
    /// It no longer has the connection: reset, expired or given up.
    pub const GONE: u32 = 1 << 9;
    /// It sent an empty segment that covers the peer's FIN, or the byte that may be that FIN (R11), before
    /// its own FIN (R7).
    pub const EMPTY_COVER: u32 = 1 << 10;
    /// It sent new payload in a segment that covers the peer's FIN, or the byte that may be that FIN (R7,
    /// R11).
    pub const DATA_COVER: u32 = 1 << 11;
    /// `first_data_after_fin` is set.
    pub const FIRST_DATA_AFTER_FIN: u32 = 1 << 12;
    /// `claim` is set: a segment that was not accepted (R19).
    pub const CLAIM: u32 = 1 << 13;
    /// That segment carried a FIN.
    pub const CLAIM_FIN: u32 = 1 << 14;
    /// The first block is in use.
    pub const BLOCK_0: u32 = 1 << 15;
    /// The second block is in use.
    pub const BLOCK_1: u32 = 1 << 16;
    /// `tsval` is set.
    pub const TIMESTAMP: u32 = 1 << 17;
    /// It offered window scaling.
    pub const WSCALE: u32 = 1 << 18;
    /// It has sent a segment that belongs here.
    pub const SEEN: u32 = 1 << 19;
    /// `claim[0]` is the ISN of another SYN-ACK, sent before the present one (SYN cookies).
    pub const OTHER_ANSWER: u32 = 1 << 20;
    /// Its FIN was not seen but reported by a host: `fin_end` follows from later segments (R25).
    pub const FIN_REPORTED: u32 = 1 << 21;
    /// The last byte before the FIN, or before `snd_max`, was sent and not seen (R11).
    pub const UNSEEN: u32 = 1 << 22;
    /// The byte before the last one was not seen either.
    pub const UNSEEN_TWO: u32 = 1 << 23;
    /// An empty segment as of `EMPTY_COVER` came after the unseen byte, which may be the own FIN.
    pub const EMPTY_AFTER: u32 = 1 << 24;
    /// It was in TIME-WAIT or CLOSED when it sent the pending SYN, so it is in SYN-SENT (R14).
    pub const REOPENING: u32 = 1 << 25;
    /// All facts about segments that cover the peer's FIN.
    pub const COVERS: u32 = EMPTY_COVER | EMPTY_AFTER | DATA_COVER | FIRST_DATA_AFTER_FIN;
}

/// Facts about the incarnation, bits of `Flow::facts`.
pub mod flow_fact {
    /// Both ends were ESTABLISHED at some time.
    pub const ESTABLISHED: u32 = 1 << 0;
    /// End A sent the SYN.
    pub const INITIATOR_A: u32 = 1 << 1;
    /// End B sent the SYN.
    pub const INITIATOR_B: u32 = 1 << 2;
    /// An accepted RST of end A ended the connection.
    pub const ABORTER_A: u32 = 1 << 3;
    /// An accepted RST of end B ended the connection.
    pub const ABORTER_B: u32 = 1 << 4;
    /// The RST was the answer to a SYN.
    pub const REFUSED: u32 = 1 << 5;
    /// A limit of silence ended the connection.
    pub const SILENCE: u32 = 1 << 6;
    /// The next incarnation began while this one was not over.
    pub const SUPERSEDED: u32 = 1 << 7;
    /// The close was complete once: each end in TIME-WAIT or CLOSED. Taken back with the RST that was refuted
    /// (R28).
    pub const FINISHED: u32 = 1 << 8;
    /// End A has a pending SYN.
    pub const PENDING_A: u32 = 1 << 9;
    /// End B has a pending SYN.
    pub const PENDING_B: u32 = 1 << 10;
    /// The capture missed segments.
    pub const GAP: u32 = 1 << 11;
    /// The handshake was not seen.
    pub const MIDSTREAM: u32 = 1 << 12;
    /// End A belongs to this host.
    pub const LOCAL_A: u32 = 1 << 13;
    /// End B belongs to this host.
    pub const LOCAL_B: u32 = 1 << 14;
    /// The RST that ended it had no ACK, like that of a host without the connection (RFC 9293 3.5.2, group
    /// 1).
    pub const FORGOTTEN: u32 = 1 << 15;
    /// The flow was adopted from a socket before any segment was seen (R25).
    pub const ADOPTED: u32 = 1 << 16;
    /// An end in TIME-WAIT answered a FIN by a RST: it had lost its TIME-WAIT.
    pub const TIME_WAIT_LOST: u32 = 1 << 17;
    /// A RST ended the connection, and was refuted: it goes on (R28).
    pub const REOPENED: u32 = 1 << 18;
    /// An accepted RST of end A ended a TIME-WAIT: that of end B, or its own.
    pub const TIME_WAIT_RESET_A: u32 = 1 << 19;
    /// An accepted RST of end B ended a TIME-WAIT: that of end A, or its own.
    pub const TIME_WAIT_RESET_B: u32 = 1 << 20;
    /// Five bits: the [`IcmpError`](crate::wire::IcmpError) that ended the attempt, 0 for none.
    pub const ICMP: u32 = 0x1f << ICMP_SHIFT;
    /// Position of [`ICMP`].
    pub const ICMP_SHIFT: u32 = 21;
    /// Three bits: why the latest RST that was not accepted was not, counted from
    /// [`Cause::RstSynSent`](crate::Cause::RstSynSent), which is 1; 0 if there was none.
    pub const IGNORED_RST: u32 = 0x7 << IGNORED_RST_SHIFT;
    /// Position of [`IGNORED_RST`].
    pub const IGNORED_RST_SHIFT: u32 = 26;

    /// The facts about one end each: the bit of end A, the bit of end B.
    pub(in crate::flow) const PAIRS: [(u32, u32); 5] = [
        (INITIATOR_A, INITIATOR_B),
        (ABORTER_A, ABORTER_B),
        (PENDING_A, PENDING_B),
        (LOCAL_A, LOCAL_B),
        (TIME_WAIT_RESET_A, TIME_WAIT_RESET_B),
    ];
}

use end_fact::*;

impl EndState {
    /// Whether any of these bits of [`end_fact`] holds.
    #[inline(always)]
    pub const fn has(&self, fact: u32) -> bool {
        self.facts & fact != 0
    }

    #[inline(always)]
    pub(super) fn set(&mut self, fact: u32) {
        self.facts |= fact;
    }

    #[inline(always)]
    pub(super) fn clear(&mut self, fact: u32) {
        self.facts &= !fact;
    }

    /// Whether this number acknowledges the SYN, for an end that has sent nothing else.
    #[inline(always)]
    pub(super) fn syn_acknowledged_by(&self, ack: u32) -> bool {
        before(self.isn, ack) && at_or_before(ack, self.first_seq)
    }

    /// Whether the segment has an older timestamp than the end's latest.
    #[inline(always)]
    pub(super) fn is_outdated(&self, segment: &Segment) -> bool {
        self.has(TIMESTAMP) && segment.has(Segment::HAS_TIMESTAMP) && before(segment.tsval, self.tsval)
    }

    /// Whether this number acknowledges the end's FIN (R4: by number, never by "an ACK after a FIN").
    #[inline(always)]
    pub(super) fn fin_covered_by(&self, ack: u32) -> bool {
        self.has(FIN) && at_or_before(self.fin_end, ack)
    }

    /// Whether the first copy of this end's FIN already acknowledged the peer's: it closed second (R5, R6).
    #[inline(always)]
    pub(super) fn closed_knowing(&self, peer: &EndState) -> bool {
        self.has(FIN) && peer.fin_covered_by(self.fin_ack)
    }
}

/// The state of end `x` that follows from the facts (RFC 9293 3.10.7 read backwards).
#[inline(always)]
pub(super) fn derive(x: &EndState, y: &EndState) -> State {
    if x.has(REOPENING) {
        return State::SynSent;
    }
    if x.has(GONE) {
        return State::Closed;
    }
    if x.has(FIN) {
        return match (x.has(FIN_ACKED), y.has(FIN_DELIVERED), x.closed_knowing(y)) {
            (false, false, _) => State::FinWait1,
            (false, true, false) => State::Closing,
            (false, true, true) => State::LastAck,
            (true, false, _) => State::FinWait2,
            (true, true, false) => State::TimeWait,
            (true, true, true) => State::Closed,
        };
    }
    match (x.has(SYN), x.has(SYN_ACKED), y.has(SYN), y.has(FIN_DELIVERED)) {
        (false, _, true, _) => State::Listen,
        (false, _, false, _) => State::Closed,
        (true, false, false, _) => State::SynSent,
        // Its SYN again after the peer's SYN-ACK: that was lost. A bare SYN of the peer is a simultaneous
        // open.
        (true, false, true, _) if x.has(BARE_SYN) && !y.has(BARE_SYN) => State::SynSent,
        (true, false, true, _) => State::SynReceived,
        (true, true, _, false) => State::Established,
        (true, true, _, true) => State::CloseWait,
    }
}

impl Flow {
    /// [`derive_states`](Self::derive_states) as a function call, for paths that are rare.
    #[inline(never)]
    pub(super) fn derive_states_out_of_line(&mut self, now_ns: u64, outcome: &mut Outcome) {
        self.derive_states(now_ns, outcome);
    }

    /// Derives both states from the facts, starts TIME-WAIT if an end enters it, and completes the outcome.
    #[inline(always)]
    pub(super) fn derive_states(&mut self, now_ns: u64, outcome: &mut Outcome) {
        if self.incarnation == 0 {
            return;
        }
        let [a, b] = &mut self.ends;
        enter(a, b, now_ns);
        enter(b, a, now_ns);
        outcome.to = self.states();
        let [a, b] = &self.ends;
        if self.facts & flow_fact::ESTABLISHED == 0 && a.has(SYN_ACKED) && b.has(SYN_ACKED) {
            self.facts |= flow_fact::ESTABLISHED;
            self.established_ns = now_ns;
        }
        if self.is_finished() {
            self.facts |= flow_fact::FINISHED;
        }
    }
}

/// Enters the state that follows from the facts. Through memory: the verifier then has one unknown state, not
/// one path for each state.
#[inline(always)]
fn enter(x: &mut EndState, y: &EndState, now_ns: u64) {
    // From SYN-SENT it comes back to the TIME-WAIT that it never left: the SYN was not its own.
    let back = x.is_in(State::SynSent) && x.time_wait_at_ns != 0;
    let waits = x.is_in(State::TimeWait) || back;
    x.state = derive(x, y) as u8;
    if reread(&x.state) == State::TimeWait as u8 && !waits {
        x.time_wait_at_ns = now_ns;
    }
}
