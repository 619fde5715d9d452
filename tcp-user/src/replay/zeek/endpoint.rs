//! What Zeek calls the state of an endpoint: which flags it has sent.

use tcp_common::{Flags, Segment};

/// The states of Zeek's `TCP_Endpoint`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// It has sent nothing.
    #[default]
    Inactive,
    /// A SYN.
    SynSent,
    /// A SYN with ACK, as the first segment of the connection.
    SynAckSent,
    /// Something without a SYN before.
    Partial,
    /// Its SYN was answered, or answered one.
    Established,
    /// A FIN.
    Closed,
    /// A RST.
    Reset,
}

impl Endpoint {
    /// As far as the summary is concerned.
    pub(super) fn is_inactive(self) -> bool {
        matches!(self, Endpoint::Inactive | Endpoint::Partial)
    }
}

/// Takes what a segment of `own` says of the handshake. FIN and RST count when they are believed: [`closes`], [`resets`].
pub(super) fn opens(own: &mut Endpoint, peer: &mut Endpoint, is_orig: bool, segment: &Segment) {
    let (syn, ack) = (segment.flags.has(Flags::SYN), segment.flags.has(Flags::ACK));
    let closes = segment.flags.has(Flags::FIN | Flags::RST);
    match own {
        Endpoint::Inactive if syn && is_orig => {
            *own = if ack { Endpoint::SynAckSent } else { Endpoint::SynSent };
        }
        Endpoint::Inactive if syn => {
            if *peer == Endpoint::SynSent {
                *peer = Endpoint::Established;
            }
            *own = Endpoint::Established;
        }
        Endpoint::Inactive if closes => {}
        // Some stacks acknowledge a SYN before they answer it.
        Endpoint::Inactive if !is_orig && segment.payload_len == 0 && *peer == Endpoint::SynSent => {}
        // The SYN was missed.
        Endpoint::Inactive if ack && *peer == Endpoint::Established => *own = Endpoint::Established,
        Endpoint::Inactive => *own = Endpoint::Partial,
        Endpoint::Partial if syn && !ack && *peer == Endpoint::Inactive => *own = Endpoint::SynSent,
        _ => {}
    }
}

/// A FIN of `own` is believed.
pub(super) fn closes(own: &mut Endpoint, peer: &mut Endpoint, peer_sent_fin: bool) {
    if *own == Endpoint::Reset {
        return;
    }
    *own = Endpoint::Closed;
    if *peer == Endpoint::Reset && peer_sent_fin {
        // FIN and RST of the peer, and a FIN of this end: a normal end after all.
        *peer = Endpoint::Closed;
    }
}

/// A RST of `own` is believed.
pub(super) fn resets(own: &mut Endpoint, peer: Endpoint) {
    if *own != Endpoint::Closed || peer != Endpoint::Closed {
        *own = Endpoint::Reset;
    }
}
