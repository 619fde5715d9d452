//! Header prediction (Van Jacobson; `tcp_rcv_established` in Linux). On an open or half-closed connection
//! nearly every segment is the next one in order, and changes only a few numbers. These are kept apart from
//! the [`Flow`], in the cache line by which the flow is found. Every other segment goes through the whole
//! machine.
//!
//! A prediction is a promise about the machine: a segment that [`Prediction::fits`] would change nothing in
//! the flow but what [`Prediction::flush_into`] writes back. A test holds it to that, segment by segment.

use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::{EndState, Flow};
use crate::segment::Segment;
use crate::seq::{Seq, later};
use crate::state::State;
use crate::wire::{Header, plain::Plain};

/// One direction of a flow: its next segment as predicted, and the hook that sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionPrediction {
    /// Sequence number of the next segment.
    pub next: Seq,
    /// Latest acknowledgment number.
    pub ack: Seq,
    /// Latest window field, not scaled; meaningful if segments were applied.
    pub window: u16,
    /// Bits 0..14: segments on the wire since the last flush. Above them [`NO_PAYLOAD`] and [`NO_EMPTY`].
    pub segments: u16,
    /// The hook at which this direction last brought something new, shortened; 0 = none yet.
    pub hook: u16,
    /// When this direction was last seen, copies excluded, in units of 2^23 ns (8.4 ms), wrapping.
    pub at: u16,
}

impl DirectionPrediction {
    /// Whether a segment without news, seen at `hook`, is a copy of one that was counted: this direction
    /// belongs to another hook, and was seen less than 100 ms ago. Later it is a retransmission.
    #[inline(always)]
    pub fn may_be_copy(&self, hook: u16, now_ns: u64) -> bool {
        self.is_elsewhere(hook, now_ns, COPY_STEPS)
    }

    /// Whether this direction belongs to another hook than `hook`, and was seen less than a second ago. A
    /// segment that is out of the window then belongs to another connection with the same addresses and
    /// ports.
    #[inline(always)]
    pub fn is_alive_elsewhere(&self, hook: u16, now_ns: u64) -> bool {
        self.is_elsewhere(hook, now_ns, ALIVE_STEPS)
    }

    /// A time before the last segment is as recent: two clocks are read, and one may be ahead of the other.
    #[inline(always)]
    fn is_elsewhere(&self, hook: u16, now_ns: u64, steps: u16) -> bool {
        let since = ((now_ns >> AT_SHIFT) as u16).wrapping_sub(self.at);
        self.hook != hook && self.hook != 0 && since.wrapping_add(CLOCK_STEPS) < steps + CLOCK_STEPS
    }

    /// Notes that a segment of this direction was counted at `hook`. The direction moves there if the
    /// segment was news that the machine accepted.
    #[inline(always)]
    pub fn count_at(&mut self, hook: u16, moves: bool, now_ns: u64) {
        if self.hook == 0 || moves {
            self.hook = hook;
        }
        self.at = (now_ns >> AT_SHIFT) as u16;
    }
}

/// The prediction of both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// When the last predicted segment was seen, ns; 0 if none was.
    pub last_ns: u64,
    /// The direction from end A, then the one from end B.
    pub directions: [DirectionPrediction; 2],
}

const _: () = assert!(size_of::<Prediction>() == 40);

impl Prediction {
    /// The prediction of a flow that has just been inserted.
    pub const EMPTY: Prediction = {
        let direction = DirectionPrediction { next: 0, ack: 0, window: 0, segments: 0, hook: 0, at: 0 };
        Prediction { last_ns: 0, directions: [direction; 2] }
    };

