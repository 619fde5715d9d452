//! What the machine answers: what happened, and why.

use strum::{FromRepr, IntoStaticStr, VariantArray};

use crate::state::{End, State};

/// What happened to the flow, and the reason where nothing did.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, FromRepr, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs, reason = "each name is its cause; rules R1..R25 are in docs/STATE_MACHINE.md")]
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
    /// RST from a host without the connection, in answer to a SYN.
    Refused = 10,
    TimeWaitExpired = 11,
    Silence = 12,
    MidStream = 13,
    /// A SYN that took a tuple out of TIME-WAIT.
    Reuse = 14,
    /// An ACK beyond the FIN: there was no FIN (R17).
    FinVoided = 15,
    /// Both ends agree on a jump (R19).
    Resync = 16,
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

/// What became of the incarnation before, when a segment started the next one.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromRepr)]
pub enum Previous {
    /// The segment started no incarnation, or there was none before.
    #[default]
    None = 0,
    /// It was over before, or its TIME-WAIT was cut short by the reuse.
    Over = 1,
    /// It was alive as far as anyone knew.
    Superseded = 2,
    /// End A reset it and opens anew (R13).
    AbortedByA = 3,
    /// End B reset it and opens anew (R13).
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

/// The answer to one segment or one look at the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// States before, A first; both CLOSED where a new incarnation began.
    pub from: [State; 2],
    /// States after.
    pub to: [State; 2],
    /// Why.
    pub cause: Cause,
    /// What became of the incarnation before: for its close record apply it to a copy made before
    /// ([`Flow::end_previous`]).
    pub previous: Previous,
    /// Both ends have just become CLOSED: the incarnation's close record is final.
    pub over: bool,
    /// Both ends have just become ESTABLISHED for the first time.
    pub established: bool,
    /// 2MSL of an end began anew because the peer's FIN came again.
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
            over: false,
            established: false,
            restarted: false,
        }
    }

    /// Whether any state changed or an incarnation began or ended.
    #[inline(always)]
    pub fn is_transition(&self) -> bool {
        self.from != self.to || self.over || self.previous != Previous::None
    }
}
