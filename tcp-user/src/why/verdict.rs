//! What a connection's steps mean, in sentences.

use std::borrow::Cow;

use tcp_common::{CloseKind, Flags, State};

use super::LadderStep;
use crate::output::duration;
use crate::view::{CloseInfo, Connection, ResetInfo, Role, Roles};

/// What an end waits for, from whom, and for how long still.
pub(super) fn waits(connection: &Connection, side: Role) -> String {
    let peer = side.peer();
    match connection.end(side).state {
        State::Unknown => format!("unknown: nothing was seen of the {side}"),
        State::Closed => "nothing".into(),
        State::Listen => "a SYN".into(),
        State::SynSent => format!("a SYN with ACK from the {peer}"),
        State::SynReceived => format!("the {peer}'s ACK of its SYN"),
        State::Established => "data, or its own application to send or close".into(),
        State::FinWait1 => format!("the {peer}'s ACK of its FIN, and the {peer}'s FIN"),
        State::FinWait2 => format!("the {peer}'s FIN: the application there has not closed"),
        State::CloseWait => "its own application to close".into(),
        State::Closing | State::LastAck => format!("the {peer}'s ACK of its FIN"),
        State::TimeWait => match &connection.time_wait {
            Some(time_wait) => {
                format!("the end of TIME-WAIT, in {}", duration(time_wait.expires_in_ms as f64))
            }
            None => "the end of TIME-WAIT".into(),
        },
    }
}

/// What happened, in a few sentences.
pub(super) fn verdict(connection: &Connection, steps: &[LadderStep]) -> String {
    let mut sentences = vec![close(connection, steps)];
    for side in [Role::Client, Role::Server] {
        for (flags, what) in
            [(Flags::SYN, "SYN"), (Flags::SYN | Flags::ACK, "SYN with ACK"), (Flags::FIN, "FIN")]
        {
            let sent = steps.iter().filter(|step| step.is(side, flags)).count() as u32;
            if sent > 1 {
                sentences.push(format!("The {side} sent its {what} {}.", times(sent)));
            }
        }
    }
    if let Some(ResetInfo { class, sender: Some(sender), .. }) = &connection.reset
        && connection.close.as_ref().is_some_and(|close| close.aborter.is_none())
        && let Some(text) = class.explanation()
    {
        sentences.push(format!("Then the {sender} sent a RST: {text}."));
    }
    if let Some(ResetInfo { kernel_reason: Some(reason), sender: Some(sender), .. }) = &connection.reset {
        sentences.push(format!("The {sender}'s kernel gives {reason} as the reason of the RST."));
    }
    let restarts = connection.time_wait.as_ref().map_or(0, |time_wait| time_wait.restarts);
    if restarts > 0 {
        sentences.push(format!("TIME-WAIT was restarted {}: the last ACK was lost.", times(restarts)));
    }
    if steps.iter().any(|step| step.cause == "reopened") {
        sentences.push("A RST seemed to end it, but its receiver ignored the RST: the ends went on.".into());
    }
    let ignored = |side| steps.iter().filter(|step| step.is(side, Flags::RST) && !step.effective).count();
    for side in [Role::Client, Role::Server] {
        match ignored(side) {
            0 => {}
            1 => sentences.push(format!("A RST of the {side} had no effect.")),
            many => sentences.push(format!("{many} RSTs of the {side} had no effect.")),
        }
    }
    sentences.join(" ")
}

