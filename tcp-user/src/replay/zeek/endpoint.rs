//! Zeek's state of an endpoint: which flags it has sent.

use tcp_common::{Flags, Segment};

/// The states of Zeek's `TCP_Endpoint`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ZeekState {
    /// Has sent nothing.
    #[default]
    Inactive,
    /// Has sent a SYN.
    SynSent,
    /// Has sent a SYN with ACK as the first segment of the connection.
    SynAckSent,
    /// Has sent segments without a SYN before them.
    Partial,
    /// Its SYN was answered, or answered another.
    Established,
    /// Has sent a FIN.
    Closed,
    /// Has sent a RST.
    Reset,
}

impl ZeekState {
    /// Whether the summary counts this end as inactive.
    pub(super) fn is_inactive(self) -> bool {
        matches!(self, ZeekState::Inactive | ZeekState::Partial)
    }
}

/// Applies a segment of `own` to the handshake. FIN and RST count when the machine accepts them:
/// [`closes`], [`resets`].
pub(super) fn opens(own: &mut ZeekState, peer: &mut ZeekState, is_orig: bool, segment: &Segment) {
    let (syn, ack) = (segment.flags.has(Flags::SYN), segment.flags.has(Flags::ACK));
    let closes = segment.flags.has(Flags::FIN | Flags::RST);
    match own {
        ZeekState::Inactive if syn && is_orig => {
            *own = if ack { ZeekState::SynAckSent } else { ZeekState::SynSent };
        }
        ZeekState::Inactive if syn => {
            if *peer == ZeekState::SynSent {
                *peer = ZeekState::Established;
            }
            *own = ZeekState::Established;
        }
        ZeekState::Inactive if closes => {}
        // Some stacks acknowledge a SYN before they answer it.
        ZeekState::Inactive if !is_orig && segment.payload_len == 0 && *peer == ZeekState::SynSent => {}
        // The SYN was missed.
        ZeekState::Inactive if ack && *peer == ZeekState::Established => *own = ZeekState::Established,
        ZeekState::Inactive => *own = ZeekState::Partial,
        ZeekState::Partial if syn && !ack && *peer == ZeekState::Inactive => *own = ZeekState::SynSent,
        _ => {}
    }
}

/// Applies an accepted FIN of `own`.
pub(super) fn closes(own: &mut ZeekState, peer: &mut ZeekState, peer_sent_fin: bool) {
    if *own == ZeekState::Reset {
        return;
    }
    *own = ZeekState::Closed;
    if *peer == ZeekState::Reset && peer_sent_fin {
        // A FIN and a RST of the peer, and a FIN of this end: a normal close.
        *peer = ZeekState::Closed;
    }
}

/// Applies an accepted RST of `own`.
pub(super) fn resets(own: &mut ZeekState, peer: ZeekState) {
    if *own != ZeekState::Closed || peer != ZeekState::Closed {
        *own = ZeekState::Reset;
    }
}
