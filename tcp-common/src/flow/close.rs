//! How the incarnation was opened and closed, derived from the facts. Not on the packet path.

use strum::{IntoStaticStr, VariantArray};

use super::facts::{end_fact::*, flow_fact};
use super::{EndState, Flow};
use crate::seq::before;
use crate::state::{End, State};

/// How a connection was closed, in the precedence of R7.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum CloseKind {
    /// Not closed, or not completely.
    Open,
    /// Four segments: FIN, ACK, FIN, ACK.
    #[strum(serialize = "fin_4seg")]
    Fin4Seg,
    /// Three segments: FIN, FIN with ACK, ACK.
    #[strum(serialize = "fin_3seg")]
    Fin3Seg,
    /// The FINs crossed.
    Simultaneous,
    /// The second end sent new payload after it had received the first FIN.
    HalfClose,
    /// A RST without any FIN.
    RstAbort,
    /// A RST after a FIN.
    RstAfterFin,
    /// A RST in answer to the SYN, or an ICMP error of the host or a firewall.
    Refused,
    /// An ICMP error in answer to the SYN: the network does not reach the host.
    Unreachable,
    /// A RST before the handshake was complete.
    SynAbort,
    /// Silence before the handshake was complete.
    SynTimeout,
    /// Silence after the handshake.
    Timeout,
    /// The same 4-tuple was opened again.
    Superseded,
}

impl CloseKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [CloseKind; CloseKind::VARIANTS.len()] = match CloseKind::VARIANTS.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// Name in machine output: `fin_4seg`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The end that closed first: the one whose FIN the other had when it sent its own (R5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Closer {
    /// Neither, as far as known: no FIN was seen, or one of an end whose peer was never seen.
    None,
    /// This end.
    One(End),
    /// Both, without knowledge of the other's FIN.
    Both,
}

/// The end that sent the SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Initiator {
    /// Unknown: the handshake was not seen.
    Unknown,
    /// This end.
    One(End),
    /// Both, in a simultaneous open.
    Both,
}

/// How much of the connection was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Coverage {
    /// All of it.
    Exact,
    /// Not all segments, or it is not known: one end claims numbers that the other has not confirmed (R19).
    Gap,
    /// Not the beginning.
    Midstream,
    /// One direction only.
    OneWay,
}

impl Coverage {
    /// Name in machine output: `one_way`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Flow {
    /// How the connection was closed.
    pub fn close_kind(&self) -> CloseKind {
        let [a, b] = &self.ends;
        let (fins, reset) = ((a.has(FIN), b.has(FIN)), self.aborter().is_some());
        if self.flow_has(flow_fact::SUPERSEDED) {
            return CloseKind::Superseded;
        }
        if reset {
            return match (fins, self.flow_has(flow_fact::REFUSED), self.flow_has(flow_fact::ESTABLISHED)) {
                ((false, false), true, _) => CloseKind::Refused,
                ((false, false), false, true) => CloseKind::RstAbort,
                ((false, false), false, false) => CloseKind::SynAbort,
                ((true, _) | (_, true), _, _) => CloseKind::RstAfterFin,
            };
        }
        if self.icmp_error().is_some() {
            let refused = self.flow_has(flow_fact::REFUSED);
            return if refused { CloseKind::Refused } else { CloseKind::Unreachable };
        }
        match (fins, self.flow_has(flow_fact::SILENCE), self.flow_has(flow_fact::ESTABLISHED)) {
            ((true, true), _, _) => self.fin_kind(),
            (_, true, true) => CloseKind::Timeout,
            ((false, false), true, false) => CloseKind::SynTimeout,
            ((true, _) | (_, true), true, false) => CloseKind::Timeout,
            (_, false, _) => CloseKind::Open,
        }
    }

    /// How the connection was closed, as far as that was seen. `None` if both FINs are known from a socket,
    /// and the segments that decide between three and four had passed before.
    pub fn close_kind_seen(&self) -> Option<CloseKind> {
        let kind = self.close_kind();
        let unseen = match self.closer() {
            Closer::One(closer) => kind == CloseKind::Fin3Seg && self.end(closer.peer()).has(FIN_REPORTED),
            Closer::None | Closer::Both => false,
        };
        (!unseen).then_some(kind)
    }

    /// When the close began, ns; `None` if it has not, or if it had begun before the flow was adopted.
    pub fn closing_seen_ns(&self) -> Option<u64> {
        let before = self.flow_has(flow_fact::ADOPTED) && self.closing_ns == self.opened_ns;
        (self.closing_ns != 0 && !before).then_some(self.closing_ns)
    }

    fn fin_kind(&self) -> CloseKind {
        let Closer::One(closer) = self.closer() else { return CloseKind::Simultaneous };
        let passive = self.end(closer.peer());
        if passive.has(DATA_COVER) {
            CloseKind::HalfClose
        } else if passive.has(EMPTY_COVER) {
            CloseKind::Fin4Seg
        } else {
            CloseKind::Fin3Seg
        }
    }

