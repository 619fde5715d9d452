//! The answer to `finwait stats`: the snapshot in words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tcp_common::record::segment_kind;
use tcp_common::{Cause, CloseKind, Ignored, State};

use super::tally::{CLOSERS, FAMILIES, Place, ROLES, Snapshot, close_forms};

type Counts = BTreeMap<String, u64>;

/// Totals since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// `finwait.stats/1`.
    pub schema: String,
    /// Ends by place and state, now.
    pub endpoints: BTreeMap<String, Counts>,
    /// Connections that became ESTABLISHED, by role of the local end and family.
    pub opened: BTreeMap<String, Counts>,
    /// Connections that are over, by kind and closer.
    pub closed: BTreeMap<String, Counts>,
    /// RSTs by reason and origin. `blind` ones were not accepted; their origin is not known and counts as remote.
    pub resets: BTreeMap<String, Counts>,
    /// What happened to TIME-WAITs.
    pub time_wait: Counts,
    /// Segments by direction and kind.
    pub segments: BTreeMap<String, Counts>,
    /// Segments that moved nothing, by cause.
    pub unmoved: Counts,
    /// Packets: seen = tracked + ignored.
    pub packets_seen: u64,
    /// Packets given to a flow.
    pub packets_tracked: u64,
    /// Packets without a flow, by reason.
    pub packets_ignored: Counts,
    /// Events taken from the ring.
    pub events_delivered: u64,
    /// Events that found it full.
    pub events_lost: u64,
    /// Times the table was reread for that.
    pub resyncs: u64,
    /// Segments that the agent applied because their flow was busy.
    pub deferred: u64,
    /// Looks at the kernel's sockets.
    pub audit_looks: u64,
    /// Ends whose socket was gone without a segment, by the state they were in; `adopted`: connections older than the agent.
    pub audit_repairs: Counts,
}

impl From<&Snapshot> for Stats {
    fn from(snapshot: &Snapshot) -> Stats {
        let (counters, tally) = (&snapshot.counters, &snapshot.tally);
        Stats {
            schema: "finwait.stats/1".into(),
            endpoints: nested(Place::ALL.map(Place::name), |place| {
                let count =
                    |state: &State| (state.name().to_owned(), snapshot.endpoints[place][*state as usize]);
                State::ALL.iter().map(count).collect()
            }),
            opened: nested(ROLES, |role| named(FAMILIES, &tally.opened[role])),
            closed: nested(close_forms(), |form| named(CLOSERS, &tally.closed[form]))
                .into_iter()
                .filter(|(kind, _)| kind != CloseKind::Open.name())
                .collect(),
            resets: snapshot
                .resets()
                .into_iter()
                .chain([("blind", [snapshot.ignored_rsts(), 0])])
                .map(|(reason, counts)| (reason.to_owned(), named(Place::ALL.map(Place::name), &counts)))
                .collect(),
            time_wait: [
                ("entered", snapshot.entered(State::TimeWait)),
                ("expired", tally.time_wait_expired),
                ("restarted", counters.time_wait_restarted),
                ("reused", counters.causes[Cause::Reuse as usize]),
            ]
            .map(|(event, count)| (event.to_owned(), count))
            .into(),
            segments: nested(["ingress", "egress"], |direction| {
                named(segment_kind::NAMES, &counters.segments[direction])
            }),
            unmoved: (Cause::BadFlags as u8..64)
                .filter_map(Cause::from_u8)
                .map(|cause| (cause.name().to_owned(), counters.causes[cause as usize]))
                .collect(),
            packets_seen: counters.seen,
            packets_tracked: counters.tracked,
            packets_ignored: named(Ignored::ALL.map(Ignored::name), &counters.ignored),
            events_delivered: tally.delivered,
            events_lost: counters.events_lost,
            resyncs: tally.resyncs,
            deferred: counters.deferred,
            audit_looks: tally.audit_looks,
            audit_repairs: tally.repairs().map(|(what, count)| (what.to_owned(), count)).collect(),
        }
    }
}

fn named<const N: usize>(names: [&str; N], counts: &[u64; N]) -> Counts {
    names.iter().zip(counts).map(|(name, &count)| ((*name).to_owned(), count)).collect()
}

fn nested<const N: usize>(names: [&str; N], counts: impl Fn(usize) -> Counts) -> BTreeMap<String, Counts> {
    names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), counts(index))).collect()
}
