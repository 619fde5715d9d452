//! Claims: segments whose numbers lie outside what was seen of the connection. One segment alone may be
//! old, forged, or sent after a loss of any size in the capture. Nothing of it is accepted until a segment
//! of the other end agrees with it in both directions, which no blind sender can arrange (R19).

use super::ack::MIN_WINDOW;
use super::facts::end_fact::*;
use super::fin::{deliver_fin, void_fin};
use super::reassembly::{advance, merge_blocks};
use super::unseen::{leave_unseen, mark_sent};
use super::{Cause, EndState};
use crate::segment::{Flags, Segment};
use crate::seq::{Seq, at_or_before, before, later};
use crate::state::State;

/// What a segment says of the peer's claim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Nothing: the claim stays a claim.
    None,
    /// The claim is true, and no byte before it was missed.
    Whole,
    /// The claim is true, and bytes before it were not seen.
    Gap,
}

impl EndState {
    /// Bytes of payload in the last segment that was not accepted (R19); 0 if there is none.
    pub const fn claimed_bytes(&self) -> u32 {
        let [start, end, _] = self.claim;
        if self.has(CLAIM) { end.wrapping_sub(start) - self.has(CLAIM_FIN) as u32 } else { 0 }
    }

    /// Remembers a segment of this end that is not accepted. One that follows the last such segment makes one
    /// claim with it.
    #[inline(always)]
    pub(super) fn remember(&mut self, segment: &Segment) {
        let follows = self.has(CLAIM) && !self.has(CLAIM_FIN) && segment.seq == self.claim[1];
        let start = if follows { self.claim[0] } else { segment.seq };
        self.claim = [start, segment.end(), segment.ack];
        self.clear(CLAIM_FIN | OTHER_ANSWER);
        self.set(if segment.flags.has(Flags::FIN) { CLAIM | CLAIM_FIN } else { CLAIM });
    }
}

/// Why a sequence number of `x` is outside the window of `y`; `None` if it is not. The check is off until
/// both directions were seen (R19, R21).
#[inline(always)]
pub(super) fn outside(x: &EndState, y: &EndState, seq: Seq) -> Option<Cause> {
    if !(x.has(SEQ) && x.has(SEEN) && y.has(SEEN)) {
        return None;
    }
    let window = y.window.max(MIN_WINDOW);
    let upper = later(x.rcv_nxt, if y.has(ACK) { y.ack } else { x.rcv_nxt }).wrapping_add(window);
    if before(seq, x.rcv_nxt.wrapping_sub(window)) {
        Some(Cause::OldDupSeq)
    } else if before(upper, seq) {
        Some(Cause::SeqAboveWindow)
    } else {
        None
    }
}

/// Whether an ACK of `x` far beyond what was seen goes on from its last claim, with the next sequence
/// number and with something new: what a blind sender guesses fits once, but does not go on.
#[inline(always)]
pub(super) fn continues_claim(x: &EndState, segment: &Segment) -> bool {
    let [start, end, acked] = x.claim;
    x.has(CLAIM)
        && !x.has(CLAIM_FIN)
        && start == x.rcv_nxt
        && segment.seq == end
        && segment.ack.wrapping_sub(acked) <= MIN_WINDOW
        && (segment.ack != acked || segment.end() != end)
}

// Claims are rare, so their steps are calls: the verifier then follows what comes after a step once, not once
// for each path through it.

/// Compares a segment of `x`, with the acknowledgment number `ack`, with the claim of `y`. If they agree the
/// claim is applied to both ends, so that the segment finds edges that it fits.
#[inline(never)]
pub(super) fn compare_claim(x: &mut EndState, y: &mut EndState, seq: Seq, ack: Seq) -> Agreement {
    let [start, end, acked] = y.claim;
    let reach = x.window.max(y.window).max(MIN_WINDOW);
    if !is_near(seq, acked, reach) {
        return Agreement::None;
    }
    let jumps = outside(x, y, seq).is_some();
    let behind = is_behind(x, y, ack);
    let within = ack.wrapping_sub(start) <= end.wrapping_sub(start);
    let moves = if !y.has(SEQ) || behind {
        within
    } else {
        before(y.snd_max, ack) && (within || is_near(ack, start, reach))
    };
    if (behind || before(y.snd_max, ack)) && y.has(SEQ) && !moves {
        return Agreement::None;
    }
    if !moves && y.has(CLAIM_FIN) && ack == end && !is_agreed(x, y, end) {
        refute_edge(x, y, end);
        return Agreement::Whole;
    }
    if !moves && !jumps {
        return Agreement::None;
    }
    let mut gap = false;
    if jumps {
        gap |= jump(x, y, acked);
    } else if before(x.rcv_nxt, acked) {
        gap = true;
        if before(x.snd_max, acked) {
            leave_unseen(x, y, acked);
        }
        advance(x, acked);
        merge_blocks(x);
        deliver_fin(x);
    }
    if moves {
        gap |= jump(y, x, if before(ack, start) { ack } else { start });
        x.ack = ack;
    }
    apply_claim(x, y);
    if gap { Agreement::Gap } else { Agreement::Whole }
}

