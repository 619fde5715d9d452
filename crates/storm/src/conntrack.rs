//! `nf_conntrack` in the watched host, for comparison: it sees the same packets.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use finwait::lab::Host;
use finwait::sockets::{TrackedState, tracked};
use tcp_common::{FlowKey, State};

use crate::packet_log::key;
use crate::report::Report;

/// What conntrack says of each flow.
pub(crate) type States = HashMap<FlowKey, TrackedState>;

/// Switches it on: a rule that looks at a connection's state makes the kernel follow connections.
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

/// What it says now.
pub(crate) fn states(host: &Host) -> Result<States> {
    let tracked = host.run(tracked)??;
    Ok(tracked.into_iter().map(|entry| (key(entry.original.0, entry.original.1), entry.state)).collect())
}

/// Holds its one state of this flow, read as its documentation says, against one end. An entry that is gone says that
/// there is no connection.
pub(crate) fn compare(
    states: &States,
    flow: FlowKey,
    truth: State,
    report: &mut Report,
    example: impl FnOnce() -> String,
) {
    let said = states.get(&flow).copied();
    let right = said.map_or(truth == State::Closed, |said| said.allows_end(truth));
    let checks = report.conntrack.get_or_insert_default();
    if right {
        checks.agree();
    } else {
        let said = said.map_or("no entry", TrackedState::name);
        checks.differ(None, format!("{said}, kernel {}", truth.rfc_name()), example);
        report.conntrack_conflicts.insert(flow);
    }
}