    /// The end that closed first.
    pub fn closer(&self) -> Closer {
        let [a, b] = &self.ends;
        match (a.has(FIN), b.has(FIN)) {
            (false, false) => Closer::None,
            (true, false) if self.closed_before(a, b) => Closer::One(End::A),
            (false, true) if self.closed_before(b, a) => Closer::One(End::B),
            (true, false) | (false, true) => Closer::None,
            (true, true) => match (a.closed_knowing(b), b.closed_knowing(a)) {
                (false, true) => Closer::One(End::A),
                (true, false) => Closer::One(End::B),
                (false, false) | (true, true) => Closer::Both,
            },
        }
    }

    /// Whether `x`, of which alone a FIN was seen, closed before `y`. If `y` was never seen it may have closed
    /// first, unless `x` acknowledged something after its FIN that the FIN had not.
    fn closed_before(&self, x: &EndState, y: &EndState) -> bool {
        y.has(SEEN) || self.flow_has(flow_fact::MIDSTREAM) || before(x.fin_ack, x.ack)
    }

    /// Bytes of payload that this end sent, as far as seen or acknowledged. Of an end that was never seen, the
    /// last byte that was acknowledged by itself is taken for its FIN, once its peer has closed.
    pub fn payload_bytes(&self, end: End) -> u64 {
        let (x, y) = (self.end(end), self.end(end.peer()));
        let fin = !x.has(SEEN) && x.has(UNSEEN) && y.has(FIN);
        x.bytes().saturating_sub(u64::from(fin))
    }

    /// The end whose RST ended the connection.
    pub fn aborter(&self) -> Option<End> {
        if self.flow_has(flow_fact::ABORTER_A) {
            Some(End::A)
        } else if self.flow_has(flow_fact::ABORTER_B) {
            Some(End::B)
        } else {
            None
        }
    }

    /// The end whose RST ended a TIME-WAIT, its own or the peer's.
    pub fn time_wait_resetter(&self) -> Option<End> {
        if self.flow_has(flow_fact::TIME_WAIT_RESET_A) {
            Some(End::A)
        } else if self.flow_has(flow_fact::TIME_WAIT_RESET_B) {
            Some(End::B)
        } else {
            None
        }
    }

    /// Whether the RST came from a host that no longer knew the connection: it was restarted, it had lost its
    /// TIME-WAIT, or a firewall or proxy in between lost its state. A program's abort sends a RST with an ACK
    /// (`tcp_send_active_reset`); a host without the connection sends one without (RFC 9293 3.5.2, group
    /// 1).
    pub fn state_lost(&self) -> bool {
        self.flow_has(flow_fact::TIME_WAIT_LOST)
            || (self.close_kind() == CloseKind::RstAbort && self.flow_has(flow_fact::FORGOTTEN))
    }

    /// Whether this end has answered the SYN, and neither sent a byte nor acknowledged one since. Its RST may then
    /// answer the last ACK of the handshake.
    pub fn only_answered_syn(&self, end: End) -> bool {
        let (x, y) = (self.end(end), self.end(end.peer()));
        x.has(SYN_ACK) && x.bytes == 0 && x.ack == y.first_seq
    }

    /// The end that opened the connection.
    pub fn initiator(&self) -> Initiator {
        match (self.flow_has(flow_fact::INITIATOR_A), self.flow_has(flow_fact::INITIATOR_B)) {
            (false, false) => Initiator::Unknown,
            (true, false) => Initiator::One(End::A),
            (false, true) => Initiator::One(End::B),
            (true, true) => Initiator::Both,
        }
    }

    /// Whether this end sent a FIN.
    pub fn sent_fin(&self, end: End) -> bool {
        self.end(end).has(FIN)
    }

    /// Whether both FINs were sent and acknowledged by number.
    #[inline(always)]
    pub fn complete(&self) -> bool {
        let [a, b] = &self.ends;
        a.fin_covered_by(b.ack) && b.fin_covered_by(a.ack) && a.has(ACK) && b.has(ACK)
    }

    /// Whether both ends were ESTABLISHED at some time.
    pub fn was_established(&self) -> bool {
        self.flow_has(flow_fact::ESTABLISHED)
    }

    /// How much of the connection was seen.
    pub fn coverage(&self) -> Coverage {
        let [a, b] = &self.ends;
        let unanswered = matches!(self.close_kind(), CloseKind::SynTimeout)
            || self.icmp_error().is_some()
            || (a.is_in(State::SynSent) && !a.has(REOPENING))
            || (b.is_in(State::SynSent) && !b.has(REOPENING));
        if self.flow_has(flow_fact::MIDSTREAM) {
            Coverage::Midstream
        } else if !unanswered && (!a.has(SEEN) || !b.has(SEEN)) {
            Coverage::OneWay
        } else if self.flow_has(flow_fact::GAP) || self.is_undecided() {
            Coverage::Gap
        } else {
            Coverage::Exact
        }
    }

    /// Whether an end claims numbers that the other has not confirmed (R19). What an end sends after a RST is no
    /// such claim (R28).
    fn is_undecided(&self) -> bool {
        self.aborter().is_none() && self.ends.iter().any(|x| x.has(CLAIM) && x.has(SEEN))
    }

    fn flow_has(&self, fact: u32) -> bool {
        self.facts & fact != 0
    }
}