/// Whether the acknowledgment number lies so far below the last one of `x` that no receiver takes it (RFC
/// 5961 5.2). It may be that of bytes that the tap missed, 2^31 or more.
#[inline(always)]
pub(super) fn is_behind(x: &EndState, y: &EndState, ack: Seq) -> bool {
    x.has(ACK)
        && before(ack, x.ack.wrapping_sub(x.window.max(MIN_WINDOW)))
        && y.snd_max.wrapping_sub(x.ack) < ack.wrapping_sub(x.ack)
}

/// Whether both ends stand for the edge of `y` beyond `end`: `y` has sent what lies there, and `x` has
/// acknowledged it.
#[inline(always)]
fn is_agreed(x: &EndState, y: &EndState, end: Seq) -> bool {
    if y.has(FIN) {
        return y.fin_end == end || y.fin_covered_by(x.ack);
    }
    !y.has(UNSEEN) && before(end, x.ack)
}

/// Takes back the edge of `y` that one segment claimed, since its FIN and the peer's ACK of that FIN agree.
#[inline(never)]
fn refute_edge(x: &mut EndState, y: &mut EndState, end: Seq) {
    if y.has(FIN) {
        void_fin(y, x);
    }
    x.clear(COVERS);
    let surplus = y.rcv_nxt.wrapping_sub(end.wrapping_sub(1)) as i32;
    y.bytes = y.bytes.wrapping_sub(surplus as i64 as u64);
    y.rcv_nxt = end.wrapping_sub(1);
    y.snd_max = y.rcv_nxt;
    x.ack = end;
    y.clear(BLOCK_0 | BLOCK_1 | UNSEEN | UNSEEN_TWO);
    apply_claim(x, y);
}

/// Moves the edges of `x` to `to`, wherever that is. Returns whether bytes were passed that were not seen.
#[inline(never)]
fn jump(x: &mut EndState, y: &mut EndState, to: Seq) -> bool {
    if !x.has(SEQ) {
        x.isn = to.wrapping_sub(1);
        x.first_seq = to;
        x.rcv_nxt = to;
        x.snd_max = to;
        x.set(SEQ | SYN);
    }
    if x.has(FIN) {
        void_fin(x, y);
    }
    let passed = to.wrapping_sub(x.rcv_nxt);
    x.clear(BLOCK_0 | BLOCK_1 | UNSEEN | UNSEEN_TWO);
    mark_sent(y);
    if passed == 0 {
        return false;
    }
    x.bytes = x.bytes.wrapping_add(passed as u64);
    x.rcv_nxt = to;
    x.snd_max = to;
    x.set(UNSEEN | UNSEEN_TWO);
    true
}

/// Applies the claim of `y`, which is accepted from now on, to both ends.
#[inline(never)]
pub(super) fn apply_claim(x: &mut EndState, y: &mut EndState) {
    let [start, end, acked] = y.claim;
    let fin = y.has(CLAIM_FIN);
    let data_end = if fin { end.wrapping_sub(1) } else { end };
    // R18: nothing lies above a FIN that stands.
    if !y.has(FIN) {
        if at_or_before(start, y.rcv_nxt) && before(y.rcv_nxt, data_end) {
            advance(y, data_end);
            y.clear(UNSEEN | UNSEEN_TWO);
        }
        y.snd_max = later(y.snd_max, end);
        if fin {
            y.fin_end = end;
            y.fin_ack = acked;
            y.set(FIN);
            mark_sent(x);
            deliver_fin(y);
        }
    }
    y.ack = acked;
    y.set(ACK | SEEN);
    y.clear(CLAIM | CLAIM_FIN);
    x.set(SYN_ACKED);
    if x.fin_covered_by(acked) {
        x.set(FIN_DELIVERED | FIN_ACKED);
    }
    if fin {
        y.proved = if y.closed_knowing(x) { State::LastAck } else { State::FinWait1 } as u8;
    } else if y.proved < State::Established as u8 {
        y.proved = State::Established as u8;
    }
}

/// Whether two numbers are at most `reach` apart.
#[inline(always)]
pub(super) fn is_near(a: Seq, b: Seq, reach: u32) -> bool {
    a.wrapping_sub(b).wrapping_add(reach) <= reach.saturating_mul(2)
}
