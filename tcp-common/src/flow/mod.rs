//! The observer's state machine: one flow, two ends, driven by the segments a tap saw and by the clock.
//!
//! The states of both ends are not stepped from arrow to arrow. Segments establish *facts* (this end's FIN
//! is at that number, the peer's ACK covers it, the peer has it), evidence to the contrary takes facts
//! back, and [`facts::derive`] says which RFC 9293 state the facts make. So a retransmission that proves an
//! earlier state needs no special arrow.
//!
//! Every end has two answers: *assumed* (all that the tap saw has been delivered, corrected at once by the
//! end's own segments) and *proved* (what its own segments prove, a lower bound).
//!
//! Files in the order in which a segment meets them:
//!
//! - [`mod@self`] dispatches by the kind of the segment.
//! - `open` handles SYN and SYN-ACK, `reset` RST, `refute` a RST that its receiver ignored, `icmp` ICMP errors.
//! - `data` has the steps for every other segment; `claim`, `ack`, `reassembly`, `fin`, `unseen` and `proof`
//!   are these steps.
//! - `facts` derives the states, `clock` expires timers, `outcome` is the answer to the caller.
//! - `close` describes how the connection was opened and closed; [`lifecycle`] says when a flow is due or
//!   forgotten.
//! - `sighting` distinguishes copies of a packet from news.
//! - `adopt` makes a flow of a socket, `correct` corrects one by its socket. `prediction` handles the segments of an open connection without all
//!   of this.
//!
//! In these files `x` is the sender's end and `y` the receiver's. A comment "R7" refers to a rule in
//! `docs/STATE_MACHINE.md`.

mod ack;
mod adopt;
mod claim;
mod clock;
mod close;
mod correct;
mod data;
mod facts;
mod fin;
mod icmp;
pub mod lifecycle;
mod open;
mod outcome;
mod prediction;
mod proof;
mod reassembly;
mod refute;
mod reset;
mod rules;
mod sighting;
mod unseen;

pub use adopt::SocketReport;
pub use close::{CloseKind, Closer, Coverage, Initiator};
pub use facts::{end_fact, flow_fact};
pub use outcome::{Cause, Outcome, Previous};
pub use prediction::{DirectionPrediction, Prediction};
pub use rules::Rules;
pub use sighting::WithoutEffect;

use core::hint::black_box;

use crate::segment::{Segment, SegmentKind};
use crate::seq::Seq;
use crate::state::{End, State};

/// What is known of one end. Only this module reads and writes the fields; others ask by the methods.
///
/// Fixed layout: it lives in kernel memory, where zeros are an end of which nothing is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndState {
    /// Bytes of payload in the stream that were seen or acknowledged; retransmissions count once.
    bytes: u64,
    /// When TIME-WAIT began or was restarted last, ns; 0 before.
    time_wait_at_ns: u64,
    /// Initial sequence number, that of the SYN.
    isn: Seq,
    /// Sequence number of the first byte after the SYN and the payload that it carried.
    first_seq: Seq,
    /// In-order edge: every byte before it was seen or acknowledged. RCV.NXT of the peer.
    rcv_nxt: Seq,
    /// Highest sequence number sent so far, plus one.
    snd_max: Seq,
    /// Highest acknowledgment number this end sent.
    ack: Seq,
    /// Window that this end offered last, in bytes.
    window: u32,
    /// The acknowledgment number that covers this end's FIN: `seq + len + 1` (RFC 9293 3.10.7.4).
    fin_end: Seq,
    /// Acknowledgment number of the first copy of this end's FIN. It shows whether this end closed first.
    fin_ack: Seq,
    /// Sequence number of the first new data that this end sent after it had received the peer's FIN. Before:
    /// the end of what it had sent until then, as far as known.
    first_data_after_fin: Seq,
    /// Out-of-order blocks beyond `rcv_nxt`: (start, end) twice.
    blocks: [Seq; 4],
    /// The last segment that was not accepted (R19): its sequence number, its end and its acknowledgment
    /// number. With [`end_fact::OTHER_ANSWER`] the first is another SYN-ACK's ISN.
    claim: [Seq; 3],
    /// Latest timestamp value this end sent (RFC 7323).
    tsval: u32,
    /// Segments seen from this end.
    segments: u32,
    /// Bits of [`end_fact`].
    facts: u32,
    /// Assumed state: the number of a [`State`].
    state: u8,
    /// Proved state: the number of a [`State`].
    proved: u8,
    /// Window shift that this end announced.
    wscale: u8,
    /// How often TIME-WAIT of this end was restarted, saturating.
    restarts: u8,
}

