//! ACK, payload and FIN: the established connection and its close (R2..R11, R17..R24).

use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::open::pending_bit;
use super::unseen::{is_unseen_fin, leave_hole, leave_unseen, see_fin, see_late};
use super::{Cause, EndState, Flow, Outcome, Previous, Step, sides};
use crate::segment::{Flags, Kind, Segment};
use crate::seq::{Seq, at_or_before, before, later};
use crate::state::{End, State};

impl Flow {
    #[inline(always)]
    pub(super) fn on_data(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let cause = self.take_segment(step, outcome);
        self.restart_time_wait(step, cause, outcome);
        cause
    }

    /// 2MSL begins anew where the peer's FIN comes again (RFC 9293 3.10.7.4); on Linux with any segment that has an ACK,
    /// or that PAWS rejects (`tcp_timewait_state_process`).
    #[inline(always)]
    pub(super) fn restart_time_wait(&mut self, step: &Step, cause: Cause, outcome: &mut Outcome) {
        let Step { now_ns, rules, .. } = *step;
        let sender = step.sender();
        let holder = sender.peer();
        let any_ack =
            if self.is_local(holder) { rules.linux_restart_local } else { rules.linux_restart_remote } != 0;
        let fin_again = cause as u8 == Cause::FinAgain as u8;
        let y = &mut self.ends[holder as usize & 1];
        if y.state == State::TimeWait as u8 && (fin_again || any_ack) && !y.has(GONE) {
            y.time_wait_at_ns = now_ns;
            y.restarts = y.restarts.saturating_add(fin_again as u8);
            outcome.restarted = fin_again;
        }
    }

