//! What a segment adds to what was seen of its flow, so that copies of one packet are counted once.
//!
//! A packet passes several hooks of a host: port and bridge, card and VLAN device, bond and link, in and
//! out, both sides of `lo`. A packet that was routed over another link passes another hook as well, and is
//! no copy. The hooks do not distinguish the two. The content does: a copy brings nothing new.

use super::facts::end_fact::*;
use super::open::pending_bit;
use super::{EndState, Flow};
use crate::segment::{Flags, Segment, SegmentKind};
use crate::seq::{Seq, at_or_before, before, later};
use crate::state::End;

impl Flow {
    /// Whether the segment brings bytes, an acknowledgment, a SYN, a FIN or a RST that was not seen before.
    /// It may be out of the window or forged: the machine says whether it is accepted.
    #[inline(always)]
    pub fn is_news(&self, sender: End, segment: &Segment) -> bool {
        if self.incarnation == 0 {
            return true;
        }
        let (x, y) = (&self.ends[sender as usize & 1], &self.ends[sender as usize & 1 ^ 1]);
        match segment.kind() {
            SegmentKind::Syn => {
                let is_pending = self.facts & pending_bit(sender) != 0 && self.pending_isn == segment.seq;
                let is_known = x.has(SYN) && x.isn == segment.seq;
                !(is_pending || is_known)
            }
            SegmentKind::SynAck => {
                let is_other = x.has(OTHER_ANSWER) && x.claim[0] == segment.seq;
                !is_other && (!x.has(SYN) || x.isn != segment.seq || is_new_ack(x, segment))
            }
            // After a RST that was accepted, both ends are gone.
            SegmentKind::Rst => !(x.has(GONE) && y.has(GONE)),
            SegmentKind::Fin | SegmentKind::Ack => {
                is_new_ack(x, segment) || is_new_fin(x, segment) || has_new_bytes(x, segment)
            }
            SegmentKind::Bad => false,
        }
    }

    /// Whether the segment acknowledges nothing that its receiver has not sent, as far as was seen.
    #[inline(always)]
    pub fn acks_what_was_sent(&self, sender: End, segment: &Segment) -> bool {
        let y = &self.ends[sender as usize & 1 ^ 1];
        !segment.flags.has(Flags::ACK) || !y.has(SEQ) || at_or_before(segment.ack, y.snd_max)
    }

    /// Whether the numbers are so far from what both ends have sent that the segment belongs to another
    /// connection, or to none. Never true before the sender's numbers are known, nor of a SYN once both
    /// ends are done, since any number may begin the next incarnation.
    #[inline(always)]
    pub fn is_outside_window(&self, sender: End, segment: &Segment) -> bool {
        let (x, y) = (&self.ends[sender as usize & 1], &self.ends[sender as usize & 1 ^ 1]);
        if !x.has(SEQ) || (self.is_finished() && segment.flags.has(Flags::SYN)) {
            return false;
        }
        let window = y.window.max(super::ack::MIN_WINDOW);
        let upper = later(x.snd_max, if y.has(ACK) { y.ack } else { x.snd_max }).wrapping_add(window);
        let acks_beyond = segment.flags.has(Flags::ACK)
            && y.has(SEQ)
            && before(y.snd_max.wrapping_add(x.window.max(super::ack::MIN_WINDOW)), segment.ack);
        acks_beyond || before(segment.seq, x.rcv_nxt.wrapping_sub(window)) || before(upper, segment.seq)
    }
}

/// Whether the segment acknowledges more than the sender has acknowledged before.
#[inline(always)]
fn is_new_ack(x: &EndState, segment: &Segment) -> bool {
    !x.has(ACK) || before(x.ack, segment.ack)
}

#[inline(always)]
fn is_new_fin(x: &EndState, segment: &Segment) -> bool {
    segment.flags.has(Flags::FIN) && !(x.has(FIN) && segment.end() == x.fin_end)
}

#[inline(always)]
fn has_new_bytes(x: &EndState, segment: &Segment) -> bool {
    let end = segment.seq.wrapping_add(segment.payload_len);
    if segment.payload_len == 0 || (x.has(SEQ) && at_or_before(end, x.rcv_nxt)) {
        return false;
    }
    let start = if x.has(SEQ) { later(segment.seq, x.rcv_nxt) } else { segment.seq };
    !(is_in_block(x, BLOCK_0, start, end) || is_in_block(x, BLOCK_1, start, end))
}

#[inline(always)]
fn is_in_block(x: &EndState, block: u32, start: Seq, end: Seq) -> bool {
    let [start_0, end_0, start_1, end_1] = x.blocks;
    let (from, to) = if block == BLOCK_0 { (start_0, end_0) } else { (start_1, end_1) };
    x.has(block) && at_or_before(from, start) && at_or_before(end, to)
}

/// The latest segments of a flow that changed nothing in it, by [`print`]. They are in no number of the
/// flow, so that a copy of one would bring the same news again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutEffect {
    prints: [u16; 4],
}

impl WithoutEffect {
    /// None yet.
    pub const NONE: WithoutEffect = WithoutEffect { prints: [0; 4] };

    /// Adds a segment, and forgets the one that was added four before it.
    #[inline(always)]
    pub fn add(&mut self, sender: End, segment: &Segment) {
        let [a, b, c, _] = self.prints;
        self.prints = [print(sender, segment), a, b, c];
    }

    /// Whether the segment is one of the latest.
    #[inline(always)]
    pub fn contains(&self, sender: End, segment: &Segment) -> bool {
        let print = print(sender, segment);
        let [a, b, c, d] = self.prints;
        a == print || b == print || c == print || d == print
    }
}

/// A hash of what the machine reads of a segment, never 0.
#[inline(always)]
fn print(sender: End, segment: &Segment) -> u16 {
    let numbers = segment.seq.wrapping_mul(0x9e37_79b1)
        ^ segment.ack.wrapping_mul(0x85eb_ca6b)
        ^ segment.payload_len.wrapping_mul(0xc2b2_ae35)
        ^ ((segment.flags.0 as u32) << 1 | sender as u32).wrapping_mul(0x27d4_eb2f);
    (numbers >> 16) as u16 | 1
}