/// One flow's current incarnation. Only this module reads and writes the fields; others ask by the methods.
///
/// Fixed layout: it lives in kernel memory, where zeros are a flow of which nothing is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// When the first segment of this incarnation was seen, ns on the caller's clock.
    opened_ns: u64,
    /// When both ends were first ESTABLISHED, ns; 0 before.
    established_ns: u64,
    /// When the close began, by the first FIN or an accepted RST, ns; 0 before.
    closing_ns: u64,
    /// When the last segment that belongs to this incarnation was seen, ns. Before `opened_ns` if a socket has
    /// reported it (R25).
    last_ns: u64,
    /// The two ends, A first.
    ends: [EndState; 2],
    /// Number of this incarnation of the flow, from 1; 0 if no segment was seen.
    incarnation: u32,
    /// ISN of a SYN that may begin the next incarnation (R14).
    pending_isn: Seq,
    /// Bytes of payload on the pending SYN.
    pending_payload: u16,
    /// When the sender of the pending SYN first acknowledged a SYN-ACK that was not seen: ms on the caller's
    /// clock modulo 2^16, at least 1; 0 if it has not.
    pending_answered_ms: u16,
    /// Bits of [`flow_fact`].
    facts: u32,
    /// Timestamp of the pending SYN.
    pending_tsval: u32,
    /// Bits of the owner's: what it has reported of this incarnation. The machine only clears them when the
    /// next begins.
    reported: u32,
}

const _: () = assert!(size_of::<EndState>() == 96 && size_of::<Flow>() == 248);

impl Flow {
    /// A flow of which nothing is known.
    pub const EMPTY: Flow = {
        let x = EndState {
            bytes: 0,
            time_wait_at_ns: 0,
            isn: 0,
            first_seq: 0,
            rcv_nxt: 0,
            snd_max: 0,
            ack: 0,
            window: 0,
            fin_end: 0,
            fin_ack: 0,
            first_data_after_fin: 0,
            blocks: [0; 4],
            claim: [0; 3],
            tsval: 0,
            segments: 0,
            facts: 0,
            state: 0,
            proved: 0,
            wscale: 0,
            restarts: 0,
        };
        Flow {
            opened_ns: 0,
            established_ns: 0,
            closing_ns: 0,
            last_ns: 0,
            ends: [x; 2],
            incarnation: 0,
            pending_isn: 0,
            pending_payload: 0,
            pending_answered_ms: 0,
            facts: 0,
            pending_tsval: 0,
            reported: 0,
        }
    };

    /// Applies one segment that `sender` sent, after the timers that expired before it: so the result is
    /// the same whether or not the owner called [`tick`](Self::tick) in between.
    #[inline(always)]
    pub fn on_segment(&mut self, now_ns: u64, sender: End, segment: &Segment, rules: &Rules) -> Outcome {
        let mut outcome = self.tick(now_ns, rules);
        let step = Step { now_ns, sender: sender as u32, segment, rules };
        outcome.cause = match segment.kind() {
            SegmentKind::Syn => {
                let cause = self.on_syn(&step, &mut outcome);
                if self.ends[sender as usize & 1].is_outdated(segment) {
                    // A segment without ACK restarts 2MSL only if its timestamp is too old (PAWS, RFC 7323
                    // 5).
                    self.restart_time_wait(&step, cause, &mut outcome);
                }
                cause
            }
            SegmentKind::SynAck => {
                let cause = self.on_syn_ack(&step, &mut outcome);
                self.restart_time_wait(&step, cause, &mut outcome);
                cause
            }
            SegmentKind::Fin | SegmentKind::Ack => self.on_data(&step, &mut outcome),
            SegmentKind::Rst => self.on_reset(&step, &mut outcome),
            SegmentKind::Bad => Cause::BadFlags,
        };
        // Through memory: the verifier then has one path from here, not one for each cause.
        let cause = reread(&outcome.cause);
        if self.incarnation != 0 && cause.has_effect() {
            self.last_ns = now_ns;
        }
        if cause == Cause::BadFlags {
            return outcome;
        }
        let x = &mut self.ends[sender as usize & 1];
        x.segments = x.segments.saturating_add(segment.wire_segments as u32);
        self.derive_states(now_ns, &mut outcome);
        outcome
    }