    #[inline(never)]
    fn take_segment(&mut self, step: &Step, outcome: &mut Outcome) -> Cause {
        let Step { now_ns, segment, .. } = *step;
        let sender = step.sender();
        if self.incarnation == 0 || (self.is_over() && self.facts & flow_fact::SILENCE != 0) {
            let previous = if self.incarnation == 0 { Previous::None } else { Previous::Over };
            self.begin_midstream(now_ns, previous, outcome);
        } else if self.is_over() && !self.revives(sender, segment) {
            return Cause::Late;
        }
        if (self.ends[0].facts | self.ends[1].facts) & FIN_REPORTED != 0 {
            self.place_fins(sender, segment);
        }
        let (x, y) = sides(&mut self.ends, sender);
        choose_answer(y, segment.ack);
        let opening = (y.state == State::SynSent as u8 && !x.has(SYN)) || y.state == State::SynReceived as u8;
        if opening && !before(y.isn, segment.ack) {
            // The receiver answers with a RST and waits on: the sender speaks of an earlier incarnation.
            return Cause::AckUnsent;
        }
        // R19, and R21: off until both directions were seen.
        let window = y.window.max(MIN_WINDOW);
        if x.has(SEQ) && x.has(SEEN) && y.has(SEEN) {
            let upper = later(x.rcv_nxt, if y.has(ACK) { y.ack } else { x.rcv_nxt }).wrapping_add(window);
            let below = before(segment.seq, x.rcv_nxt.wrapping_sub(window));
            if below || before(upper, segment.seq) {
                x.out_of_window = [segment.seq, segment.end(), segment.ack];
                x.clear(OUT_OF_WINDOW_FIN | OTHER_ANSWER);
                x.set(if segment.flags.has(Flags::FIN) {
                    OUT_OF_WINDOW | OUT_OF_WINDOW_FIN
                } else {
                    OUT_OF_WINDOW
                });
                return if below { Cause::OldDupSeq } else { Cause::SeqAboveWindow };
            }
        }
        let mut cause = if segment.payload_len != 0 { Cause::Data } else { Cause::Ack };
        // The ACK beyond what the tap saw of the peer: a resynchronisation, a voided FIN, a capture gap or a lie.
        if y.has(SEQ) && before(y.snd_max, segment.ack) {
            let sender_window = x.window.max(MIN_WINDOW);
            if y.has(OUT_OF_WINDOW)
                && (segment.ack == y.out_of_window[0] || segment.ack == y.out_of_window[1])
            {
                resynchronise(y);
                cause = Cause::Resync;
                self.facts |= flow_fact::GAP;
                if y.has(FIN) && self.closing_ns == 0 {
                    self.closing_ns = now_ns;
                }
            } else if x.has(SEEN) && y.has(SEEN) && before(y.snd_max.wrapping_add(sender_window), segment.ack)
            {
                return Cause::AckUnsent;
            } else if y.has(FIN) {
                // R17: the receiver acknowledges other octets where the FIN was.
                y.clear(FIN | FIN_DELIVERED | FIN_ACKED | UNSEEN | UNSEEN_TWO);
                x.clear(COVERS);
                y.rcv_nxt = segment.ack;
                cause = Cause::FinVoided;
            } else if y.has(SEEN) {
                self.facts |= flow_fact::GAP;
                leave_unseen(y, x, segment.ack);
            }
        }
        self.facts &= !pending_bit(sender);
        let (x, y) = sides(&mut self.ends, sender);
        if y.has(SEEN) && before(y.rcv_nxt, segment.ack) && leave_hole(y, segment.ack) {
            self.facts |= flow_fact::GAP;
        }
        if segment.end() == segment.seq && !x.has(FIN) && x.has(SEQ) && before(x.snd_max, segment.seq) {
            leave_unseen(x, y, segment.seq);
        }
        // First, since it is a call: of a `covers` held meanwhile the verifier of Linux 6.1 forgets that it matters, takes what
        // follows `true` for what followed `false`, and removes it as dead.
        begin_stream(x, segment.seq);
        let fresh = segment.payload_len != 0 && take_payload(x, y, segment, &mut cause);
        // R24: a keepalive lies below what the receiver has acknowledged, it drops it with its ACK (`tcp_sequence`).
        let dropped = y.has(ACK) && before(segment.end(), y.ack);
        let covers = take_ack(x, y, segment, dropped);
        let first_fin = take_fin(x, y, segment, &mut cause);
        if first_fin && self.closing_ns == 0 {
            self.closing_ns = now_ns;
        }
        // SYN-SENT takes nothing before the SYN.
        if x.has(FIN)
            && y.state != State::SynSent as u8
            && x.rcv_nxt == x.fin_end
            && !x.has(FIN_DELIVERED)
            && (segment.flags.has(Flags::FIN) || fresh)
        {
            x.set(FIN_DELIVERED);
        }
        if covers {
            // Its TIME-WAIT began later than assumed, if it was taken to be over.
            x.clear(GONE);
            note_cover(x, segment, fresh);
            if x.has(FIN) && !segment.flags.has(Flags::FIN) && y.closed_knowing(x) {
                // It has the FIN that acknowledged its own.
                x.set(FIN_ACKED);
            }
        } else if y.has(UNSEEN) && !y.has(FIN) && segment.ack == y.snd_max {
            // What was not seen may end with the FIN (R11).
            note_cover(x, segment, fresh);
        }
        x.proved = prove(x, y, segment, covers, fresh) as u8;
        x.set(SEEN);
        x.window = scaled_window(x, y, segment);
        // R15 asks for it in TIME-WAIT only, after both FINs: a segment before the sender's own need not write it.
        if segment.has(Segment::HAS_TIMESTAMP) && x.has(FIN) && (y.has(FIN) || segment.flags.has(Flags::FIN))
        {
            x.tsval = segment.tsval;
            x.set(TIMESTAMP);
        }
        cause
    }

    /// R9: a copy of its FIN by an end taken as CLOSED proves LAST-ACK, unless a RST ended the connection.
    #[inline(always)]
    fn revives(&self, sender: End, segment: &Segment) -> bool {
        let x = &self.ends[sender as usize & 1];
        segment.kind() as u8 == Kind::Fin as u8
            && x.has(FIN)
            && segment.end() == x.fin_end
            && at_or_before(x.ack, segment.ack)
            && self.facts & (flow_fact::ABORTER_A | flow_fact::ABORTER_B) == 0
            && !x.has(GONE)
    }

    /// R21: picks up a connection whose beginning was not seen.
    #[inline(always)]
    fn begin_midstream(&mut self, now_ns: u64, previous: Previous, outcome: &mut Outcome) {
        self.reset_for_next(now_ns, previous, outcome);
        self.facts |= flow_fact::MIDSTREAM;
        for x in &mut self.ends {
            x.set(SYN | SYN_ACKED);
        }
    }
}

