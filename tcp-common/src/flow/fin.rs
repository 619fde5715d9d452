//! FIN: its number, its copies, its delivery, and what covers it (R3..R11, R18).

use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::unseen::{is_unseen_fin, see_fin};
use super::{Cause, EndState, Flow};
use crate::segment::{Flags, Segment, SegmentKind};
use crate::seq::{Seq, at_or_before, before, later};
use crate::state::{End, State};

impl Flow {
    /// R9: whether the segment is a copy of the FIN of an end assumed CLOSED, which proves LAST-ACK, unless
    /// a RST ended the connection.
    #[inline(always)]
    pub(super) fn is_revived_by(&self, sender: End, segment: &Segment) -> bool {
        let x = &self.ends[sender as usize & 1];
        segment.kind() == SegmentKind::Fin
            && x.has(FIN)
            && segment.end() == x.fin_end
            && at_or_before(x.ack, segment.ack)
            && self.facts & (flow_fact::ABORTER_A | flow_fact::ABORTER_B) == 0
            && !x.has(GONE)
    }
}

/// Notes a copy of the FIN of `x`, whether or not its receiver accepts it: of all copies the one with the
/// lowest ACK was sent first, whichever came first (R6).
#[inline(always)]
pub(super) fn note_first_copy(x: &mut EndState, peer_isn: Seq, segment: &Segment) {
    let is_copy = x.has(FIN) && segment.end() == x.fin_end;
    if is_copy && before(segment.ack, x.fin_ack) && before(peer_isn, segment.ack) {
        x.fin_ack = segment.ack;
    }
}

/// Applies the FIN of `x`. Returns whether it is the first copy.
#[inline(always)]
pub(super) fn apply_fin(x: &mut EndState, y: &mut EndState, segment: &Segment, cause: &mut Cause) -> bool {
    let (peer_isn, peer_ack) = (y.isn, y.ack);
    if !segment.flags.has(Flags::FIN) {
        return false;
    }
    let end = segment.end();
    if x.has(FIN) {
        if end != x.fin_end {
            *cause = Cause::DataAfterFin;
            x.remember(segment);
            return false;
        }
        // The same FIN again (R3): its sender has no ACK of it yet. An ACK lower than the sender's last
        // one: an old copy.
        if segment.ack == x.ack {
            x.clear(FIN_ACKED | GONE);
        }
        note_first_copy(x, peer_isn, segment);
        *cause = Cause::FinAgain;
        if x.rcv_nxt == end.wrapping_sub(1) {
            x.rcv_nxt = end;
        }
        x.snd_max = later(x.snd_max, end);
        return false;
    }
    // The peer's ACK of this FIN may have been seen first, on another CPU, and taken for a gap (R11).
    let was_unseen = is_unseen_fin(x, end);
    let acked_before = was_unseen && end == x.rcv_nxt && end == peer_ack;
    if before(end, x.rcv_nxt) || (end == x.rcv_nxt && !acked_before) {
        // Bytes where the FIN would be were already acknowledged: an old duplicate.
        *cause = Cause::OldDupSeq;
        x.remember(segment);
        return false;
    }
    if acked_before {
        x.bytes = x.bytes.wrapping_sub(1);
        x.set(FIN_DELIVERED | FIN_ACKED);
    }
    see_fin(x, y, was_unseen);
    x.fin_end = end;
    x.fin_ack = segment.ack;
    x.set(FIN);
    if x.rcv_nxt == end.wrapping_sub(1) {
        x.rcv_nxt = end;
    }
    x.snd_max = later(x.snd_max, end);
    *cause = Cause::Fin;
    true
}

/// R17: takes back the FIN of `y`, and all that followed from it.
#[inline(always)]
pub(super) fn void_fin(y: &mut EndState, x: &mut EndState) {
    if y.rcv_nxt == y.fin_end {
        y.rcv_nxt = y.fin_end.wrapping_sub(1);
    }
    if y.snd_max == y.fin_end {
        y.snd_max = y.fin_end.wrapping_sub(1);
    }
    y.clear(FIN | FIN_DELIVERED | FIN_ACKED | FIN_REPORTED | UNSEEN | UNSEEN_TWO);
    x.clear(COVERS);
}

/// Delivers a FIN that was seen when the peer has everything before it.
#[inline(always)]
pub(super) fn deliver_fin(x: &mut EndState) {
    if x.has(FIN) && x.rcv_nxt == x.fin_end.wrapping_sub(1) {
        x.rcv_nxt = x.fin_end;
        x.set(FIN_DELIVERED);
    }
}

/// Delivers the FIN of `x` if its own segment made the stream complete up to there. SYN-SENT accepts
/// nothing before the SYN.
#[inline(always)]
pub(super) fn deliver_own_fin(x: &mut EndState, y: &EndState, segment: &Segment, fresh: bool) {
    if x.has(FIN)
        && !y.is_in(State::SynSent)
        && x.rcv_nxt == x.fin_end
        && !x.has(FIN_DELIVERED)
        && (segment.flags.has(Flags::FIN) || fresh)
    {
        x.set(FIN_DELIVERED);
    }
}

/// Applies what follows for `x` from its segment covering the FIN of `y`, or the byte that may be that FIN
/// (R11).
#[inline(always)]
pub(super) fn apply_cover(x: &mut EndState, y: &EndState, segment: &Segment, covers: bool, after_fin: bool) {
    if covers {
        // If it was assumed to be closed, its TIME-WAIT began later than assumed.
        x.clear(GONE);
        record_cover(x, segment, after_fin);
        if x.has(FIN) && !segment.flags.has(Flags::FIN) && y.closed_knowing(x) {
            // It has the FIN that acknowledged its own.
            x.set(FIN_ACKED);
        }
    } else if y.has(UNSEEN) && !y.has(FIN) && segment.ack == y.snd_max {
        record_cover(x, segment, after_fin);
    } else if y.has(FIN | UNSEEN) && segment.payload_len != 0 && !x.has(FIRST_DATA_AFTER_FIN) {
        // Sent before its sender had the FIN.
        let end = segment.seq.wrapping_add(segment.payload_len);
        x.first_data_after_fin = later(x.first_data_after_fin, end);
    }
}

/// R7: records what a segment that covers the peer's FIN says about the kind of the close.
#[inline(always)]
fn record_cover(x: &mut EndState, segment: &Segment, after_fin: bool) {
    let fin = segment.flags.has(Flags::FIN);
    if segment.payload_len == 0 {
        let after_unseen = x.has(UNSEEN) && segment.seq == x.snd_max && !x.has(FIN);
        if !fin && (!x.has(FIN) || before(segment.seq, x.fin_end)) {
            x.set(if after_unseen { EMPTY_AFTER } else { EMPTY_COVER });
        }
    } else if after_fin {
        x.set(DATA_COVER);
        if !x.has(FIRST_DATA_AFTER_FIN) {
            x.first_data_after_fin = segment.seq;
            x.set(FIRST_DATA_AFTER_FIN);
        }
    }
}
