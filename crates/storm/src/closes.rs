//! The close records beside what the program did.

use std::collections::HashMap;

use finwait::lab::{Lab, Side};
use finwait::view::{self, Connection, Who};
use jiff::Timestamp;
use tcp_common::{CloseKind, FlowKey};

use crate::compare::describe;
use crate::packet_log::{Direction, PacketLog, key};
use crate::plan::{Ending, Expected, Plan};
use crate::report::Checks;

/// The latest that an agent has said of each incarnation. An agent forgets what is over for a while, and counts the
/// incarnations of the flow from 1 again: when it was opened tells them apart.
#[derive(Default)]
pub(crate) struct Records(HashMap<FlowKey, Vec<Connection>>);

/// A connection that the program made, and what became of the plan.
pub(crate) struct Made {
    pub(crate) plan: Plan,
    pub(crate) outcome: Result<(), String>,
}

impl Records {
    /// Takes what the agent says now.
    pub(crate) fn note(&mut self, connection: Connection) {
        let flow = key(connection.client.socket_address(), connection.server.socket_address());
        let records = self.0.entry(flow).or_default();
        match records.iter_mut().find(|known| is_same(known, &connection)) {
            Some(known) => *known = connection,
            None => records.push(connection),
        }
    }

    /// Compares with what was done.
    pub(crate) fn compare(
        &mut self,
        lab: &Lab,
        made: &HashMap<FlowKey, Vec<Made>>,
        packet_log: &PacketLog,
        checks: &mut Checks,
    ) {
        for (flow, made) in made {
            let mut records = self.0.remove(flow).unwrap_or_default();
            records.sort_by_key(|record| record.opened_at);
            let (client, server) = made[0].plan.addresses(lab);
            let directions = packet_log.directions(client, server);
            let history = || {
                format!("from the client host {:?}, from the server host {:?}", directions[0], directions[1])
            };
            if records.len() > made.len()
                && directions.iter().any(|direction| direction.copied || direction.again)
            {
                // The first one of its kind may be what the program made.
                while let Some(ghost) =
                    records.iter().rposition(is_failed_open).filter(|_| records.len() > made.len())
                {
                    let ghost = records.remove(ghost);
                    checks.differ(Some(LATE_SYN), ghost.close_word().into(), || describe(&ghost));
                }
            }
            // Of a tuple that was used more than once nobody says which of its connections it befell.
            let deviation = deviation(made, &directions);
            let sent = made.iter().filter(|made| made.plan.ending != Ending::OpenAbandoned).count();
            if !(sent..=made.len()).contains(&records.len()) {
                let what = format!("{} connections, {} incarnations", made.len(), records.len());
                let said: Vec<_> = records.iter().map(describe).collect();
                checks.differ(deviation, what, || format!("{:?}, {said:?}, {}", made[0].plan, history()));
                continue;
            }
            if records.len() < made.len() {
                let what = format!("{} connections, {} incarnations", made.len(), records.len());
                checks.differ(Some(NO_SYN), what, history);
                continue;
            }
            for (record, made) in records.iter().zip(made) {
                compare_one(lab, record, &made.plan, &directions, deviation, checks, &history);
            }
        }
    }
}

/// Why the close may differ from the plan, if it does.
fn deviation(made: &[Made], directions: &[Direction; 2]) -> Option<&'static str> {
    if made.iter().any(|made| made.outcome.is_err()) {
        Some("the program could not do as planned: a RST or every copy of a segment was lost")
    } else if directions.iter().any(|direction| direction.lost_resets > 0) {
        Some("a RST was lost: what the program did is not what the wire shows")
    } else if directions.iter().any(|direction| direction.two_fins_ever) {
        Some("the host sent two FINs")
    } else if made.iter().any(|made| made.plan.cookies)
        && directions.iter().any(|direction| direction.doubled + direction.delayed > 0)
    {
        Some("a late ACK with the SYN cookie made a second socket, which was closed at once")
    } else {
        None
    }
}

/// What the RST of `aborter` was seen before, if that is reason the kind is another one.
fn explain_kind(
    record: &Connection,
    expected: &Expected,
    aborter: Option<Side>,
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
                "the FIN found its flow busy, the RST was before it (docs/FLOW_TABLE.md); `confidence` is `gap`",
            )
        }
        Some(CloseKind::Refused)
            if expected.kinds.contains(&CloseKind::SynAbort)
                && aborter.is_some_and(|side| {
                    let direction = &directions[side as usize];
                    direction.copied || direction.only_resets_arrived()
                }) =>
        {
            Some("the cable lost or held the SYN-ACK, and the RST came without it")
        }
        _ => None,
    }
}

/// An open that came to nothing.
fn is_failed_open(record: &Connection) -> bool {
    matches!(record.close_kind(), Some(CloseKind::SynAbort | CloseKind::SynTimeout | CloseKind::Refused))
}

/// Wall time is computed anew for each answer, from a clock that never jumps.
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
    let said = record.close.as_ref();
    let host = |side: view::Side| {
        if record.end(side).address == lab.client.address(plan.family) { Side::Client } else { Side::Server }
    };
    let closer = match said.and_then(|close| close.closer) {
        None => Ok(None),
        Some(Who::Client) => Ok(Some(host(view::Side::Client))),
        Some(Who::Server) => Ok(Some(host(view::Side::Server))),
        Some(Who::Both) => Err("both"),
    };
    let aborter = said.and_then(|close| close.aborter).map(host);
    let kind = record.close_kind();
    let opener = host(view::Side::Client);
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

const NO_SYN: &str = "given up before a SYN was sent: nothing to be seen";
const LATE_SYN: &str = "a SYN came twice, once when the connection was over, and was answered";
