//! The answer of the machine to a segment or a tick: what happened, and why.

use strum::{FromRepr, IntoStaticStr, VariantArray};

use crate::state::{End, State};

/// What a segment or the clock did to the flow, or why the segment had no effect.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, FromRepr, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs, reason = "each name is its cause; rules R1..R29 are in docs/STATE_MACHINE.md")]
pub enum Cause {
    Nothing = 0,
    Syn = 1,
    SynAgain = 2,
    SynAck = 3,
    SynAckAgain = 4,
    Ack = 5,
    Data = 6,
    Fin = 7,
    FinAgain = 8,
    Rst = 9,
    /// A RST in answer to a SYN, from a host that does not accept the connection, or an ICMP error that says so
    /// (R29).
    Refused = 10,
    TimeWaitExpired = 11,
    Silence = 12,
    MidStream = 13,
    /// A SYN that reused a 4-tuple in TIME-WAIT.
    Reuse = 14,
    /// An ACK beyond the FIN, which therefore was none (R17).
    FinVoided = 15,
    /// The peer acknowledged a segment that had been outside the window (R19).
    Resync = 16,
    /// The ends went on after a RST that was accepted (R28).
    Reopened = 17,
    /// An ICMP error in answer to a SYN: the network does not reach the host (R29).
    Unreachable = 18,
    /// A check found the socket of an end in another state (R25).
    SocketCheck = 19,
    // From here on: why the segment had no effect.
    BadFlags = 32,
    PendingSyn = 33,
    OldDupSyn = 34,
    BadSynAck = 35,
    DupSynAck = 36,
    OldDupSeq = 37,
    SeqAboveWindow = 38,
    AckUnsent = 39,
    DataAfterFin = 40,
    Late = 41,
    RstNoFlow = 42,
    RstClosed = 43,
    RstSynSent = 44,
    RstInexact = 45,
    RstOutOfWindow = 46,
    RstRfc1337 = 47,
}

impl Cause {
    /// The first cause of a segment that had no effect.
    const FIRST_WITHOUT_EFFECT: u8 = Cause::BadFlags as u8;

    /// Causes of RSTs that belong to a connection and were not accepted (RFC 9293 3.10.7.3, RFC 5961 3.2, RFC 1337).
    pub const IGNORED_RSTS: [Cause; 4] =
        [Cause::RstSynSent, Cause::RstInexact, Cause::RstOutOfWindow, Cause::RstRfc1337];

    /// Every cause of a segment that had no effect.
    pub fn without_effect() -> impl Iterator<Item = Cause> {
        Cause::VARIANTS.iter().copied().filter(|cause| !cause.has_effect())
    }

    /// Whether the segment had an effect: it belongs to the flow, and may have changed it.
    #[inline(always)]
    pub const fn has_effect(self) -> bool {
        (self as u8) < Cause::FIRST_WITHOUT_EFFECT
    }

    /// Name in machine output: `syn_again`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What became of the incarnation before, if a segment began the next one.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromRepr)]
pub enum Previous {
    /// The segment began no incarnation, or there was none before.
    #[default]
    None = 0,
    /// It was over, or its TIME-WAIT was cut short by the reuse.
    Over = 1,
    /// It was not over.
    Superseded = 2,
    /// End A had lost it, reset it and opens again (R13).
    AbortedByA = 3,
    /// End B had lost it, reset it and opens again (R13).
    AbortedByB = 4,
}

impl Previous {
    /// The end whose RST ended the incarnation before.
    #[inline(always)]
    pub const fn aborter(self) -> Option<End> {
        match self {
            Previous::AbortedByA => Some(End::A),
            Previous::AbortedByB => Some(End::B),
            Previous::None | Previous::Over | Previous::Superseded => None,
        }
    }
}

/// The answer to one segment or one tick of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// States before, A first; both CLOSED if a new incarnation began.
    pub from: [State; 2],
    /// States after.
    pub to: [State; 2],
    /// What happened, and why.
    pub cause: Cause,
    /// What became of the incarnation before. For its close record, apply it to a copy of the flow that was
    /// made before the segment ([`Flow::end_previous`](crate::Flow::end_previous)).
    pub previous: Previous,
    /// The peer's FIN was retransmitted and restarted an end's TIME-WAIT.
    pub restarted: bool,
}

impl Outcome {
    /// Nothing happened: both ends stay in these states.
    #[inline(always)]
    pub const fn unchanged(states: [State; 2]) -> Outcome {
        Outcome {
            from: states,
            to: states,
            cause: Cause::Nothing,
            previous: Previous::None,
            restarted: false,
        }
    }

    /// Whether any state changed or an incarnation began or ended.
    #[inline(always)]
    pub fn is_transition(&self) -> bool {
        self.from != self.to || self.previous != Previous::None
    }
}
