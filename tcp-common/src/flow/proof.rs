//! Proof: the state of an end that its own segments are evidence of, a lower bound of the assumed state.

use super::EndState;
use super::facts::end_fact::*;
use crate::segment::{Flags, Segment};
use crate::seq::before;
use crate::state::State;

/// The state that this segment of `x` proves, or the one proved before. `covers`: its ACK covers the FIN of
/// `y`; `fresh`: it has payload that was not seen before.
#[inline(always)]
pub(super) fn prove(x: &EndState, y: &EndState, segment: &Segment, covers: bool, fresh: bool) -> State {
    let proved = match State::from_repr(x.proved) {
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
            if before(y.first_seq, segment.ack) || (fresh && y.first_seq == y.isn.wrapping_add(1)) =>
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
