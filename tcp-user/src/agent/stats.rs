//! The document of `/stats`, made of the table of counts that the metrics page shows.

use std::collections::BTreeMap;

use super::metrics::{counts, samples, total};
use super::totals::Snapshot;
use crate::api::{Counts, Stats};

impl From<&Snapshot> for Stats {
    fn from(snapshot: &Snapshot) -> Stats {
        let total = |name| total(snapshot, name);
        let by_one_label = |name| by_label(snapshot, name, 0);
        let by_two_labels = |name| by_both_labels(snapshot, name);
        let mut resets = by_two_labels("resets");
        // Who sent them is unknown.
        let ignored = Counts::from([("remote".to_owned(), total("rsts_ignored")), ("local".to_owned(), 0)]);
        resets.insert("blind".to_owned(), ignored);
        let mut audit_repairs = by_one_label("audit_repairs");
        audit_repairs.insert("adopted".to_owned(), total("connections_adopted"));
        Stats {
            schema: "finwait.stats/1".into(),
            endpoints: by_two_labels("endpoints"),
            opened: by_two_labels("connections_opened"),
            closed: by_two_labels("connections_closed"),
            resets,
            time_wait: by_one_label("time_wait_events"),
            segments: by_two_labels("segments"),
            unmoved: by_one_label("segments_without_effect"),
            packets_seen: total("packets"),
            packets_tracked: total("packets_tracked"),
            packets_ignored: by_one_label("packets_ignored"),
            fragments_pending: total("fragments_pending"),
            events_delivered: total("events_delivered"),
            events_lost: total("events_lost"),
            resyncs: total("resyncs"),
            deferred: total("deferred_segments"),
            audit_looks: total("socket_checks"),
            audit_repairs,
            metrics: counts(snapshot),
        }
    }
}

/// The samples of a family by one of its labels.
pub(super) fn by_label(snapshot: &Snapshot, name: &str, label: usize) -> Counts {
    let mut counts = Counts::new();
    for (values, count) in samples(snapshot, name) {
        *counts.entry(values[label].to_owned()).or_default() += count;
    }
    counts
}

/// The samples of a family by the first of its two labels, then by the second.
fn by_both_labels(snapshot: &Snapshot, name: &str) -> BTreeMap<String, Counts> {
    let mut counts = BTreeMap::<String, Counts>::new();
    for (values, count) in samples(snapshot, name) {
        counts.entry(values[0].to_owned()).or_default().insert(values[1].to_owned(), count);
    }
    counts
}
