//! Compares the close records with the plans of the connections.

use std::collections::HashMap;

use finwait::lab::{Lab, Role};
use finwait::view::{self, Connection, Roles};
use jiff::Timestamp;
use tcp_common::{CloseKind, FlowKey};

use crate::compare::{Position, describe};
use crate::explain::MISSED;
use crate::packet_log::{Direction, PacketLog, key};
use crate::plan::{Ending, Expected, Plan};
use crate::report::Checks;

/// The latest record that an agent gave of each incarnation. An agent forgets a closed flow after a while and
/// counts its incarnations from 1 again. So the time of the open identifies the incarnation too.
#[derive(Default)]
pub(crate) struct Records(HashMap<FlowKey, Vec<Connection>>);

/// A connection of the storm and the outcome of its plan.
pub(crate) struct Attempt {
    pub(crate) plan: Plan,
    pub(crate) outcome: Result<(), String>,
}

impl Records {
    /// Stores a record in place of the previous one of its incarnation.
    pub(crate) fn store(&mut self, connection: Connection) {
        let flow = key(connection.client.socket_address(), connection.server.socket_address());
        let records = self.0.entry(flow).or_default();
        match records.iter_mut().find(|known| is_same(known, &connection)) {
            Some(known) => *known = connection,
            None => records.push(connection),
        }
    }

    /// Compares the records of every flow with its plans.
    pub(crate) fn compare(
        &mut self,
        lab: &Lab,
        observer: Position,
        attempts: &HashMap<FlowKey, Vec<Attempt>>,
        packet_log: &PacketLog,
        checks: &mut Checks,
    ) {
        for (flow, attempts) in attempts {
            let mut records = self.0.remove(flow).unwrap_or_default();
            records.sort_by_key(|record| record.opened_at);
            let (client, server) = attempts[0].plan.addresses(lab);
            let directions = packet_log.directions(client, server);
            let history = || {
                format!("from the client host {:?}, from the server host {:?}", directions[0], directions[1])
            };
            let copied = directions.iter().any(|direction| direction.copied || direction.retransmitted);
            let overtaken = attempts.iter().any(|attempt| attempt.plan.fast_open);
            if let Some(reason) = copied.then_some(LATE_SYN).or(overtaken.then_some(OVERTAKEN_SYN_ACK)) {
                // The first failed open may be one of the plans.
                while let Some(failed) =
                    records.iter().rposition(is_failed_open).filter(|_| records.len() > attempts.len())
                {
                    let failed = records.remove(failed);
                    checks.differ(Some(reason), failed.close_word().into(), || describe(&failed));
                }
            }
            // Of a reused tuple it is unknown which connection was affected.
            let deviation = deviation(observer, attempts, &directions);
            let sent = attempts.iter().filter(|attempt| attempt.plan.ending != Ending::OpenAbandoned).count();
            if !(sent..=attempts.len()).contains(&records.len()) {
                let what = format!("{} connections, {} incarnations", attempts.len(), records.len());
                let reported: Vec<_> = records.iter().map(describe).collect();
                checks.differ(deviation, what, || {
                    format!("{:?}, {reported:?}, {}", attempts[0].plan, history())
                });
                continue;
            }
            if records.len() < attempts.len() {
                let what = format!("{} connections, {} incarnations", attempts.len(), records.len());
                checks.differ(Some(NO_SYN), what, history);
                continue;
            }
            for (record, attempt) in records.iter().zip(attempts) {
                compare_one(lab, record, &attempt.plan, &directions, deviation, checks, &history);
            }
        }
    }
}

