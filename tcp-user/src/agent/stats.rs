//! The document of `/stats`, made of a snapshot.

use std::collections::BTreeMap;

use tcp_common::record::segment_kind;
use tcp_common::{Cause, CloseKind, Ignored, State};

use super::totals::{CLOSERS, FAMILIES, Locality, ROLES, Snapshot, close_forms};
use crate::api::{Counts, Stats};

impl From<&Snapshot> for Stats {
    fn from(snapshot: &Snapshot) -> Stats {
        let (counters, totals) = (&snapshot.counters, &snapshot.totals);
        let segments = counters.segments_by_kind();
        Stats {
            schema: "finwait.stats/1".into(),
            endpoints: nested(Locality::ALL.map(Locality::name), |place| {
                let count =
                    |state: &State| (state.name().to_owned(), snapshot.endpoints[place][*state as usize]);
                State::ALL.iter().map(count).collect()
            }),
            opened: nested(ROLES, |role| named(FAMILIES, &totals.opened[role])),
            closed: nested(close_forms(), |form| named(CLOSERS, &totals.closed[form]))
                .into_iter()
                .filter(|(kind, _)| kind != CloseKind::Open.name())
                .collect(),
            resets: snapshot
                .resets()
                .into_iter()
                .chain([("blind", [snapshot.ignored_rsts(), 0])])
                .map(|(reason, counts)| {
                    (reason.to_owned(), named(Locality::ALL.map(Locality::name), &counts))
                })
                .collect(),
            time_wait: [
                ("entered", snapshot.entered(State::TimeWait)),
                ("expired", totals.time_wait_expired),
                ("restarted", counters.time_wait_restarted),
                ("reused", counters.causes[Cause::Reuse as usize]),
            ]
            .map(|(event, count)| (event.to_owned(), count))
            .into(),
            segments: nested(["ingress", "egress"], |direction| {
                named(segment_kind::NAMES, &segments[direction])
            }),
            unmoved: Cause::without_effect()
                .map(|cause| (cause.name().to_owned(), counters.causes[cause as usize]))
                .collect(),
            packets_seen: counters.packets_seen(),
            packets_tracked: counters.packets_tracked(),
            packets_ignored: named(Ignored::ALL.map(Ignored::name), &counters.ignored),
            fragments_pending: counters.fragments_pending(),
            events_delivered: totals.delivered,
            events_lost: counters.events_lost,
            resyncs: totals.resyncs,
            deferred: counters.deferred,
            audit_looks: totals.audit_looks,
            audit_repairs: totals.repairs().map(|(what, count)| (what.to_owned(), count)).collect(),
        }
    }
}

fn named<const N: usize>(names: [&str; N], counts: &[u64; N]) -> Counts {
    names.iter().zip(counts).map(|(name, &count)| ((*name).to_owned(), count)).collect()
}

fn nested<const N: usize>(names: [&str; N], counts: impl Fn(usize) -> Counts) -> BTreeMap<String, Counts> {
    names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), counts(index))).collect()
}
