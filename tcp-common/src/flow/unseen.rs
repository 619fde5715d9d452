//! Bytes that were sent and not seen: lost by the tap, or late (R11). The machine does not keep which bytes
//! these are, only whether the last one before the FIN, or before `snd_max`, is among them. That byte may
//! be the FIN, and payload that arrives there late is new.

use super::EndState;
use super::facts::end_fact::*;
use crate::seq::{Seq, at_or_before, before, later};

/// Extends the stream of `x` to `end` without payload, as an ACK of the peer or the next segment of `x`
/// shows.
#[inline(always)]
pub(super) fn leave_unseen(x: &mut EndState, y: &mut EndState, end: Seq) {
    let two = x.has(UNSEEN) || end != x.snd_max.wrapping_add(1);
    was_no_fin(x, y);
    mark_sent(y);
    x.set(if two { UNSEEN | UNSEEN_TWO } else { UNSEEN });
    x.snd_max = end;
}

/// Records what `y` had sent when it may have received the peer's FIN.
#[inline(always)]
pub(super) fn mark_sent(y: &mut EndState) {
    if !y.has(FIRST_DATA_AFTER_FIN) {
        y.first_data_after_fin = y.snd_max;
    }
}

/// Records that the peer acknowledged bytes of `x` that were not seen. Returns whether there are any.
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

/// Applies payload of `x` up to `end` to the unseen bytes. Returns whether it is among them and may have
/// been sent after the peer's FIN; bytes that the FIN acknowledges were not.
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

/// Whether a FIN of `x` that ends at `end` is the last unseen byte. To be asked before the FIN is applied.
#[inline(always)]
pub(super) fn is_unseen_fin(x: &EndState, end: Seq) -> bool {
    x.has(UNSEEN) && end == x.snd_max
}

/// Removes the FIN from the unseen bytes, if it was the last of them.
#[inline(always)]
pub(super) fn see_fin(x: &mut EndState, y: &mut EndState, was_unseen: bool) {
    if !was_unseen {
        was_no_fin(x, y);
        mark_sent(y);
    } else {
        x.clear(EMPTY_AFTER);
        if !x.has(UNSEEN_TWO) {
            x.clear(UNSEEN);
        }
        x.clear(UNSEEN_TWO);
    }
}

/// Records that the unseen byte was data. Then segments that covered it say nothing about the peer's close,
/// and an empty segment after it came before the FIN.
#[inline(always)]
fn was_no_fin(x: &mut EndState, y: &mut EndState) {
    y.clear(COVERS);
    if x.has(EMPTY_AFTER) {
        x.clear(EMPTY_AFTER);
        x.set(EMPTY_COVER);
    }
}

/// The end of the data, as far as known.
#[inline(always)]
fn edge(x: &EndState) -> Seq {
    if x.has(FIN) { x.fin_end.wrapping_sub(1) } else { x.snd_max }
}
