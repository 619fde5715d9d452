//! Why a connection or its TIME-WAIT was reset, as far as its segments show.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tcp_common::flow::flow_fact;
use tcp_common::{Cause, CloseKind, End, Flow};

use super::{Role, string_enum};

string_enum! {
    /// Why a RST was sent that ended a connection or a TIME-WAIT.
    pub enum ResetClass ("class of a RST") {
        /// Nothing accepts connections at that address and port.
        Refused = "refused",
        /// As before, but said by an ICMP error.
        RefusedIcmp = "refused_icmp",
        /// The handshake ended by a RST that was no refusal.
        SynAbort = "syn_abort",
        /// The listener had no room for a connection (`tcp_abort_on_overflow`).
        QueueFull = "queue_full",
        /// One of these two: the last ACK of the handshake was answered by a RST.
        QueueFullOrHalfOpen = "queue_full_or_half_open",
        /// The program gave the connection up (`SO_LINGER` 0), or its host did.
        Abort = "abort",
        /// The program closed and had not read everything.
        AbortUnread = "abort_unread",
        /// One of these two: there were bytes to read, and segments do not show whether they were.
        AbortOrUnread = "abort_or_unread",
        /// The sender had closed, and what came then had no reader.
        AfterFin = "after_fin",
        /// The sender did not know the connection any more: its host was started again, or something in between had
        /// lost it.
        HalfOpen = "half_open",
        /// The sender was in TIME-WAIT, had lost that, and was sent the FIN again.
        StateLost = "state_lost",
        /// The RST ended the TIME-WAIT of its receiver (RFC 1337).
        TimeWaitAssassination = "time_wait_assassination",
        /// The receiver ignored a RST that looked acceptable, and the connection went on.
        Refuted = "refuted",
    }
}

/// Why a connection or its TIME-WAIT was reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetInfo {
    /// The class, as far as segments show it or, for a RST of this host, its kernel says it.
    pub class: ResetClass,
    /// The end whose RST it was; `None` after an ICMP error or a RST that was refuted.
    pub sender: Option<Role>,
    /// The kernel's own reason for a RST of this host, by its `enum sk_rst_reason`: `tcp_abort_on_close`. `None` if
    /// another host sent it, or the kernel is older than Linux 6.10.
    #[serde(default)]
    pub kernel_reason: Option<Cow<'static, str>>,
}

impl ResetClass {
    /// The class of the RST that ended the flow's incarnation or a TIME-WAIT of it, or of one that was refuted, and
    /// the end that sent it.
    pub fn of(flow: &Flow) -> Option<(ResetClass, Option<End>)> {
        let has = |fact| flow.facts() & fact != 0;
        if let Some(sender) = flow.time_wait_resetter().filter(|_| has(flow_fact::TIME_WAIT_LOST)) {
            return Some((ResetClass::StateLost, Some(sender)));
        }
        if let Some(sender) = flow.aborter() {
            return Some((ResetClass::of_abort(flow, sender), Some(sender)));
        }
        if let Some(sender) = flow.time_wait_resetter() {
            return Some((ResetClass::TimeWaitAssassination, Some(sender)));
        }
        match flow.close_kind() {
            CloseKind::Refused => Some((ResetClass::RefusedIcmp, None)),
            _ if flow.was_reopened() => Some((ResetClass::Refuted, None)),
            _ => None,
        }
    }

    /// A host sends a RST with ACK if it gives a connection up (`tcp_send_active_reset`), and one without if it answers
    /// a segment that has no use (RFC 9293 3.5.2, group 1).
    fn of_abort(flow: &Flow, sender: End) -> ResetClass {
        let answers = flow.facts() & flow_fact::FORGOTTEN != 0;
        match flow.close_kind() {
            CloseKind::Refused => ResetClass::Refused,
            CloseKind::SynAbort => ResetClass::SynAbort,
            _ if answers && flow.sent_fin(sender) => ResetClass::AfterFin,
            _ if answers && flow.only_answered_syn(sender) => ResetClass::QueueFullOrHalfOpen,
            _ if answers => ResetClass::HalfOpen,
            _ if flow.payload_bytes(sender.peer()) > 0 => ResetClass::AbortOrUnread,
            _ => ResetClass::Abort,
        }
    }

    /// Whether it is one of two classes.
    pub fn is_either(self) -> bool {
        [ResetClass::QueueFullOrHalfOpen, ResetClass::AbortOrUnread].contains(&self)
    }

    /// The class by the kernel's reason, where segments left two possibilities.
    pub fn settled(self, kernel_reason: &str) -> ResetClass {
        match (self, kernel_reason) {
            (class, "not_specified" | "error") => class,
            (ResetClass::AbortOrUnread, "tcp_abort_on_close") => ResetClass::AbortUnread,
            (ResetClass::AbortOrUnread, _) => ResetClass::Abort,
            (ResetClass::QueueFullOrHalfOpen, "no_socket") => ResetClass::HalfOpen,
            (ResetClass::QueueFullOrHalfOpen, "invalid_syn") => ResetClass::QueueFull,
            (class, _) => class,
        }
    }