    /// Whether the segment is as predicted, and no copy of one that was seen at another hook. `silence_ns` is
    /// the shortest limit of silence, [`Rules::steady_silence_ns`](crate::Rules::steady_silence_ns).
    #[inline(always)]
    pub fn fits<K, H: Header>(
        &self,
        plain: &Plain<K, H>,
        wire_segments: u16,
        hook: u16,
        now_ns: u64,
        silence_ns: u64,
    ) -> bool {
        let (own, peer) = (&self.directions[plain.sender & 1], &self.directions[plain.sender & 1 ^ 1]);
        let seq = plain.seq();
        if seq != own.next && !is_keepalive(seq, own.next, plain.payload_len) {
            return false;
        }
        // The ACK lies between the latest one and what the peer has sent.
        let acked = plain.ack().wrapping_sub(own.ack);
        // A segment that brings neither bytes nor an acknowledgment may be a copy of one at another hook.
        let is_news = acked != 0 || (plain.payload_len != 0 && seq == own.next);
        if own.hook != hook && !is_news {
            return false;
        }
        let unacked = peer.next.wrapping_sub(own.ack);
        let end = seq.wrapping_add(plain.payload_len);
        let in_flight = own.next.wrapping_add(plain.payload_len).wrapping_sub(peer.ack);
        let segments = own.segments as u32 + wire_segments as u32;
        acked <= unacked
            // Less than 2^31 bytes in flight either way, so the order of two numbers is never in doubt; and
            // one flush every 2^31 bytes, so neither is the number of bytes since the last one.
            && (unacked | in_flight | (end ^ own.next)) >> 31 == 0
            && (segments <= SEGMENTS as u32 || is_expected(own.segments, segments, plain.payload_len))
            && (now_ns.wrapping_sub(self.last_ns) as i64) < silence_ns as i64
    }

    /// Applies a segment that [`fits`](Self::fits).
    #[inline(always)]
    pub fn apply<K, H: Header>(&mut self, plain: &Plain<K, H>, wire_segments: u16, hook: u16, now_ns: u64) {
        let own = &mut self.directions[plain.sender & 1];
        if plain.payload_len != 0 {
            // The byte of a keepalive is not part of the stream.
            own.next = later(own.next, plain.seq().wrapping_add(plain.payload_len));
        }
        own.ack = plain.ack();
        own.window = plain.window();
        own.segments += wire_segments;
        own.hook = hook;
        own.at = (now_ns >> AT_SHIFT) as u16;
        self.last_ns = now_ns;
    }

    /// Predicts the next segments of the flow. Returns whether any can be predicted.
    #[inline(always)]
    pub fn renew(&mut self, flow: &Flow) -> bool {
        let [a, b] = &flow.ends;
        let [from_a, from_b] = &mut self.directions;
        predict(from_a, a, b);
        predict(from_b, b, a);
        self.last_ns = flow.last_ns;
        (from_a.segments & from_b.segments) & NOTHING != NOTHING
            && flow.facts & flow_fact::ESTABLISHED != 0
            && flow.facts & (flow_fact::PENDING_A | flow_fact::PENDING_B) == 0
    }

    /// Writes to the flow what was applied since [`renew`](Self::renew).
    #[inline(always)]
    pub fn flush_into(&mut self, flow: &mut Flow) {
        let [a, b] = &mut flow.ends;
        let [from_a, from_b] = &mut self.directions;
        let scaled = a.has(WSCALE) && b.has(WSCALE);
        write_back(from_a, a, scaled);
        write_back(from_b, b, scaled);
        if flow.last_ns < self.last_ns {
            flow.last_ns = self.last_ns;
        }
    }
}

#[inline(always)]
fn predict(direction: &mut DirectionPrediction, x: &EndState, y: &EndState) {
    direction.next = x.rcv_nxt;
    direction.ack = x.ack;
    direction.segments = unpredictable(x, y);
}

#[inline(always)]
fn write_back(direction: &mut DirectionPrediction, x: &mut EndState, scaled: bool) {
    let segments = direction.segments & SEGMENTS;
    if segments == 0 {
        return;
    }
    x.bytes = x.bytes.wrapping_add(direction.next.wrapping_sub(x.rcv_nxt) as u64);
    x.rcv_nxt = direction.next;
    x.snd_max = direction.next;
    x.ack = direction.ack;
    x.window = (direction.window as u32) << if scaled { x.wscale & 15 } else { 0 };
    x.segments = x.segments.saturating_add(segments as u32);
    direction.segments &= NOTHING;
}