/// How the connection closed, or what it does.
fn close(connection: &Connection, steps: &[LadderStep]) -> String {
    let Some(info) = &connection.close else { return open(connection) };
    let aborter = info.aborter.map_or("an end".into(), |side| format!("the {side}"));
    let mut sentence = match info.kind {
        None => "The connection was already closing when it was first seen".into(),
        Some(CloseKind::Open) => closing(connection, info),
        Some(CloseKind::Fin4Seg) => format!("{}, in four segments", first(info)),
        Some(CloseKind::Fin3Seg) => format!("{}, in three segments", first(info)),
        Some(CloseKind::Simultaneous) => "Both ends closed at the same time: their FINs crossed".into(),
        Some(CloseKind::HalfClose) => {
            format!("{}, and the other end sent data until it closed as well", first(info))
        }
        Some(CloseKind::RstAbort) => {
            format!("{} aborted the connection with a RST; no FIN was sent", capital(&aborter))
        }
        Some(CloseKind::RstAfterFin) if info.aborter == info.closer.and_then(one) => {
            format!("{}, and then ended the connection with a RST", first(info))
        }
        Some(CloseKind::RstAfterFin) => {
            format!("{}, and {aborter} ended the connection with a RST", first(info))
        }
        Some(CloseKind::Refused) => match info.icmp {
            Some(icmp) => format!("The connection was refused by an ICMP error (type/code {icmp})"),
            None => format!("{} refused the connection with a RST", capital(&aborter)),
        },
        Some(CloseKind::Unreachable) => match info.icmp {
            Some(icmp) => format!("The network did not reach the server: ICMP error (type/code {icmp})"),
            None => "The network did not reach the server".into(),
        },
        Some(CloseKind::SynAbort) => format!("{} gave the handshake up with a RST", capital(&aborter)),
        Some(CloseKind::SynTimeout) => "The handshake was never completed, and the attempt timed out".into(),
        Some(CloseKind::Timeout) => "The connection fell silent and timed out".into(),
        Some(CloseKind::Superseded) => "The same addresses and ports were opened again".into(),
    };
    let resets = matches!(info.kind, Some(CloseKind::RstAbort | CloseKind::RstAfterFin));
    let reset = connection.reset.as_ref();
    if let Some(text) = reset.and_then(|reset| reset.class.explanation()).filter(|_| resets) {
        sentence += &format!(": {text}");
    }
    if let Some(side) = info.closer.and_then(one) {
        let carried = steps
            .iter()
            .filter(|step| step.is(side, Flags::FIN))
            .find_map(|step| step.segment.as_ref().map(|segment| segment.bytes).filter(|&bytes| bytes > 0));
        if let Some(bytes) = carried {
            sentence += &format!("; its FIN carried the last {bytes} bytes");
        }
    }
    if steps.last().is_some_and(|step| step.segment.is_none() && step.cause == "reuse") {
        sentence += "; TIME-WAIT ended when the same addresses and ports were opened again";
    }
    if let Some(time_wait) = &connection.time_wait {
        // The sentence begins with the closer, unless the close began before the connection was seen.
        let began = info.kind.is_some();
        let holder = match time_wait.holder {
            holder if began && info.closer == Some(holder) && holder != Roles::Both => ", so it holds",
            Roles::Client => "; the client holds",
            Roles::Server => "; the server holds",
            Roles::Both => "; both ends hold",
        };
        sentence += &format!("{holder} TIME-WAIT for {} more", duration(time_wait.expires_in_ms as f64));
    }
    sentence + "."
}

/// An open connection, or one that opens.
fn open(connection: &Connection) -> String {
    let states = connection.ends().map(|end| end.state);
    match states {
        [State::Established, State::Established] => "The connection is open.".into(),
        [State::SynSent, State::Unknown | State::Listen] => {
            "The client opens the connection, and the server has not answered.".into()
        }
        [State::SynSent, State::SynReceived] | [State::Established, State::SynReceived] => {
            "The handshake waits for the client's ACK.".into()
        }
        _ => format!(
            "The connection is not closed: the client is in {}, the server in {}.",
            word(states[0]),
            word(states[1])
        ),
    }
}

/// A close that has begun.
fn closing(connection: &Connection, info: &CloseInfo) -> String {
    let Some(side) = info.closer.and_then(one) else { return "The close has begun".into() };
    let peer = side.peer();
    match connection.end(peer).state {
        State::CloseWait => format!("The {side} closed, and the {peer} has not: its application must close"),
        State::LastAck => {
            format!("The {side} closed first, then the {peer}, whose FIN is not acknowledged yet")
        }
        _ => format!("The {side} closed first, and the close is not complete"),
    }
}

fn first(info: &CloseInfo) -> String {
    match info.closer {
        Some(Roles::Client) => "The client closed first".into(),
        Some(Roles::Server) => "The server closed first".into(),
        Some(Roles::Both) | None => "The connection was closed".into(),
    }
}

/// The sections of RFC 9293 that describe the state of the connection.
pub(super) fn standards(connection: &Connection) -> Vec<Cow<'static, str>> {
    let section = |text: &'static str| vec![Cow::Borrowed(text)];
    match connection.close.as_ref().map(|close| close.kind) {
        None => section("RFC 9293 3.5, figure 6"),
        Some(None) => section("RFC 9293 3.6"),
        Some(Some(kind)) => section(match kind {
            CloseKind::Open | CloseKind::HalfClose => "RFC 9293 3.6.1",
            CloseKind::Fin4Seg | CloseKind::Fin3Seg => "RFC 9293 3.6, figure 12",
            CloseKind::Simultaneous => "RFC 9293 3.6, figure 13",
            CloseKind::RstAbort | CloseKind::RstAfterFin => "RFC 9293 3.5.3",
            CloseKind::Refused | CloseKind::SynAbort => "RFC 9293 3.10.7.3",
            CloseKind::Unreachable => "RFC 9293 3.9.2.2",
            CloseKind::SynTimeout | CloseKind::Timeout => "RFC 9293 3.8.3",
            CloseKind::Superseded => "RFC 9293 3.10.7.4",
        }),
    }
}

fn one(roles: Roles) -> Option<Role> {
    match roles {
        Roles::Client => Some(Role::Client),
        Roles::Server => Some(Role::Server),
        Roles::Both => None,
    }
}

fn word(state: State) -> &'static str {
    if state == State::Unknown { "an unknown state" } else { state.rfc_name() }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".into(),
        2 => "twice".into(),
        many => format!("{many} times"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