/// Why the close may differ from the plan, if it may.
fn deviation(observer: Position, attempts: &[Attempt], directions: &[Direction; 2]) -> Option<&'static str> {
    if observer == Position::Third && directions.iter().any(|direction| direction.missed > 0) {
        Some(MISSED)
    } else if attempts.iter().any(|attempt| attempt.outcome.is_err()) {
        Some("the program could not follow the plan: a RST or every copy of a segment was lost")
    } else if directions.iter().any(|direction| direction.lost_resets > 0) {
        Some("a RST was lost, so the packets do not show what the program did")
    } else if attempts.iter().any(|attempt| attempt.plan.ending == Ending::Refused)
        && directions.iter().any(Direction::nothing_arrived)
    {
        Some("the program gave up before its SYN was sent again")
    } else if directions.iter().any(|direction| direction.two_fins_ever) {
        Some("the host sent two FINs")
    } else if attempts.iter().any(|attempt| attempt.plan.cookies)
        && directions.iter().any(|direction| direction.doubled + direction.delayed > 0)
    {
        Some("a late ACK with the SYN cookie created a second socket, which was closed at once")
    } else {
        None
    }
}

/// Why the close kind may differ from the plan, if the RST of `aborter` is the expected one.
fn explain_kind(
    record: &Connection,
    expected: &Expected,
    aborter: Option<Role>,
    directions: &[Direction; 2],
) -> Option<&'static str> {
    if aborter != expected.aborter {
        return None;
    }
    match record.close_kind() {
        Some(CloseKind::RstAbort)
            if expected.kinds == [CloseKind::RstAfterFin] && record.confidence == view::Confidence::Gap =>
        {
            Some(
                "the flow was locked when the FIN arrived, and the RST was processed first; `confidence` is `gap`",
            )
        }
        Some(CloseKind::Refused)
            if expected.kinds.contains(&CloseKind::SynAbort)
                && aborter.is_some_and(|side| {
                    let direction = &directions[side as usize];
                    direction.copied || direction.only_resets_arrived()
                }) =>
        {
            Some("the link dropped or delayed the SYN-ACK, and the RST arrived without it")
        }
        _ => None,
    }
}

/// Whether the connection was never established.
fn is_failed_open(record: &Connection) -> bool {
    matches!(record.close_kind(), Some(CloseKind::SynAbort | CloseKind::SynTimeout | CloseKind::Refused))
}

/// Wall time is computed again for each answer, from the monotonic clock.
fn is_same(one: &Connection, other: &Connection) -> bool {
    let apart = |(one, other): (Timestamp, Timestamp)| (one.as_millisecond() - other.as_millisecond()).abs();
    one.incarnation == other.incarnation
        && one.opened_at.zip(other.opened_at).is_none_or(|times| apart(times) < 500)
}

fn compare_one(
    lab: &Lab,
    record: &Connection,
    plan: &Plan,
    directions: &[Direction; 2],
    deviation: Option<&'static str>,
    checks: &mut Checks,
    history: &dyn Fn() -> String,
) {
    let Some(expected) = plan.expected() else { return };
    let close = record.close.as_ref();
    let host = |side: view::Role| {
        if record.end(side).address == lab.client.address(plan.family) { Role::Client } else { Role::Server }
    };
    let closer = match close.and_then(|close| close.closer) {
        None => Ok(None),
        Some(Roles::Client) => Ok(Some(host(view::Role::Client))),
        Some(Roles::Server) => Ok(Some(host(view::Role::Server))),
        Some(Roles::Both) => Err("both"),
    };
    let aborter = close.and_then(|close| close.aborter).map(host);
    let kind = record.close_kind();
    let opener = host(view::Role::Client);
    if kind.is_some_and(|kind| expected.kinds.contains(&kind))
        && closer == Ok(expected.closer)
        && aborter == expected.aborter
        && opener == plan.opener
    {
        checks.agree();
    } else {
        let reason = explain_kind(record, &expected, aborter, directions).or(deviation);
        let what = format!(
            "{}: {} by {closer:?}, aborter {aborter:?}, expected {expected:?}, first {:?}",
            plan.ending.name(),
            record.close_word(),
            plan.first
        );
        checks.differ(reason, what, || format!("{} {plan:?} {}", describe(record), history()));
    }
}

const NO_SYN: &str = "the open was abandoned before a SYN was sent";
const OVERTAKEN_SYN_ACK: &str = "with Fast Open the server sends at once: its RST arrived before its SYN-ACK, which began another incarnation";
const LATE_SYN: &str = "a copy of a SYN arrived after the connection had ended, and was answered";
