//! Compares agent and kernel endpoint by endpoint, and confirms findings by a second sample.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tcp_common::State;

use super::error::AuditError;
use super::sample::Sample;
use super::{ConntrackCounts, Finding, Ours, Reason, Report, SCHEMA, Socket, Verdict, VerdictCounts};
use crate::api::Status;
use crate::filter::Filter;
use crate::sockets::{HostContext, KernelSocket, Unmatched, scope_of, socket_of};
use crate::view::{Confidence, Connection, ConnectionEnd, ConnectionId, Family, Opener, Role, SocketPair};

/// Parameters of an audit.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections to compare.
    pub filter: Filter,
    /// Time between the two samples.
    pub interval: Duration,
    /// Whether to report endpoints that agree, too.
    pub all: bool,
    /// Whether to query nf_conntrack, too.
    pub conntrack: bool,
}

/// Takes two samples and reports the findings that both have in common. Takes one sample if everything
/// agrees.
pub async fn audit(agent: &Path, status: &Status, options: &Options) -> Result<Report, AuditError> {
    let host = HostContext::read(status.watched(), status.started_at, status.two_msl_ms);
    let first = judge(&Sample::take(agent, options.conntrack).await?, &host, Timestamp::now());
    let second = if first.findings.iter().all(is_fine) {
        first.clone()
    } else {
        tokio::time::sleep(options.interval).await;
        judge(&Sample::take(agent, options.conntrack).await?, &host, Timestamp::now())
    };
    Ok(confirm(&first, second, options))
}

/// Findings of one sample.
#[derive(Clone)]
pub(super) struct Judged {
    pub(super) findings: Vec<Finding>,
    pub(super) listening: u64,
    pub(super) unconnected: u64,
    /// Number of connections that conntrack tracks, if queried.
    pub(super) tracked: Option<u64>,
    pub(super) at: Timestamp,
}

/// Finds a verdict for every local endpoint, and for every connection without one.
pub(super) fn judge(sample: &Sample, host: &HostContext, now: Timestamp) -> Judged {
    let mut findings = Vec::new();
    let mut known = HashSet::new();
    let open = open_sockets(sample);
    for connection in &sample.connections {
        let mut forwarded = true;
        for side in local_sides(connection) {
            forwarded = false;
            let ends = socket_of(connection, side);
            let is_of_another = is_closed(connection.end(side).state) && open.contains(&ends);
            let sockets = if is_of_another { &[][..] } else { sample.sockets_of(&ends) };
            known.insert(ends);
            compare(connection, side, sockets, host, &mut findings);
        }
        if forwarded {
            findings.push(forwarded_finding(connection));
        }
    }
    let unknown = sample.sockets.iter().filter(|(ends, _)| !known.contains(*ends));
    findings.extend(
        unknown
            .flat_map(|(_, sockets)| sockets)
            .map(|socket| kernel_finding(socket, host.why_unknown(socket, now))),
    );
    recognise_nat(&mut findings, sample);
    if let Some(entries) = &sample.conntrack {
        findings.iter_mut().for_each(|finding| finding.conntrack = entries.of(finding));
    }
    let tracked = sample.conntrack.as_ref().map(|entries| entries.count);
    let listening = sample.listening.values().sum();
    Judged { findings, listening, unconnected: sample.unconnected, tracked, at: now }
}

/// Addresses of the sockets that match a connection which is open at their end. A closed connection may have had a socket
/// with the same addresses before: on the wire its addresses were others if this host has translated them.
fn open_sockets(sample: &Sample) -> HashSet<SocketPair> {
    let ends = sample.connections.iter().flat_map(|one| local_sides(one).map(move |side| (one, side)));
    let open = ends.filter(|(connection, side)| !is_closed(connection.end(*side).state));
    let matched = open.filter_map(|(connection, side)| {
        let (ends, state) = (socket_of(connection, side), connection.end(side).state);
        sample.sockets_of(&ends).iter().any(|socket| agree(connection, state, Some(socket))).then_some(ends)
    });
    matched.collect()
}

fn local_sides(connection: &Connection) -> impl Iterator<Item = Role> {
    Role::ALL.iter().copied().filter(|&side| connection.end(side).local)
}

/// Whether a state is one without a socket. A listener has no socket for a SYN that it has not answered.
fn is_closed(state: State) -> bool {
    matches!(state, State::Closed | State::Listen | State::Unknown)
}

