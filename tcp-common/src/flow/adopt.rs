//! Connections that are older than the tap, known from a socket of one end (R25). A socket does not show
//! the sequence numbers. Those of the streams follow from the next segments, as for any connection that is
//! picked up in the middle; those of the FINs from what acknowledges them.

use super::facts::end_fact::*;
use super::facts::flow_fact;
use super::{EndState, Flow, sides};
use crate::segment::{Flags, Segment};
use crate::seq::{Seq, before};
use crate::state::{End, State};

/// What a host reports of its socket for one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketReport {
    /// State of the socket.
    pub state: State,
    /// When its last segment passed in either direction, ns on the caller's clock.
    pub last_ns: u64,
    /// When its TIME-WAIT began or was restarted last, ns on the caller's clock; meaningful in TIME-WAIT
    /// only.
    pub time_wait_at_ns: u64,
    /// Window shifts that both ends announced, its own first; `None` if they did not, or the host does not
    /// report them.
    pub wscale: Option<[u8; 2]>,
}

impl Flow {
    /// The flow of a connection that is known from the socket of `end` alone. The peer's state is assumed
    /// from the socket's. `None` for a state in which there is no connection yet, or none any more.
    pub fn adopted(now_ns: u64, end: End, report: &SocketReport) -> Option<Flow> {
        const HAS: u32 = FIN | FIN_REPORTED | FIN_DELIVERED;
        const KNOWS: u32 = HAS | FIN_ACKED;
        // Facts of the end and of its peer; then whether each had the other's FIN when it sent its own.
        let (own_facts, peer_facts, knew) = match report.state {
            State::Established => (0, 0, [false, false]),
            State::FinWait1 => (HAS, 0, [false, false]),
            State::FinWait2 => (KNOWS, EMPTY_COVER, [false, false]),
            State::CloseWait => (EMPTY_COVER, KNOWS, [false, false]),
            State::Closing => (HAS, KNOWS, [false, false]),
            State::LastAck => (HAS, KNOWS, [true, false]),
            State::TimeWait => (KNOWS, KNOWS, [false, true]),
            State::Closed | State::Listen | State::SynSent | State::SynReceived | State::Unknown => {
                return None;
            }
        };
        let mut flow = Flow {
            opened_ns: now_ns,
            established_ns: now_ns,
            last_ns: report.last_ns,
            closing_ns: if report.state == State::Established { 0 } else { now_ns },
            incarnation: 1,
            facts: flow_fact::MIDSTREAM | flow_fact::ADOPTED | flow_fact::ESTABLISHED,
            ..Flow::EMPTY
        };
        flow.set_local(end, true);
        let (own, peer) = sides(&mut flow.ends, end);
        for (x, facts, knew) in [(&mut *own, own_facts, knew[0]), (&mut *peer, peer_facts, knew[1])] {
            x.facts = SYN | SYN_ACKED | facts;
            // Until the FINs are located they are numbered on their own: both end at 1.
            x.fin_end = 1;
            x.fin_ack = knew as Seq;
        }
        if let Some([own_shift, peer_shift]) = report.wscale {
            own.wscale = own_shift;
            peer.wscale = peer_shift;
            own.set(WSCALE);
            peer.set(WSCALE);
        }
        own.proved = report.state as u8;
        let mut outcome = flow.tick(now_ns, &super::Rules::RFC);
        flow.derive_states(now_ns, &mut outcome);
        sides(&mut flow.ends, end).0.time_wait_at_ns = report.time_wait_at_ns;
        Some(flow)
    }

    /// Locates the FINs that only a host has reported, before the segment is applied. The end of such a FIN
    /// is the receiver's ACK, or the sequence number of the sender's next segment (one byte less for a
    /// keepalive). A later ACK raises it; a retransmission of the FIN is authoritative.
    #[inline(never)]
    pub(super) fn locate_fins(&mut self, sender: End, segment: &Segment) {
        let (x, y) = sides(&mut self.ends, sender);
        if y.has(FIN_REPORTED) && (!y.has(SEQ) || before(y.fin_end, segment.ack)) {
            move_fin(y, x, segment.ack);
        }
        if x.has(FIN_REPORTED) {
            if segment.flags.has(Flags::FIN) {
                move_fin(x, y, segment.end());
                x.clear(FIN_REPORTED);
            } else if !x.has(SEQ) {
                move_fin(x, y, segment.seq);
            }
        }
        // A FIN that is still to come acknowledges more, and ends later, than what was seen so far.
        if x.has(FIN) && !y.has(FIN | SEQ) {
            x.fin_ack = segment.ack;
        }
        if y.has(FIN) && !x.has(FIN | SEQ) {
            y.fin_ack = segment.seq.wrapping_sub(1);
        }
    }
}

/// Moves the end of the FIN of `x` to `end`, and the acknowledgment on the peer's FIN with it.
#[inline(always)]
fn move_fin(x: &mut EndState, y: &mut EndState, end: Seq) {
    y.fin_ack = y.fin_ack.wrapping_add(end.wrapping_sub(x.fin_end));
    x.fin_end = end;
    if !x.has(SEQ) {
        x.isn = end.wrapping_sub(2);
        x.first_seq = end.wrapping_sub(1);
        x.set(SEQ);
    }
    x.rcv_nxt = end;
    x.snd_max = end;
}
