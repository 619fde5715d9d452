//! How the incarnation was opened and closed: read off the facts, outside of the packet path.

use strum::{IntoStaticStr, VariantArray};

use super::Flow;
use super::facts::{end_fact::*, flow_fact};
use crate::state::{End, State};

/// How a connection was closed. The order of precedence is R7's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum CloseKind {
    /// Not, or not fully.
    Open,
    /// FIN, ACK, FIN, ACK.
    #[strum(serialize = "fin_4seg")]
    Fin4Seg,
    /// FIN, FIN with the ACK, ACK.
    #[strum(serialize = "fin_3seg")]
    Fin3Seg,
    /// The FINs crossed.
    Simultaneous,
    /// The second end sent new payload after it had the first FIN.
    HalfClose,
    /// RST without any FIN.
    RstAbort,
    /// RST after a FIN.
    RstAfterFin,
    /// RST in answer to the SYN.
    Refused,
    /// RST before the handshake was complete.
    SynAbort,
    /// Given up before the handshake was complete.
    SynTimeout,
    /// Given up after silence.
    Timeout,
    /// The same tuple was opened anew.
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

/// The end whose FIN came first, causally (R5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Closer {
    /// No FIN was seen.
    None,
    /// This end.
    One(End),
    /// Both, neither knowing of the other's FIN.
    Both,
}

/// Who sent the SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Opener {
    /// Picked up in the middle.
    Unknown,
    /// This end.
    One(End),
    /// Both: a simultaneous open.
    Both,
}

/// How far the record can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Confidence {
    /// Everything was seen.
    Exact,
    /// The capture missed segments.
    Gap,
    /// The beginning was not seen.
    Midstream,
    /// One direction only was seen.
    OneWay,
}

impl Confidence {
    /// Name in machine output: `one_way`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Flow {
    /// How it was closed.
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
        match (fins, self.flow_has(flow_fact::SILENCE), self.flow_has(flow_fact::ESTABLISHED)) {
            ((true, true), _, _) => self.fin_kind(),
            (_, true, true) => CloseKind::Timeout,
            ((false, false), true, false) => CloseKind::SynTimeout,
            ((true, _) | (_, true), true, false) => CloseKind::Timeout,
            (_, false, _) => CloseKind::Open,
        }
    }

    /// How it was closed, as far as it was seen. `None` where a host has told that both ends have sent their FINs and the
    /// segments that decide between three and four had passed before.
    pub fn close_kind_seen(&self) -> Option<CloseKind> {
        let kind = self.close_kind();
        let untold = match self.closer() {
            Closer::One(closer) => kind == CloseKind::Fin3Seg && self.end(closer.peer()).has(FIN_REPORTED),
            Closer::None | Closer::Both => false,
        };
        (!untold).then_some(kind)
    }

    /// When the close began, ns; `None` if it has not, or had before the flow was adopted from its socket.
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

    /// Who closed first.
    pub fn closer(&self) -> Closer {
        let [a, b] = &self.ends;
        match (a.has(FIN), b.has(FIN)) {
            (false, false) => Closer::None,
            (true, false) => Closer::One(End::A),
            (false, true) => Closer::One(End::B),
            (true, true) => match (a.closed_knowing(b), b.closed_knowing(a)) {
                (false, true) => Closer::One(End::A),
                (true, false) => Closer::One(End::B),
                (false, false) | (true, true) => Closer::Both,
            },
        }
    }

    /// Whose RST ended it.
    pub fn aborter(&self) -> Option<End> {
        if self.flow_has(flow_fact::ABORTER_A) {
            Some(End::A)
        } else if self.flow_has(flow_fact::ABORTER_B) {
            Some(End::B)
        } else {
            None
        }
    }

    /// Whether that RST was the answer of a host that has no such connection any more: it was restarted, or a firewall or
    /// a proxy between lost its state. What a program aborts ends with a RST that has an ACK (`tcp_send_active_reset`),
    /// what finds no socket with one that has none (RFC 9293 3.5.2, group 1).
    pub fn state_lost(&self) -> bool {
        self.close_kind() == CloseKind::RstAbort && self.flow_has(flow_fact::FORGOTTEN)
    }

    /// Who opened.
    pub fn opener(&self) -> Opener {
        match (self.flow_has(flow_fact::OPENER_A), self.flow_has(flow_fact::OPENER_B)) {
            (false, false) => Opener::Unknown,
            (true, false) => Opener::One(End::A),
            (false, true) => Opener::One(End::B),
            (true, true) => Opener::Both,
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

    /// How far the record can be trusted.
    pub fn confidence(&self) -> Confidence {
        let [a, b] = &self.ends;
        let unanswered = matches!(self.close_kind(), CloseKind::SynTimeout)
            || a.is_in(State::SynSent)
            || b.is_in(State::SynSent);
        if self.flow_has(flow_fact::MIDSTREAM) {
            Confidence::Midstream
        } else if !unanswered && (!a.has(SEEN) || !b.has(SEEN)) {
            Confidence::OneWay
        } else if self.flow_has(flow_fact::GAP) {
            Confidence::Gap
        } else {
            Confidence::Exact
        }
    }

    fn flow_has(&self, fact: u32) -> bool {
        self.facts & fact != 0
    }
}