/// Compares a local endpoint with one of the sockets that have its addresses.
fn compare(
    connection: &Connection,
    side: Role,
    sockets: &[KernelSocket],
    host: &HostContext,
    findings: &mut Vec<Finding>,
) {
    let ours = connection.end(side);
    let (local, remote) = socket_of(connection, side);
    let agreeing = sockets.iter().find(|socket| agree(connection, ours.state, Some(socket)));
    let socket = agreeing.or(sockets.first());
    let (verdict, reason) = match (agree(connection, ours.state, socket), socket) {
        (true, _) => (Verdict::Agree, None),
        (false, Some(socket)) if is_held_back(ours.state, socket) => {
            (Verdict::Explained, Some(Reason::NotAccepted))
        }
        (false, Some(socket)) if is_fin_held_back(ours, socket) => {
            (Verdict::Explained, Some(Reason::FinHeldBack))
        }
        (false, Some(_)) => (Verdict::Differ, None),
        (false, None) => match host.why_no_socket((local, remote)) {
            Reason::Forgotten => (Verdict::Differ, Some(Reason::Forgotten)),
            reason => (Verdict::OnlyOurs, Some(reason)),
        },
    };
    findings.push(Finding {
        verdict,
        reason,
        local: local.into(),
        remote: remote.into(),
        scope: connection.scope.clone(),
        ours: Some(ours_of(connection, side)),
        kernel: socket.map(Socket::from),
        conntrack: None,
    });
    let others = sockets.iter().filter(|other| socket.is_some_and(|socket| socket.cookie != other.cookie));
    findings.extend(others.map(|other| kernel_finding(other, Reason::SameAddresses)));
}

/// Whether the listener has not accepted a handshake that the segments have completed: the kernel still has a
/// request socket.
fn is_held_back(ours: State, socket: &KernelSocket) -> bool {
    socket.state == State::SynReceived
        && socket.inode == 0
        && matches!(ours, State::Established | State::CloseWait)
}

/// Whether the states differ by a FIN that the host has not let through: one of the peer that the socket has
/// not received, and so has not acknowledged, or one of the socket that has not left the host.
fn is_fin_held_back(ours: &ConnectionEnd, socket: &KernelSocket) -> bool {
    use State::*;
    match (ours.state, socket.state) {
        (CloseWait, Established) | (Closing, FinWait1) | (TimeWait, FinWait2) => !ours.confirmed,
        (Established, FinWait1) | (CloseWait, LastAck) => true,
        _ => false,
    }
}

fn kernel_finding(socket: &KernelSocket, reason: Reason) -> Finding {
    Finding {
        verdict: Verdict::OnlyKernel,
        reason: Some(reason),
        local: socket.local.into(),
        remote: socket.remote.into(),
        scope: scope_of(socket.local),
        ours: None,
        kernel: Some(socket.into()),
        conntrack: None,
    }
}

/// Whether the kernel's socket, or its absence, matches the agent's state. A timer that is due may end its
/// state on one side slightly earlier than on the other.
fn agree(connection: &Connection, ours: State, socket: Option<&KernelSocket>) -> bool {
    let ours = if is_closed(ours) { State::Closed } else { ours };
    let kernel = socket.map_or(State::Closed, |socket| socket.state);
    let our_timer_due = || {
        connection.time_wait.as_ref().is_some_and(|time_wait| time_wait.expires_in_ms <= u64::from(DUE_MS))
    };
    let their_timer_due =
        || socket.is_some_and(|socket| socket.inode == 0 && socket.expires_ms.is_some_and(|ms| ms <= DUE_MS));
    match (ours, kernel) {
        (State::TimeWait, State::Closed) => our_timer_due(),
        (State::Closed, State::TimeWait) => their_timer_due(),
        (ours, kernel) => ours == kernel,
    }
}

fn forwarded_finding(connection: &Connection) -> Finding {
    let (client, server) = connection.ends_from(Role::Client);
    Finding {
        verdict: Verdict::OnlyOurs,
        reason: Some(if connection.nat.is_some() { Reason::Translated } else { Reason::Forwarded }),
        local: client.into(),
        remote: server.into(),
        scope: connection.scope.clone(),
        ours: Some(ours_of(connection, Role::Client)),
        kernel: None,
        conntrack: None,
    }
}

fn ours_of(connection: &Connection, side: Role) -> Ours {
    let end = connection.end(side);
    Ours {
        state: end.state,
        confirmed: end.confirmed,
        peer_state: connection.end(side.peer()).state,
        connection: connection.clone(),
    }
}

/// Marks unmatched findings of agent and kernel that share an endpoint: they are one connection before and
/// after NAT.
fn recognise_nat(findings: &mut [Finding], sample: &Sample) {
    let (mut forgotten, mut missed) = (Unmatched::default(), Unmatched::default());
    for finding in findings.iter() {
        let ends = ends_of(finding);
        let listens = sample.listening.contains_key(&ends.0.port());
        match finding.reason {
            Some(Reason::Forgotten) => forgotten.add(ends, listens),
            Some(Reason::Missed) => missed.add(ends, listens),
            _ => {}
        }
    }
    for finding in findings {
        let ends = ends_of(finding);
        if finding.reason == Some(Reason::Forgotten) && missed.share_an_end(ends) {
            (finding.verdict, finding.reason) = (Verdict::OnlyOurs, Some(Reason::Translated));
        } else if finding.reason == Some(Reason::Missed) && forgotten.share_an_end(ends) {
            finding.reason = Some(Reason::Translated);
        }
    }
}

