//! Acknowledgments: what the ACK of one end says of the other's stream (R4, R10, R17, R19, R22, R24).

use super::claim::continues_claim;
use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::fin::{deliver_fin, void_fin};
use super::reassembly::{advance, merge_blocks};
use super::unseen::leave_unseen;
use super::{Cause, EndState, Flow, Step, sides};
use crate::segment::Segment;
use crate::seq::{Seq, before, later};
use crate::state::State;

impl Flow {
    /// Handles an ACK beyond everything that was seen of the receiver: a FIN that was none (R17, `cause` is
    /// changed), a gap in the capture, or a forgery. Returns false for the last one.
    #[inline(always)]
    pub(super) fn accept_ack_beyond(&mut self, step: &Step, cause: &mut Cause) -> bool {
        let Step { segment, .. } = *step;
        let (x, y) = sides(&mut self.ends, step.sender());
        let sender_window = x.window.max(MIN_WINDOW);
        let far = x.has(SEEN) && y.has(SEEN) && before(y.snd_max.wrapping_add(sender_window), segment.ack);
        if far && !continues_claim(x, segment) {
            x.remember(segment);
            return false;
        }
        if y.has(FIN) {
            // R17: the receiver acknowledges other bytes where the FIN was.
            void_fin(y, x);
            *cause = Cause::FinVoided;
        }
        if y.has(SEEN) {
            self.facts |= flow_fact::GAP;
            leave_unseen(y, x, segment.ack);
        }
        true
    }
}

/// R22: of two answers with different numbers to copies of one SYN, keeps the one that the peer's `ack`
/// names.
#[inline(always)]
pub(super) fn choose_answer(y: &mut EndState, ack: Seq) {
    if y.has(OTHER_ANSWER) && y.is_in(State::SynReceived) && ack == y.claim[0].wrapping_add(1) {
        y.isn = y.claim[0];
        y.first_seq = ack;
        y.rcv_nxt = ack;
        y.snd_max = ack;
        y.clear(OTHER_ANSWER);
    }
}

/// Applies the ACK of `x` to both ends. `dropped`: `y` discards the segment, so it does not learn of the
/// ACK. Returns whether the ACK covers the FIN of `y`.
#[inline(always)]
pub(super) fn apply_ack(x: &mut EndState, y: &mut EndState, segment: &Segment, dropped: bool) -> bool {
    let ack = segment.ack;
    if !y.has(SEQ) {
        // `y` has not been seen: the ACK says where its stream is.
        y.isn = ack.wrapping_sub(1);
        y.first_seq = ack;
        y.rcv_nxt = ack;
        y.snd_max = ack;
        y.set(SEQ | SYN);
    }
    let handshake = before(y.isn, ack);
    if handshake {
        if y.is_in(State::SynSent) && !x.has(BARE_SYN | SYN_ACK) {
            // It answers a SYN, so it has sent a SYN-ACK: where the tap missed that, the opener has to show
            // it (R22).
            if !x.has(SYN) {
                x.isn = segment.seq.wrapping_sub(1);
                x.set(SYN);
            }
        } else if !dropped {
            y.set(SYN_ACKED);
        }
        if x.proved == State::SynSent as u8 {
            x.set(SYN_ACKED);
        }
    }
    x.ack = if x.has(ACK) { later(x.ack, ack) } else { ack };
    x.set(ACK);
    let covers = y.fin_covered_by(ack);
    if covers {
        advance(y, y.fin_end.wrapping_sub(1));
        y.rcv_nxt = later(y.rcv_nxt, y.fin_end);
        y.set(if dropped { FIN_DELIVERED } else { FIN_DELIVERED | FIN_ACKED });
    } else if before(y.rcv_nxt, ack) {
        if !y.has(SEEN) {
            // The last byte may be the FIN if it was acknowledged by itself (R11).
            y.clear(UNSEEN);
            y.set(if ack == y.rcv_nxt.wrapping_add(1) { UNSEEN } else { 0 });
        }
        advance(y, ack);
        merge_blocks(y);
        deliver_fin(y);
    }
    y.snd_max = later(y.snd_max, ack);
    covers
}

/// The window this end offers, in bytes: scaled if both ends announced a shift (RFC 7323 2.2).
#[inline(always)]
pub(super) fn scaled_window(x: &EndState, y: &EndState, segment: &Segment) -> u32 {
    let shift = if x.has(WSCALE) && y.has(WSCALE) { x.wscale & 15 } else { 0 };
    (segment.window as u32) << shift
}

/// Smallest window, in bytes, that is used to detect an old duplicate (MAXACKWINCONST of nf_conntrack).
pub(super) const MIN_WINDOW: u32 = 66_000;
