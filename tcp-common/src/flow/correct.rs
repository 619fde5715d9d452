//! What a check of a host's socket corrects (R25): a FIN that passed the observer or the socket, but not both,
//! because the host's firewall dropped it.

use super::facts::end_fact::*;
use super::{Cause, Flow, Outcome, sides};
use crate::state::{End, State};

impl Flow {
    /// Corrects the state of `end`, whose socket is in the state `socket` though no segment is on its way.
    /// `None` if no FIN explains the difference, or there is none.
    ///
    /// A FIN of the socket that was not seen has not left the host, and ends where its bytes do: the caller
    /// makes sure that none of them are unacknowledged. A FIN of the peer that the socket has not received
    /// is not delivered; it is again when it is sent again.
    pub fn correct(&mut self, now_ns: u64, end: End, socket: State) -> Option<Outcome> {
        let (own_state, is_confirmed) = (self.state(end), self.confirmed(end));
        let mut outcome = Outcome::unchanged(self.states());
        let (own, peer) = sides(&mut self.ends, end);
        match (own_state, socket) {
            (State::Established, State::FinWait1) | (State::CloseWait, State::LastAck) => {
                own.set(FIN | FIN_REPORTED);
                own.fin_end = own.snd_max.wrapping_add(1);
                own.fin_ack = own.ack;
                if self.closing_ns == 0 {
                    self.closing_ns = now_ns;
                }
            }
            (State::CloseWait, State::Established)
            | (State::Closing, State::FinWait1)
            | (State::TimeWait, State::FinWait2)
                if !is_confirmed =>
            {
                peer.clear(FIN_DELIVERED);
                own.time_wait_at_ns = 0;
            }
            _ => return None,
        }
        outcome.cause = Cause::SocketCheck;
        self.derive_states(now_ns, &mut outcome);
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CloseKind, Flags, Rules, Segment};

    const FIN_ACK: u8 = Flags::FIN | Flags::ACK;

    fn send(flow: &mut Flow, sender: End, flags: u8, seq: u32, ack: u32) {
        let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
        flow.on_segment(1_000, sender, &segment, &Rules::RFC);
    }

    /// Established by A, which is the host's end.
    fn established() -> Flow {
        let mut flow = Flow::EMPTY;
        send(&mut flow, End::A, Flags::SYN, 100, 0);
        send(&mut flow, End::B, Flags::SYN | Flags::ACK, 900, 101);
        send(&mut flow, End::A, Flags::ACK, 101, 901);
        assert_eq!(flow.states(), [State::Established; 2]);
        flow
    }

    fn correct(flow: &mut Flow, socket: State) -> Option<[State; 2]> {
        flow.correct(2_000, End::A, socket).map(|outcome| outcome.to)
    }

    #[test]
    fn a_fin_that_has_not_left_the_host_is_known_from_the_socket() {
        let mut flow = established();
        assert_eq!(correct(&mut flow, State::FinWait1), Some([State::FinWait1, State::Established]));
        assert_eq!(flow.closing_ns(), 2_000);
        // At last it leaves the host.
        send(&mut flow, End::A, FIN_ACK, 101, 901);
        send(&mut flow, End::B, FIN_ACK, 901, 102);
        send(&mut flow, End::A, Flags::ACK, 102, 902);
        assert_eq!(flow.states(), [State::TimeWait, State::Closed]);
        assert_eq!(flow.close_kind(), CloseKind::Fin3Seg);
    }

    #[test]
    fn the_second_fin_may_be_the_one_that_has_not_left_the_host() {
        let mut flow = established();
        send(&mut flow, End::B, FIN_ACK, 901, 101);
        send(&mut flow, End::A, Flags::ACK, 101, 902);
        assert_eq!(correct(&mut flow, State::LastAck), Some([State::LastAck, State::FinWait2]));
        send(&mut flow, End::A, FIN_ACK, 101, 902);
        send(&mut flow, End::B, Flags::ACK, 902, 102);
        assert_eq!(flow.states(), [State::Closed, State::TimeWait]);
    }

    #[test]
    fn a_fin_that_has_not_reached_the_socket_is_not_delivered() {
        let mut flow = established();
        send(&mut flow, End::B, FIN_ACK, 901, 101);
        assert_eq!(flow.states(), [State::CloseWait, State::FinWait1]);
        assert_eq!(correct(&mut flow, State::Established), Some([State::Established, State::FinWait1]));
        // Sent again, it arrives, as far as is known.
        send(&mut flow, End::B, FIN_ACK, 901, 101);
        assert_eq!(flow.states(), [State::CloseWait, State::FinWait1]);
        assert_eq!(correct(&mut flow, State::Established), Some([State::Established, State::FinWait1]));
        send(&mut flow, End::A, Flags::ACK, 101, 902);
        assert_eq!(flow.states(), [State::CloseWait, State::FinWait2]);
    }

    #[test]
    fn a_time_wait_that_the_socket_is_not_in_has_not_begun() {
        let mut flow = established();
        send(&mut flow, End::A, FIN_ACK, 101, 901);
        send(&mut flow, End::B, Flags::ACK, 901, 102);
        send(&mut flow, End::B, FIN_ACK, 901, 102);
        assert_eq!(flow.state(End::A), State::TimeWait);
        assert_eq!(correct(&mut flow, State::FinWait2), Some([State::FinWait2, State::LastAck]));
        assert_eq!(flow.time_wait_deadline_ns(End::A, &Rules::RFC), None);
    }

    #[test]
    fn nothing_else_is_corrected() {
        let mut flow = established();
        send(&mut flow, End::B, FIN_ACK, 901, 101);
        send(&mut flow, End::A, Flags::ACK, 101, 902);
        // The end has acknowledged the FIN.
        assert_eq!(correct(&mut flow, State::Established), None);
        for socket in State::ALL.into_iter().filter(|&socket| socket != State::LastAck) {
            assert_eq!(correct(&mut flow, socket), None, "{socket:?}");
        }
    }
}