/// The segments of `x` that would change more of the flow than [`Prediction::apply`] does. None if both
/// ends are proved to be ESTABLISHED and no byte is missing; some if one end has closed its direction and
/// both know; otherwise all.
#[inline(always)]
fn unpredictable(x: &EndState, y: &EndState) -> u16 {
    const ESTABLISHED: u8 = State::Established as u8;
    const CLOSE_WAIT: u8 = State::CloseWait as u8;
    const FIN_WAIT_1: u8 = State::FinWait1 as u8;
    const FIN_WAIT_2: u8 = State::FinWait2 as u8;
    // Until `y` is proved to be ESTABLISHED, each segment of `x` may write its timestamp (R27).
    if !(is_quiet(x) && is_quiet(y)) || y.proved < ESTABLISHED {
        return NOTHING;
    }
    match (x.state, y.state, x.proved) {
        (ESTABLISHED, ESTABLISHED, ESTABLISHED) => 0,
        // Payload would be data after the FIN. An ACK of the first data that covered it proves FIN-WAIT-2.
        (FIN_WAIT_2, CLOSE_WAIT, FIN_WAIT_2) => NO_PAYLOAD,
        (FIN_WAIT_2, CLOSE_WAIT, FIN_WAIT_1) if !y.has(FIRST_DATA_AFTER_FIN) => NO_PAYLOAD,
        // The first segment of either kind after the peer's FIN decides the kind of the close (R7).
        (CLOSE_WAIT, FIN_WAIT_2, CLOSE_WAIT) if y.fin_covered_by(x.ack) => {
            let payload = if x.has(DATA_COVER) && x.has(FIRST_DATA_AFTER_FIN) { 0 } else { NO_PAYLOAD };
            payload | if x.has(EMPTY_COVER) { 0 } else { NO_EMPTY }
        }
        _ => NOTHING,
    }
}

/// Whether no byte of this end is missing or out of order, and everything known of it was seen.
#[inline(always)]
fn is_quiet(x: &EndState) -> bool {
    const NEEDED: u32 = SYN | SYN_ACKED | SEQ | ACK | SEEN;
    const UNWANTED: u32 = FIN_REPORTED | GONE | BLOCK_0 | BLOCK_1 | CLAIM | UNSEEN;
    x.facts & (NEEDED | UNWANTED) == NEEDED && x.rcv_nxt == x.snd_max
}

/// Whether a direction in which only some segments are predicted expects this one.
#[inline(always)]
fn is_expected(direction: u16, segments: u32, payload_len: u32) -> bool {
    let unexpected = if payload_len == 0 { NO_EMPTY } else { NO_PAYLOAD };
    direction & NOTHING != 0
        && direction & unexpected == 0
        && segments & NOTHING as u32 == (direction & NOTHING) as u32
}

/// Whether the segment is a keepalive, the byte before the next one or none (RFC 9293 3.8.4). It changes
/// nothing (R24).
#[inline(always)]
fn is_keepalive(seq: Seq, next: Seq, payload_len: u32) -> bool {
    seq == next.wrapping_sub(1) && payload_len <= 1
}

/// Shift from ns to the unit of [`DirectionPrediction::at`].
const AT_SHIFT: u32 = 23;
/// How long after its original a copy is expected at most: 100 ms, in units of 2^23 ns.
const COPY_STEPS: u16 = 12;
/// How long a direction is taken to be in use after its last segment: a second, in units of 2^23 ns.
const ALIVE_STEPS: u16 = 119;
/// How far a time may lie before that of the last segment: 34 ms, in units of 2^23 ns.
const CLOCK_STEPS: u16 = 4;
/// Bit of [`DirectionPrediction::segments`]: no segment with payload is predicted.
const NO_PAYLOAD: u16 = 1 << 15;
/// Bit of [`DirectionPrediction::segments`]: no segment without payload is predicted.
const NO_EMPTY: u16 = 1 << 14;
/// No segment is predicted.
const NOTHING: u16 = NO_PAYLOAD | NO_EMPTY;
/// The bits of [`DirectionPrediction::segments`] that count segments.
const SEGMENTS: u16 = !NOTHING;

const _: () = assert!(Segment::MAX_WIRE_SEGMENTS <= SEGMENTS, "one packet does not wrap the flag bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_follow_within_a_tenth_of_a_second_whichever_clock_is_ahead() {
        const STEP: u64 = 1 << AT_SHIFT;
        for last in [0, 7, u16::MAX - 3, u16::MAX] {
            let mut direction = Prediction::EMPTY.directions[0];
            // In a later round of the 16-bit counter.
            let near = u64::from(last) + (5 << 16);
            direction.count_at(3, true, near * STEP);
            for (now, is_copy) in
                [(near - 5, false), (near - 4, true), (near, true), (near + 11, true), (near + 12, false)]
            {
                assert_eq!(direction.may_be_copy(5, now * STEP), is_copy, "{now} after {last}");
                assert_eq!(direction.may_be_copy(5, now * STEP + STEP - 1), is_copy, "{now} after {last}");
                assert!(!direction.may_be_copy(3, now * STEP), "its own hook");
            }
        }
        assert!(!Prediction::EMPTY.directions[0].may_be_copy(3, 0), "not seen before");
    }
}
