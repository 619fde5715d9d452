//! The stream of one end: its in-order edge, and two blocks of out-of-order bytes beyond that edge (R10).

use super::facts::end_fact::*;
use super::unseen::see_late;
use super::{Cause, EndState};
use crate::segment::Segment;
use crate::seq::{Seq, at_or_before, before, later};

impl EndState {
    /// Number of bytes before `ack` that were not seen, by the in-order edge and the two blocks. 0 while
    /// the stream is unknown. A FIN that was not seen counts as one byte (R11).
    pub fn unseen_before(&self, ack: Seq) -> u32 {
        if !self.has(SEQ) || !self.has(SEEN) || !before(self.rcv_nxt, ack) {
            return 0;
        }
        let between = |start: Seq, end: Seq| {
            let (start, end) = (later(start, self.rcv_nxt), if before(end, ack) { end } else { ack });
            if before(start, end) { end.wrapping_sub(start) } else { 0 }
        };
        let mut seen = 0;
        for (fact, start, end) in [
            (BLOCK_0, self.blocks[0], self.blocks[1]),
            (BLOCK_1, self.blocks[2], self.blocks[3]),
            (CLAIM, self.claim[0], self.claim[1]),
            (FIN, self.fin_end.wrapping_sub(1), self.fin_end),
        ] {
            if self.has(fact) {
                seen += between(start, end);
            }
        }
        ack.wrapping_sub(self.rcv_nxt).saturating_sub(seen)
    }
}

/// Begins the stream of `x` at `seq` if its sequence numbers are unknown.
#[inline(always)]
pub(super) fn begin_stream(x: &mut EndState, seq: Seq) {
    if !x.has(SEQ) {
        x.isn = seq.wrapping_sub(1);
        x.first_seq = seq;
        x.rcv_nxt = seq;
        x.snd_max = seq;
        x.first_data_after_fin = seq;
        x.set(SEQ);
    }
}

/// What a segment's payload is.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    /// It has bytes that were not seen before.
    pub fresh: bool,
    /// It has bytes that were first sent after the peer's FIN, or after the byte that may be that FIN (R7).
    pub after_fin: bool,
}

impl Payload {
    /// No payload, or none that counts.
    pub(super) const NONE: Payload = Payload { fresh: false, after_fin: false };
}

/// Applies the payload of `x`.
#[inline(never)]
pub(super) fn apply_payload(x: &mut EndState, y: &EndState, segment: &Segment, cause: &mut Cause) -> Payload {
    let end = segment.seq.wrapping_add(segment.payload_len);
    if x.has(FIN) && before(x.fin_end.wrapping_sub(1), end) {
        // R18: bytes above the own FIN.
        *cause = Cause::DataAfterFin;
        x.remember(segment);
        return Payload::NONE;
    }
    let late = x.has(UNSEEN) && see_late(x, y, end);
    let fresh =
        late || before(x.snd_max, end) || (before(x.rcv_nxt, end) && at_or_before(segment.seq, x.rcv_nxt));
    let sent_before = if y.has(FIN | UNSEEN) { x.first_data_after_fin } else { x.snd_max };
    let after_fin = late || (fresh && before(sent_before, end));
    if at_or_before(segment.seq, x.rcv_nxt) {
        advance(x, later(x.rcv_nxt, end));
        merge_blocks(x);
        if x.has(FIN) && x.rcv_nxt == x.fin_end.wrapping_sub(1) {
            x.rcv_nxt = x.fin_end;
        }
    } else {
        store_block(x, segment.seq, end);
    }
    x.snd_max = later(x.snd_max, end);
    Payload { fresh, after_fin }
}

/// Moves the in-order edge forward to `to` and counts the bytes of the stream that it passes.
#[inline(always)]
pub(super) fn advance(x: &mut EndState, to: Seq) {
    if before(x.rcv_nxt, to) {
        x.bytes = x.bytes.wrapping_add(to.wrapping_sub(x.rcv_nxt) as u64);
        x.rcv_nxt = to;
    }
}

/// Advances over the blocks that the in-order edge has reached.
#[inline(always)]
pub(super) fn merge_blocks(x: &mut EndState) {
    // Twice, since the second block may close the gap before the first.
    for _ in 0..2 {
        if x.has(BLOCK_0) && at_or_before(x.blocks[0], x.rcv_nxt) {
            advance(x, x.blocks[1]);
            x.clear(BLOCK_0);
        }
        if x.has(BLOCK_1) && at_or_before(x.blocks[2], x.rcv_nxt) {
            advance(x, x.blocks[3]);
            x.clear(BLOCK_1);
        }
    }
}

/// Stores an out-of-order block, merged with those it touches. If both blocks are in use by others it is
/// dropped: the peer's ACK will raise the edge instead.
#[inline(always)]
fn store_block(x: &mut EndState, mut start: Seq, mut end: Seq) {
    let [start_0, end_0, start_1, end_1] = x.blocks;
    if x.has(BLOCK_0) && at_or_before(start, end_0) && at_or_before(start_0, end) {
        start = if before(start, start_0) { start } else { start_0 };
        end = later(end, end_0);
        x.clear(BLOCK_0);
    }
    if x.has(BLOCK_1) && at_or_before(start, end_1) && at_or_before(start_1, end) {
        start = if before(start, start_1) { start } else { start_1 };
        end = later(end, end_1);
        x.clear(BLOCK_1);
    }
    if !x.has(BLOCK_0) {
        x.blocks[0] = start;
        x.blocks[1] = end;
        x.set(BLOCK_0);
    } else if !x.has(BLOCK_1) {
        x.blocks[2] = start;
        x.blocks[3] = end;
        x.set(BLOCK_1);
    }
}