    /// Whether no incarnation has begun yet.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.incarnation == 0
    }

    /// Whether both ends are CLOSED. Its owner keeps such a flow for a while, so that late segments begin
    /// no incarnation (R20).
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        self.ends[0].is_in(State::Closed) && self.ends[1].is_in(State::Closed)
    }

    /// Whether the flow is not known to be a connection of two hosts: its handshake is not complete, or few
    /// segments of one end alone were seen. One host can make such flows with any addresses.
    #[inline(always)]
    pub fn is_half_open(&self) -> bool {
        let [a, b] = &self.ends;
        let opening = |x: &EndState| x.is_in(State::SynSent) || x.is_in(State::SynReceived);
        if self.facts & (flow_fact::MIDSTREAM | flow_fact::ESTABLISHED) != 0 {
            return self.facts & flow_fact::ADOPTED == 0
                && !(a.has(end_fact::SEEN) && b.has(end_fact::SEEN))
                && a.segments.saturating_add(b.segments) < ONE_WAY_SEGMENTS;
        }
        opening(a) || opening(b)
    }

    /// Assumed state of one end: CLOSED where nothing is known.
    #[inline(always)]
    pub fn state(&self, end: End) -> State {
        match State::from_repr(self.ends[end as usize & 1].state) {
            None | Some(State::Unknown) => State::Closed,
            Some(state) => state,
        }
    }

    /// Assumed states of both ends, A first.
    #[inline(always)]
    pub fn states(&self) -> [State; 2] {
        [self.state(End::A), self.state(End::B)]
    }

    /// The state that the end's own segments prove; `Unknown` while they prove none.
    pub fn proved(&self, end: End) -> State {
        State::from_repr(self.ends[end as usize & 1].proved).unwrap_or(State::Unknown)
    }

    /// Whether the end's own segments prove the assumed state.
    pub fn confirmed(&self, end: End) -> bool {
        self.proved(end) == self.state(end)
    }

    /// What is known of one end.
    #[inline(always)]
    pub const fn end(&self, end: End) -> &EndState {
        &self.ends[end as usize & 1]
    }

    /// Number of this incarnation of the flow, from 1; 0 if no segment was seen.
    #[inline(always)]
    pub const fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// When the first segment of this incarnation was seen, ns on the caller's clock.
    #[inline(always)]
    pub const fn opened_ns(&self) -> u64 {
        self.opened_ns
    }

    /// When both ends were first ESTABLISHED, ns; 0 if they never were.
    #[inline(always)]
    pub const fn established_ns(&self) -> u64 {
        self.established_ns
    }

    /// When the close began, by the first FIN or an accepted RST, ns; 0 before.
    #[inline(always)]
    pub const fn closing_ns(&self) -> u64 {
        self.closing_ns
    }

    /// When the last segment that belongs to this incarnation was seen, ns. Before
    /// [`opened_ns`](Self::opened_ns) if a socket has reported it (R25).
    #[inline(always)]
    pub const fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// The bits of [`flow_fact`] that hold.
    #[inline(always)]
    pub const fn facts(&self) -> u32 {
        self.facts
    }

    /// Whether the handshake was not seen.
    #[inline(always)]
    pub const fn is_midstream(&self) -> bool {
        self.facts & flow_fact::MIDSTREAM != 0
    }

    /// Whether the flow was made of a socket ([`Flow::adopted`]) and not of a segment.
    #[inline(always)]
    pub const fn is_adopted(&self) -> bool {
        self.facts & flow_fact::ADOPTED != 0
    }

    /// Whether the close of this incarnation has been complete at some time. A late FIN may have revived an end
    /// since (R9).
    #[inline(always)]
    pub const fn was_finished(&self) -> bool {
        self.facts & flow_fact::FINISHED != 0
    }

    /// Whether the close is complete: each end is in TIME-WAIT or CLOSED.
    #[inline(always)]
    pub const fn is_finished(&self) -> bool {
        let [a, b] = &self.ends;
        (a.is_in(State::TimeWait) || a.is_in(State::Closed))
            && (b.is_in(State::TimeWait) || b.is_in(State::Closed))
    }

    /// Bits of the owner's: what it has reported of this incarnation.
    #[inline(always)]
    pub const fn reported(&self) -> u32 {
        self.reported
    }

    /// Replaces the bits of the owner's. The machine clears them when the next incarnation begins.
    #[inline(always)]
    pub fn set_reported(&mut self, bits: u32) {
        self.reported = bits;
    }

    /// Says whether an end belongs to this host: its TIME-WAIT then follows this host's rules.
    #[inline(always)]
    pub fn set_local(&mut self, end: End, local: bool) {
        let bit = local_bit(end);
        self.facts = if local { self.facts | bit } else { self.facts & !bit };
    }

    /// Whether an end belongs to this host.
    #[inline(always)]
    pub const fn is_local(&self, end: End) -> bool {
        self.facts & local_bit(end) != 0
    }

    /// The flow without knowledge of which ends belong to this host.
    pub const fn without_locality(mut self) -> Flow {
        self.facts &= !(flow_fact::LOCAL_A | flow_fact::LOCAL_B);
        self
    }

    /// The flow with its two ends exchanged, as an observer would have it that names them the other way
    /// round.
    pub fn mirrored(mut self) -> Flow {
        self.ends.swap(0, 1);
        for (a, b) in flow_fact::PAIRS {
            let (has_a, has_b) = (self.facts & a != 0, self.facts & b != 0);
            self.facts = self.facts & !(a | b) | if has_a { b } else { 0 } | if has_b { a } else { 0 };
        }
        self
    }
}

