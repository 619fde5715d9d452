//! What was sent and not seen: lost by the tap, or late (R11). Which octets those are is not kept, only whether the last one
//! before the FIN, or before `high`, is among them: it may be the FIN, and payload that comes there is new, late as it is.

use super::EndState;
use super::facts::end_fact::*;
use crate::seq::{Seq, at_or_before, before, later};

/// The stream of `x` goes on to `end`, as an ACK of the peer or its own next segment says.
#[inline(always)]
pub(super) fn leave_unseen(x: &mut EndState, y: &mut EndState, end: Seq) {
    let two = x.has(UNSEEN) || end != x.snd_max.wrapping_add(1);
    was_no_fin(x, y);
    x.set(if two { UNSEEN | UNSEEN_TWO } else { UNSEEN });
    x.snd_max = end;
}

/// The peer acknowledges octets of `x` that were passed over. Returns whether there are such.
#[inline(always)]
pub(super) fn leave_hole(x: &mut EndState, ack: Seq) -> bool {
    let edge = edge(x);
    let mut seen = x.rcv_nxt;
    if x.has(BLOCK_0) {
        seen = later(seen, x.blocks[1]);
    }
    if x.has(BLOCK_1) {
        seen = later(seen, x.blocks[3]);
    }
    if before(seen, edge) && at_or_before(edge, ack) {
        x.set(if before(seen, edge.wrapping_sub(1)) { UNSEEN | UNSEEN_TWO } else { UNSEEN });
    }
    before(x.rcv_nxt, ack) && before(x.rcv_nxt, edge)
}

/// Payload of `x` up to `end` comes while something is unseen. Returns whether it is that, and may have been sent after the
/// peer's FIN: what the FIN itself acknowledges was not.
#[inline(always)]
pub(super) fn see_late(x: &mut EndState, y: &EndState, end: Seq) -> bool {
    let edge = edge(x);
    if at_or_before(edge, end) {
        x.clear(UNSEEN | UNSEEN_TWO);
    } else if x.has(UNSEEN_TWO) && at_or_before(edge.wrapping_sub(1), end) {
        x.clear(UNSEEN_TWO);
    } else {
        return false;
    }
    !(y.has(FIN) && at_or_before(end, y.fin_ack))
}

/// The FIN of `x` comes, before it is taken. Returns whether it is the last octet that was unseen.
#[inline(always)]
pub(super) fn is_unseen_fin(x: &EndState, end: Seq) -> bool {
    x.has(UNSEEN) && end == x.snd_max
}

/// Takes it from what is unseen.
#[inline(always)]
pub(super) fn see_fin(x: &mut EndState, y: &mut EndState, was_unseen: bool) {
    if !was_unseen {
        was_no_fin(x, y);
    } else {
        x.clear(EMPTY_AFTER);
        if !x.has(UNSEEN_TWO) {
            x.clear(UNSEEN);
        }
        x.clear(UNSEEN_TWO);
    }
}

/// The unseen octet was data: so what covered it says nothing of the peer, and an empty segment after it came before the FIN.
#[inline(always)]
fn was_no_fin(x: &mut EndState, y: &mut EndState) {
    y.clear(COVERS);
    if x.has(EMPTY_AFTER) {
        x.clear(EMPTY_AFTER);
        x.set(EMPTY_COVER);
    }
}

/// Where the data end, as far as known.
#[inline(always)]
fn edge(x: &EndState) -> Seq {
    if x.has(FIN) { x.fin_end.wrapping_sub(1) } else { x.snd_max }
}
