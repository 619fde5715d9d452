//! Header prediction (Van Jacobson; `tcp_rcv_established` in Linux): on an established connection nearly every segment is
//! the next one in order, and then only a few numbers change. They are kept apart from the [`Flow`], in the one cache
//! line that also finds it; everything else goes through the whole machine.
//!
//! A prediction is a promise about the machine: a segment that [`Prediction::fits`] would change nothing in the flow but
//! what [`Prediction::settle`] writes back. A test holds it to that, segment by segment.

use super::facts::flow_fact;
use super::facts::half_fact::*;
use super::{Flow, Half};
use crate::seq::Seq;
use crate::state::State;
use crate::wire::{Header, plain::Plain};

/// One direction of a flow: what its next segment will look like, and where it is seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Sequence number of the next segment.
    pub next: Seq,
    /// Latest acknowledgment number.
    pub ack: Seq,
    /// Latest window field, not scaled; meaningful where `segments` is not 0.
    pub window: u16,
    /// Segments on the wire since the flow was last settled.
    pub segments: u16,
    /// The hook that this direction belongs to, shortened; 0 = none yet.
    pub hook: u16,
    /// When that hook last saw it, in units of 2^26 ns (67 ms), wrapping.
    pub at: u16,
}

/// Both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// When the last predicted segment was seen, ns; 0 where none was.
    pub last_ns: u64,
    /// From end A, from end B.
    pub lanes: [Lane; 2],
}

const _: () = assert!(size_of::<Prediction>() == 40);

impl Prediction {
    /// Of a flow that has just been claimed.
    pub const EMPTY: Prediction = {
        let lane = Lane { next: 0, ack: 0, window: 0, segments: 0, hook: 0, at: 0 };
        Prediction { last_ns: 0, lanes: [lane; 2] }
    };

    /// Whether the segment is what was predicted, seen at the hook that its direction belongs to. `silence_ns` is the
    /// shortest time after which silence means something.
    #[inline(always)]
    pub fn fits<K, H: Header>(
        &self,
        plain: &Plain<K, H>,
        wire_segments: u32,
        hook: u16,
        now_ns: u64,
        silence_ns: u64,
    ) -> bool {
        let (own, peer) = (&self.lanes[plain.sender & 1], &self.lanes[plain.sender & 1 ^ 1]);
        if own.hook != hook || plain.seq() != own.next {
            return false;
        }
        // An ACK between the latest one and what the peer has sent, going forward.
        let acked = plain.ack().wrapping_sub(own.ack);
        let unacked = peer.next.wrapping_sub(own.ack);
        let end = own.next.wrapping_add(plain.payload_len);
        let in_flight = end.wrapping_sub(peer.ack);
        acked <= unacked
            // Less than 2^31 octets in flight either way, so that what is before what is never in doubt; and once in 2^31
            // octets the flow is settled, so that neither is what has passed since.
            && (unacked | in_flight | (end ^ own.next)) >> 31 == 0
            && own.segments as u32 + wire_segments <= u16::MAX as u32
            && (now_ns.wrapping_sub(self.last_ns) as i64) < silence_ns as i64
    }

    /// Takes a segment that [`fits`](Self::fits).
    #[inline(always)]
    pub fn take<K, H: Header>(&mut self, plain: &Plain<K, H>, wire_segments: u32, now_ns: u64) {
        let own = &mut self.lanes[plain.sender & 1];
        own.next = own.next.wrapping_add(plain.payload_len);
        own.ack = plain.ack();
        own.window = plain.window();
        own.segments += wire_segments as u16;
        own.at = (now_ns >> AT_SHIFT) as u16;
        self.last_ns = now_ns;
    }

    /// Predicts from what the flow is now. Returns whether anything can be predicted.
    #[inline(always)]
    pub fn renew(&mut self, flow: &Flow) -> bool {
        let [a, b] = &mut self.lanes;
        follow(a, &flow.halves[0]);
        follow(b, &flow.halves[1]);
        self.last_ns = flow.last_ns;
        is_steady(flow)
    }

    /// Writes back to the flow what was taken since [`renew`](Self::renew).
    #[inline(always)]
    pub fn settle(&mut self, flow: &mut Flow) {
        let [a, b] = &mut flow.halves;
        let [lane_a, lane_b] = &mut self.lanes;
        let scaled = a.has(WSCALE) && b.has(WSCALE);
        write_back(lane_a, a, scaled);
        write_back(lane_b, b, scaled);
        if flow.last_ns < self.last_ns {
            flow.last_ns = self.last_ns;
        }
    }
}

#[inline(always)]
fn follow(lane: &mut Lane, half: &Half) {
    lane.next = half.contig;
    lane.ack = half.ack;
    lane.segments = 0;
}

#[inline(always)]
fn write_back(lane: &mut Lane, half: &mut Half, scaled: bool) {
    if lane.segments == 0 {
        return;
    }
    half.bytes = half.bytes.wrapping_add(lane.next.wrapping_sub(half.contig) as u64);
    half.contig = lane.next;
    half.high = lane.next;
    half.ack = lane.ack;
    half.window = (lane.window as u32) << if scaled { half.wscale & 15 } else { 0 };
    half.segments = half.segments.saturating_add(lane.segments as u32);
    lane.segments = 0;
}

/// Whether both ends are proved ESTABLISHED and nothing is pending, held or missing.
#[inline(always)]
fn is_steady(flow: &Flow) -> bool {
    const NEEDED: u32 = SYN | SYN_ACKED | SEQ | ACK | SEEN;
    const UNWANTED: u32 = FIN | FIN_DELIVERED | FIN_ACKED | GONE | BLOCK_0 | BLOCK_1 | STRAY;
    let steady = |half: &Half| {
        half.facts & (NEEDED | UNWANTED) == NEEDED
            && half.state == State::Established as u8
            && half.proved == State::Established as u8
            && half.contig == half.high
    };
    let [a, b] = &flow.halves;
    steady(a)
        && steady(b)
        && flow.facts & flow_fact::ESTABLISHED != 0
        && flow.facts & (flow_fact::PENDING_A | flow_fact::PENDING_B) == 0
}

/// From ns to the unit of [`Lane::at`].
pub const AT_SHIFT: u32 = 26;