impl EndState {
    /// Whether this is the assumed state.
    #[inline(always)]
    const fn is_in(&self, state: State) -> bool {
        self.state == state as u8
    }

    /// The bits of [`end_fact`] that hold.
    #[inline(always)]
    pub const fn facts(&self) -> u32 {
        self.facts
    }

    /// Bytes of payload in the stream that were seen or acknowledged; retransmissions count once.
    #[inline(always)]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Segments seen from this end.
    #[inline(always)]
    pub const fn segments(&self) -> u32 {
        self.segments
    }

    /// Initial sequence number.
    #[inline(always)]
    pub const fn isn(&self) -> Seq {
        self.isn
    }

    /// Sequence number of the first byte after the SYN and the payload that it carried.
    #[inline(always)]
    pub const fn first_seq(&self) -> Seq {
        self.first_seq
    }

    /// In-order edge: every byte before it was seen or acknowledged. RCV.NXT of the peer.
    #[inline(always)]
    pub const fn rcv_nxt(&self) -> Seq {
        self.rcv_nxt
    }

    /// Highest sequence number sent so far, plus one.
    #[inline(always)]
    pub const fn snd_max(&self) -> Seq {
        self.snd_max
    }

    /// The acknowledgment number that covers this end's FIN; meaningful if it has sent one.
    #[inline(always)]
    pub const fn fin_end(&self) -> Seq {
        self.fin_end
    }

    /// When TIME-WAIT began or was restarted last, ns; `None` if this end was never in TIME-WAIT.
    pub fn time_wait_ns(&self) -> Option<u64> {
        (self.time_wait_at_ns != 0).then_some(self.time_wait_at_ns)
    }

    /// Whether this end was in TIME-WAIT and is CLOSED now.
    #[inline(always)]
    pub const fn has_left_time_wait(&self) -> bool {
        self.time_wait_at_ns != 0 && self.is_in(State::Closed)
    }

    /// Latest timestamp value that this end sent (RFC 7323); meaningful with [`end_fact::TIMESTAMP`].
    #[inline(always)]
    pub const fn tsval(&self) -> u32 {
        self.tsval
    }

    /// How often TIME-WAIT of this end was restarted, saturating.
    #[inline(always)]
    pub const fn restarts(&self) -> u8 {
        self.restarts
    }
}

#[inline(always)]
const fn local_bit(end: End) -> u32 {
    match end {
        End::A => flow_fact::LOCAL_A,
        End::B => flow_fact::LOCAL_B,
    }
}

/// Segments of one end alone that make a connection whose other direction takes another path.
const ONE_WAY_SEGMENTS: u32 = 8;

/// One segment with the time, its sender and the rules.
struct Step<'a> {
    now_ns: u64,
    /// Number of the [`End`]. A plain number, so that the compiler keeps the mask by which the verifier
    /// knows its bound.
    sender: u32,
    segment: &'a Segment,
    rules: &'a Rules,
}

impl Step<'_> {
    #[inline(always)]
    const fn sender(&self) -> End {
        if self.sender & 1 == 0 { End::A } else { End::B }
    }
}

/// The sender's end and the receiver's.
#[inline(always)]
fn sides(ends: &mut [EndState; 2], sender: End) -> (&mut EndState, &mut EndState) {
    let [a, b] = ends;
    match sender {
        End::A => (a, b),
        End::B => (b, a),
    }
}

/// Returns a value that was just written, as read from memory. The verifier does not know which path has
/// written it, so that it follows what comes next once.
#[inline(always)]
fn reread<T: Copy>(value: &T) -> T {
    *black_box(value)
}
