//! What the machine answers: what happened, and why.

use crate::state::State;

/// What happened to the flow, and the reason where nothing did.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
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
    /// Both halves agree on a jump (R19).
    Resync = 16,
    // From here on: the segment moved nothing, and why.
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
    /// The cause with this number, if there is one.
    pub const fn from_u8(value: u8) -> Option<Cause> {
        use Cause::*;
        Some(match value {
            0 => Nothing,
            1 => Syn,
            2 => SynAgain,
            3 => SynAck,
            4 => SynAckAgain,
            5 => Ack,
            6 => Data,
            7 => Fin,
            8 => FinAgain,
            9 => Rst,
            10 => Refused,
            11 => TimeWaitExpired,
            12 => Silence,
            13 => MidStream,
            14 => Reuse,
            15 => FinVoided,
            16 => Resync,
            32 => BadFlags,
            33 => PendingSyn,
            34 => OldDupSyn,
            35 => BadSynAck,
            36 => DupSynAck,
            37 => OldDupSeq,
            38 => SeqAboveWindow,
            39 => AckUnsent,
            40 => DataAfterFin,
            41 => Late,
            42 => RstNoFlow,
            43 => RstClosed,
            44 => RstSynSent,
            45 => RstInexact,
            46 => RstOutOfWindow,
            47 => RstRfc1337,
            _ => return None,
        })
    }

    /// Name in machine output.
    pub const fn name(self) -> &'static str {
        use Cause::*;
        match self {
            Nothing => "nothing",
            Syn => "syn",
            SynAgain => "syn_again",
            SynAck => "syn_ack",
            SynAckAgain => "syn_ack_again",
            Ack => "ack",
            Data => "data",
            Fin => "fin",
            FinAgain => "fin_again",
            Rst => "rst",
            Refused => "refused",
            TimeWaitExpired => "time_wait_expired",
            Silence => "silence",
            MidStream => "mid_stream",
            Reuse => "reuse",
            FinVoided => "fin_voided",
            Resync => "resync",
            BadFlags => "bad_flags",
            PendingSyn => "pending_syn",
            OldDupSyn => "old_dup_syn",
            BadSynAck => "bad_syn_ack",
            DupSynAck => "dup_syn_ack",
            OldDupSeq => "old_dup_seq",
            SeqAboveWindow => "seq_above_window",
            AckUnsent => "ack_unsent",
            DataAfterFin => "data_after_fin",
            Late => "late",
            RstNoFlow => "rst_no_flow",
            RstClosed => "rst_closed",
            RstSynSent => "rst_syn_sent",
            RstInexact => "rst_inexact",
            RstOutOfWindow => "rst_out_of_window",
            RstRfc1337 => "rst_rfc1337",
        }
    }
}

/// What became of the incarnation before, when a segment started the next one.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
    /// The value with this number, if there is one.
    pub const fn from_u8(value: u8) -> Option<Previous> {
        Some(match value {
            0 => Previous::None,
            1 => Previous::Over,
            2 => Previous::Superseded,
            3 => Previous::AbortedByA,
            4 => Previous::AbortedByB,
            _ => return None,
        })
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
    /// Whether any state changed or an incarnation began or ended.
    #[inline(always)]
    pub fn is_transition(&self) -> bool {
        self.from[0] as u8 != self.to[0] as u8
            || self.from[1] as u8 != self.to[1] as u8
            || self.over
            || self.previous as u8 != Previous::None as u8
    }
}