    /// What it says of the end that sent the RST, in a sentence's second half; `None` if the close kind says it all.
    pub fn explanation(self) -> Option<&'static str> {
        Some(match self {
            ResetClass::Refused | ResetClass::RefusedIcmp | ResetClass::SynAbort | ResetClass::Refuted => {
                return None;
            }
            ResetClass::QueueFull => "its listener had no room for the connection",
            ResetClass::QueueFullOrHalfOpen => {
                "its listener had no room for the connection, or it no longer knew the connection"
            }
            ResetClass::Abort => "its program or host gave the connection up",
            ResetClass::AbortUnread => "its program closed and had not read everything",
            ResetClass::AbortOrUnread => {
                "its program or host gave the connection up, or closed and had not read everything"
            }
            ResetClass::AfterFin => "it had closed, so what came then had no reader",
            ResetClass::HalfOpen => {
                "it no longer knew the connection: its host was started again, or something in between had lost it"
            }
            ResetClass::StateLost => "it was sent the FIN again and had lost its TIME-WAIT",
            ResetClass::TimeWaitAssassination => "it ended the other end's TIME-WAIT (RFC 1337)",
        })
    }
}

/// Whether a RST with this effect was not accepted by its receiver.
pub(crate) fn is_ignored_rst(cause: Cause) -> bool {
    Cause::IGNORED_RSTS.contains(&cause)
}

#[cfg(test)]
mod tests {
    use tcp_common::{Flags, Rules, Segment};

    use super::*;

    const ACK: u8 = Flags::ACK;
    const FIN: u8 = Flags::FIN | Flags::ACK;
    const RST: u8 = Flags::RST;

    /// The class that these segments make, after the handshake: sender, flags, sequence and acknowledgment number, bytes.
    fn class(segments: &[(End, u8, u32, u32, u32)]) -> Option<(ResetClass, Option<End>)> {
        let handshake = [
            (End::A, Flags::SYN, 100, 0, 0),
            (End::B, Flags::SYN | ACK, 900, 101, 0),
            (End::A, ACK, 101, 901, 0),
        ];
        let mut flow = Flow::EMPTY;
        for &(sender, flags, seq, ack, payload_len) in handshake.iter().chain(segments) {
            let segment =
                Segment { flags: Flags(flags), seq, ack, payload_len, window: 1000, ..Segment::default() };
            flow.on_segment(1_000, sender, &segment, &Rules::RFC);
        }
        ResetClass::of(&flow)
    }

    #[test]
    fn the_form_of_a_rst_and_what_came_before_it_tell_its_class() {
        use ResetClass::*;
        let asked = [(End::A, ACK, 101, 901, 8), (End::B, ACK, 901, 109, 0)];
        let closed = [(End::A, FIN, 101, 901, 0), (End::B, FIN, 901, 102, 0), (End::A, ACK, 102, 902, 0)];
        for (name, before, rst, expected) in [
            ("nothing to read", &[][..], &[(End::B, RST | ACK, 901, 101, 0)][..], Some((Abort, End::B))),
            ("no room", &[], &[(End::B, RST, 901, 0, 0)], Some((QueueFullOrHalfOpen, End::B))),
            ("the client forgot", &[], &[(End::A, RST, 101, 0, 0)], Some((HalfOpen, End::A))),
            ("read or not", &asked, &[(End::B, RST | ACK, 901, 109, 0)], Some((AbortOrUnread, End::B))),
            ("the client read nothing", &asked, &[(End::A, RST | ACK, 109, 901, 0)], Some((Abort, End::A))),
            ("the server forgot", &asked, &[(End::B, RST, 901, 0, 0)], Some((HalfOpen, End::B))),
            (
                "the FIN finds no connection",
                &asked,
                &[(End::A, FIN, 109, 901, 0), (End::B, RST, 901, 0, 0)],
                Some((HalfOpen, End::B)),
            ),
            (
                "data after the close",
                &closed[..1],
                &[(End::B, ACK, 901, 102, 5), (End::A, RST, 102, 0, 0)],
                Some((AfterFin, End::A)),
            ),
            (
                "the FIN again",
                &closed,
                &[(End::B, FIN, 901, 102, 0), (End::A, RST, 102, 0, 0)],
                Some((StateLost, End::A)),
            ),
            ("assassinated", &closed, &[(End::B, RST, 902, 0, 0)], Some((TimeWaitAssassination, End::B))),
            ("blind", &asked, &[(End::B, RST, 950, 0, 0)], None),
        ] {
            let expected = expected.map(|(class, sender)| (class, Some(sender)));
            assert_eq!(class(&[before, rst].concat()), expected, "{name}");
        }
        let refuted =
            [(End::B, RST | ACK, 901, 109, 0), (End::B, ACK, 901, 109, 10), (End::A, ACK, 109, 911, 0)];
        assert_eq!(class(&[&asked[..], &refuted].concat()), Some((Refuted, None)));
    }
}
