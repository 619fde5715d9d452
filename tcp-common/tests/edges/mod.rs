//! The transitions that the assumed state of an end may make.

use tcp_common::SegmentKind::{self, Ack, Fin, Rst, Syn, SynAck};
use tcp_common::State::{self, *};

/// Transitions of RFC 9293, figure 5 and 3.10.7. Besides these every state may become CLOSED: by RST,
/// by 2MSL, by silence.
const RFC: &[(State, State)] = &[
    (Closed, Listen),
    (Closed, SynSent),
    (Listen, SynSent),
    (Listen, SynReceived),
    (SynSent, SynReceived),
    (SynSent, Established),
    (SynReceived, Listen),
    (SynReceived, Established),
    (SynReceived, FinWait1),
    (SynReceived, CloseWait),
    (Established, FinWait1),
    (Established, CloseWait),
    (FinWait1, FinWait2),
    (FinWait1, Closing),
    (FinWait1, TimeWait),
    (FinWait2, TimeWait),
    (CloseWait, LastAck),
    (Closing, TimeWait),
];

/// Transitions by which evidence corrects an assumption, and the kinds of segment that may be that
/// evidence. They are the table of corrections in docs/STATE_MACHINE.md.
const CORRECTIONS: &[(State, &[State], &[SegmentKind])] = &[
    // R21, R22: the beginning was not observed.
    (Closed, &[SynReceived, Established], &[SynAck]),
    (Closed, &[Established, CloseWait, FinWait1], &[Ack, Fin]),
    (Listen, &[Established], &[Ack, Fin, Syn]),
    // A retransmitted SYN or SYN-ACK: the peer's answer was lost.
    (Established, &[SynSent], &[Syn]),
    (CloseWait, &[SynSent], &[Syn]),
    (Established, &[SynReceived], &[SynAck]),
    (CloseWait, &[SynReceived], &[SynAck]),
    // A retransmitted FIN: the peer's ACK was lost. R9: also from an end taken as CLOSED.
    (FinWait2, &[FinWait1], &[Fin]),
    (TimeWait, &[Closing, FinWait1], &[Fin]),
    (Closed, &[LastAck, Closing], &[Fin]),
    // Its FIN does not acknowledge the peer's: they crossed.
    (CloseWait, &[Closing, FinWait1], &[Fin]),
    // R6: an earlier copy of its FIN does not either.
    (LastAck, &[Closing], &[Fin]),
    // It acknowledges the peer's FIN: its 2MSL began later than assumed.
    (Closed, &[TimeWait], &[Ack, Fin]),
    // R17: the peer acknowledges other bytes where its FIN was.
    (FinWait1, &[SynSent, SynReceived, Established], &[Ack, Fin]),
    (FinWait2, &[SynSent, SynReceived, Established], &[Ack, Fin]),
    (Closing, &[SynSent, SynReceived, CloseWait], &[Ack, Fin]),
    (LastAck, &[SynReceived, CloseWait], &[Ack, Fin]),
    (TimeWait, &[SynReceived, CloseWait], &[Ack, Fin]),
    // R14: it opens again, or another host does with its address.
    (TimeWait, &[SynSent], &[Syn]),
    (SynSent, &[TimeWait], &[Ack, Fin]),
    // R17 seen from the other end.
    (CloseWait, &[Established], &[Ack, Fin]),
    (Closing, &[FinWait1], &[Ack, Fin]),
    (LastAck, &[FinWait1], &[Ack, Fin]),
    (TimeWait, &[FinWait2, FinWait1], &[Ack, Fin]),
];

/// Whether the transition is one of RFC 9293.
pub(crate) fn is_rfc(from: State, to: State) -> bool {
    from == to || to == Closed || RFC.contains(&(from, to))
}

/// Whether a segment of this kind may correct `from` to `to`.
pub(crate) fn corrects(from: State, to: State, kind: SegmentKind) -> bool {
    CORRECTIONS.iter().any(|(f, t, kinds)| *f == from && t.contains(&to) && kinds.contains(&kind))
}

/// Whether transitions of RFC 9293 lead from one state to the other, with one correction among them at
/// most.
pub(crate) fn is_path(from: State, to: State, kind: SegmentKind) -> bool {
    if kind == Rst {
        return is_rfc(from, to);
    }
    let ahead = ahead_of(from);
    ahead.contains(&to)
        || to == Closed
        || ahead.iter().any(|&mid| {
            State::ALL.into_iter().any(|next| corrects(mid, next, kind) && ahead_of(next).contains(&to))
        })
}

/// Every state that transitions of RFC 9293 can reach, the first included.
fn ahead_of(from: State) -> Vec<State> {
    let mut reached = vec![from];
    let mut at = 0;
    while at < reached.len() {
        let next = RFC.iter().filter(|edge| edge.0 == reached[at]).map(|edge| edge.1);
        let new: Vec<_> = next.filter(|state| !reached.contains(state)).collect();
        reached.extend(new);
        at += 1;
    }
    reached
}