/// Keeps the findings of the second sample that the first has, too.
pub(super) fn confirm(first: &Judged, second: Judged, options: &Options) -> Report {
    let before: HashMap<_, _> = first.findings.iter().map(|finding| (finding_id(finding), finding)).collect();
    let mut counts = VerdictCounts { listening: second.listening, ..VerdictCounts::default() };
    if second.unconnected != 0 {
        counts.not_compared.insert(Reason::Unconnected.to_string(), second.unconnected);
    }
    let mut conntrack =
        second.tracked.map(|entries| ConntrackCounts { entries, ..ConntrackCounts::default() });
    let mut findings = Vec::new();
    for finding in second.findings {
        if !is_selected(&finding, &options.filter, second.at) {
            continue;
        }
        let settled = is_fine(&finding)
            || before.get(&finding_id(&finding)).is_some_and(|earlier| alike(earlier, &finding));
        if !settled {
            counts.unsettled += 1;
            continue;
        }
        *match finding.verdict {
            Verdict::Agree => &mut counts.agree,
            Verdict::Differ => &mut counts.differ,
            Verdict::Explained => &mut counts.explained,
            Verdict::OnlyOurs => &mut counts.only_ours,
            Verdict::OnlyKernel => &mut counts.only_kernel,
        } += 1;
        match finding.reason {
            Some(Reason::Missed) => counts.missed += 1,
            Some(reason) if finding.verdict == Verdict::OnlyKernel => {
                *counts.not_compared.entry(reason.to_string()).or_default() += 1;
            }
            _ => {}
        }
        if let Some(conntrack) = &mut conntrack {
            conntrack.count(finding.conntrack.as_ref());
        }
        if options.all || !is_fine(&finding) {
            findings.push(finding);
        }
    }
    findings
        .sort_by_key(|finding| (finding.verdict != Verdict::Differ, finding.reason != Some(Reason::Missed)));
    Report {
        schema: SCHEMA.into(),
        at: second.at,
        interval_ms: u64::try_from(options.interval.as_millis()).unwrap_or(u64::MAX),
        counts,
        conntrack,
        findings,
    }
}

/// Whether agent, kernel and, if queried, conntrack agree.
fn is_fine(finding: &Finding) -> bool {
    finding.verdict == Verdict::Agree && finding.conntrack.is_none_or(|conntrack| !conntrack.differs())
}

fn ends_of(finding: &Finding) -> SocketPair {
    (finding.local.into(), finding.remote.into())
}

/// Addresses, scope, incarnation and start of a finding.
type FindingId = (SocketPair, Option<String>, Option<(u32, Option<Timestamp>)>);

/// Identity of a finding in both samples. The incarnation and its start distinguish connections with the same
/// addresses on two VLANs.
fn finding_id(finding: &Finding) -> FindingId {
    let incarnation = finding.ours.as_ref().map(|ours| {
        let Connection { incarnation, opened_at, .. } = ours.connection;
        (incarnation, opened_at.map(rounded))
    });
    (ends_of(finding), finding.scope.clone(), incarnation)
}

/// Rounds to seconds: the agent's relation of its clock to wall time differs by a few microseconds between
/// answers.
fn rounded(at: Timestamp) -> Timestamp {
    at.round(jiff::Unit::Second).unwrap_or(at)
}

fn alike(first: &Finding, second: &Finding) -> bool {
    let states = |finding: &Finding| {
        (finding.ours.as_ref().map(|ours| ours.state), finding.kernel.as_ref().map(|kernel| kernel.state))
    };
    let verdict = |finding: &Finding| (finding.verdict, finding.reason, finding.conntrack);
    verdict(first) == verdict(second) && states(first) == states(second)
}

fn is_selected(finding: &Finding, filter: &Filter, now: Timestamp) -> bool {
    if filter.is_empty() {
        return true;
    }
    match &finding.ours {
        Some(ours) => filter.matches(&ours.connection, now),
        None => filter.matches(&as_connection(finding, now), now),
    }
}

/// A connection for the filter, made of a socket that only the kernel has.
fn as_connection(finding: &Finding, now: Timestamp) -> Connection {
    let state = finding.kernel.as_ref().map_or(State::Closed, |socket| socket.state);
    let end = |address: super::Address, state, local| ConnectionEnd {
        address: address.address,
        port: address.port,
        state,
        confirmed: false,
        local,
        on_host: local,
        vlan: None,
        segments: 0,
        bytes: 0,
    };
    let local = end(finding.local, state, true);
    let remote = end(finding.remote, State::Unknown, false);
    let (client, server) = if local.port >= remote.port { (local, remote) } else { (remote, local) };
    Connection {
        family: if client.address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
        interface: None,
        scope: finding.scope.clone(),
        incarnation: 1,
        id: ConnectionId::NONE,
        client,
        server,
        opener: Opener::Unknown,
        confidence: Confidence::Midstream,
        opened_at: None,
        last_seen_at: now,
        handshake_ms: None,
        close: None,
        reset: None,
        ignored_rst: None,
        time_wait: None,
        tunnel: None,
        nat: None,
        process: None,
    }
}

/// How long a due timer may be late, in ms: by the agent's scan, which takes a second, and by the kernel's
/// timer wheel.
const DUE_MS: u32 = 1_000;
