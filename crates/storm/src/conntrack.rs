//! `nf_conntrack` on the server host, for comparison: it sees the same packets.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use finwait::lab::Host;
use finwait::sockets::{TrackedState, tracked};
use tcp_common::{FlowKey, State};

use crate::packet_log::key;
use crate::report::Report;

/// Conntrack's state of each flow.
pub(crate) type States = HashMap<FlowKey, TrackedState>;

/// Enables conntrack: a rule that matches on a connection's state makes the kernel track connections.
pub(crate) fn enable(host: &Host) -> Result<()> {
    for line in [
        "add table inet storm",
        "add chain inet storm in { type filter hook input priority 0 ; }",
        "add chain inet storm out { type filter hook output priority 0 ; }",
        "add rule inet storm in ct state new counter accept",
        "add rule inet storm out ct state new counter accept",
    ] {
        let status = host.run(|| Command::new("nft").arg(line).status())?;
        ensure!(status.context("starting nft (Debian: nftables)")?.success(), "nft {line}");
    }
    Ok(())
}

/// The current entries.
pub(crate) fn states(host: &Host) -> Result<States> {
    let tracked = host.run(tracked)??;
    Ok(tracked.into_iter().map(|entry| (key(entry.original.0, entry.original.1), entry.state)).collect())
}

/// Compares conntrack's state of this flow, as its documentation defines it, with the state of one end. A
/// missing entry means that there is no connection.
pub(crate) fn compare(
    states: &States,
    flow: FlowKey,
    actual: State,
    report: &mut Report,
    example: impl FnOnce() -> String,
) {
    let reported = states.get(&flow).copied();
    let compatible = reported.map_or(actual == State::Closed, |reported| reported.allows_end(actual));
    let checks = report.conntrack.get_or_insert_default();
    if compatible {
        checks.agree();
    } else {
        let reported = reported.map_or("no entry", TrackedState::name);
        checks.differ(None, format!("{reported}, kernel {}", actual.rfc_name()), example);
        report.conntrack_conflicts.insert(flow);
    }
}