/// R22: of two answers with different numbers to copies of one SYN the peer's `ack` says which holds.
#[inline(always)]
fn choose_answer(y: &mut EndState, ack: Seq) {
    if y.has(OTHER_ANSWER) && y.state == State::SynReceived as u8 && ack == y.out_of_window[0].wrapping_add(1)
    {
        y.isn = y.out_of_window[0];
        y.first_seq = ack;
        y.rcv_nxt = ack;
        y.snd_max = ack;
        y.clear(OTHER_ANSWER);
    }
}

/// Takes what the ACK of `x` says of `y`, which learns it unless it has `dropped` the segment. Returns whether it covers
/// `y`'s FIN.
#[inline(always)]
fn take_ack(x: &mut EndState, y: &mut EndState, segment: &Segment, dropped: bool) -> bool {
    let ack = segment.ack;
    if !y.has(SEQ) {
        // `y` has not been seen: the ACK tells where its stream is.
        y.isn = ack.wrapping_sub(1);
        y.first_seq = ack;
        y.rcv_nxt = ack;
        y.snd_max = ack;
        y.set(SEQ | SYN);
    }
    let handshake = before(y.isn, ack);
    if handshake {
        if y.state == State::SynSent as u8 && !x.has(BARE_SYN | SYN_ACK) {
            // It answers a SYN, so it has sent a SYN-ACK: where that did not pass the tap, the opener has to show it (R22).
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
        advance(y, ack);
        merge_blocks(y);
        deliver_fin(y);
    }
    y.snd_max = later(y.snd_max, ack);
    covers
}

/// Where nothing is known of the stream of `x`, it begins here.
#[inline(always)]
fn begin_stream(x: &mut EndState, seq: Seq) {
    if !x.has(SEQ) {
        x.isn = seq.wrapping_sub(1);
        x.first_seq = seq;
        x.rcv_nxt = seq;
        x.snd_max = seq;
        x.set(SEQ);
    }
}

/// Takes the payload. Returns whether it held octets not seen before.
#[inline(never)]
fn take_payload(x: &mut EndState, y: &EndState, segment: &Segment, cause: &mut Cause) -> bool {
    let end = segment.seq.wrapping_add(segment.payload_len);
    if x.has(FIN) && before(x.fin_end.wrapping_sub(1), end) {
        // R18: octets above the own FIN.
        *cause = Cause::DataAfterFin;
        return false;
    }
    let late = x.has(UNSEEN) && see_late(x, y, end);
    let fresh =
        late || before(x.snd_max, end) || (before(x.rcv_nxt, end) && at_or_before(segment.seq, x.rcv_nxt));
    if at_or_before(segment.seq, x.rcv_nxt) {
        advance(x, later(x.rcv_nxt, end));
        merge_blocks(x);
        if x.has(FIN) && x.rcv_nxt == x.fin_end.wrapping_sub(1) {
            x.rcv_nxt = x.fin_end;
        }
    } else {
        hold_block(x, segment.seq, end);
    }
    x.snd_max = later(x.snd_max, end);
    fresh
}

/// Takes the FIN of `x`. Returns whether it is the first copy.
#[inline(always)]
fn take_fin(x: &mut EndState, y: &mut EndState, segment: &Segment, cause: &mut Cause) -> bool {
    let (peer_isn, peer_ack) = (y.isn, y.ack);
    if !segment.flags.has(Flags::FIN) {
        return false;
    }
    let end = segment.end();
    if x.has(FIN) {
        if end != x.fin_end {
            *cause = Cause::DataAfterFin;
            return false;
        }
        // The same FIN again (R3): its sender has no ACK of it yet. An ACK lower than the sender's last one: an old copy.
        if segment.ack == x.ack {
            x.clear(FIN_ACKED | GONE);
        }
        // Of its copies the one with the lowest ACK was sent first, whichever came first (R6).
        if before(segment.ack, x.fin_ack) && before(peer_isn, segment.ack) {
            x.fin_ack = segment.ack;
        }
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
        // Octets where the FIN would be were already acknowledged: an old duplicate.
        *cause = Cause::OldDupSeq;
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

/// R7: what a segment that covers the peer's FIN says about the form of the close.
#[inline(always)]
fn note_cover(x: &mut EndState, segment: &Segment, fresh: bool) {
    let fin = segment.flags.has(Flags::FIN);
    if segment.payload_len == 0 {
        let after_unseen = x.has(UNSEEN) && segment.seq == x.snd_max && !x.has(FIN);
        if !fin && (!x.has(FIN) || before(segment.seq, x.fin_end)) {
            x.set(if after_unseen { EMPTY_AFTER } else { EMPTY_COVER });
        }
    } else if fresh {
        x.set(DATA_COVER);
        if !x.has(FIRST_DATA_AFTER_FIN) {
            x.first_data_after_fin = segment.seq;
            x.set(FIRST_DATA_AFTER_FIN);
        }
    }
}

/// What the sender's own segment proves of it (STATE_MACHINE A2).
#[inline(always)]
fn prove(x: &EndState, y: &EndState, segment: &Segment, covers: bool, fresh: bool) -> State {
    let proved = match State::from_u8(x.proved) {
        Some(state) => state,
        None => State::Unknown,
    };
    if x.has(FIN) {
        if covers {
            return match (x.closed_knowing(y), y.closed_knowing(x)) {
                (true, _) => State::LastAck,
                (false, true) => State::TimeWait,
                (false, false) => State::Closing,
            };
        }
        if segment.flags.has(Flags::FIN) {
            return match (x.closed_knowing(y), y.fin_covered_by(x.ack)) {
                (true, _) => State::LastAck,
                (false, true) => State::Closing,
                (false, false) => State::FinWait1,
            };
        }
        let answers_cover = y.has(FIRST_DATA_AFTER_FIN) && before(y.first_data_after_fin, segment.ack);
        return if answers_cover && proved as u8 == State::FinWait1 as u8 { State::FinWait2 } else { proved };
    }
    if covers {
        return State::CloseWait;
    }
    match proved {
        State::Unknown | State::SynSent if before(y.isn, segment.ack) => State::Established,
        // With Fast Open data go out before the handshake is over.
        State::SynReceived
            if before(y.first_seq, segment.ack)
                || (fresh && x.has(SYN_ACKED) && y.first_seq == y.isn.wrapping_add(1)) =>
        {
            State::Established
        }
        State::Unknown
        | State::SynSent
        | State::SynReceived
        | State::Closed
        | State::Listen
        | State::Established
        | State::FinWait1
        | State::FinWait2
        | State::CloseWait
        | State::Closing
        | State::LastAck
        | State::TimeWait => proved,
    }
}

/// The window this end offers, scaled if both ends announced a shift (RFC 7323 2.2).
#[inline(always)]
fn scaled_window(x: &EndState, y: &EndState, segment: &Segment) -> u32 {
    let shift = if x.has(WSCALE) && y.has(WSCALE) { x.wscale & 15 } else { 0 };
    (segment.window as u32) << shift
}

/// Where the peer has all before a FIN that was seen, it is taken to have that too.
#[inline(always)]
fn deliver_fin(x: &mut EndState) {
    if x.has(FIN) && x.rcv_nxt == x.fin_end.wrapping_sub(1) {
        x.rcv_nxt = x.fin_end;
        x.set(FIN_DELIVERED);
    }
}

/// Moves the in-order edge and counts the octets of the stream it passes.
#[inline(always)]
fn advance(x: &mut EndState, to: Seq) {
    if before(x.rcv_nxt, to) {
        x.bytes = x.bytes.wrapping_add(to.wrapping_sub(x.rcv_nxt) as u64);
        x.rcv_nxt = to;
    }
}

/// Takes blocks that the in-order edge has reached.
#[inline(always)]
fn merge_blocks(x: &mut EndState) {
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

/// Keeps an out-of-order block, one with those it touches; where both places are taken by others the peer's ACK will raise
/// the edge instead.
#[inline(always)]
fn hold_block(x: &mut EndState, mut start: Seq, mut end: Seq) {
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

/// R19: believes the stray segment after the peer acknowledged exactly into it.
#[inline(always)]
fn resynchronise(y: &mut EndState) {
    let [_, end, ack] = y.out_of_window;
    if y.has(OUT_OF_WINDOW_FIN) && !y.has(FIN) {
        y.fin_end = end;
        y.fin_ack = ack;
        y.set(FIN | FIN_DELIVERED);
        y.proved = State::FinWait1 as u8;
    }
    y.rcv_nxt = end;
    y.snd_max = end;
    y.clear(OUT_OF_WINDOW | OUT_OF_WINDOW_FIN | BLOCK_0 | BLOCK_1 | UNSEEN | UNSEEN_TWO);
}

/// A window smaller than this does not make a segment an old duplicate (nf_conntrack's MAXACKWINCONST).
const MIN_WINDOW: u32 = 66_000;
