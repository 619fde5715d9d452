//! Counters of the agent, and the snapshot that the exporter and `finwait stats` read.

use std::array;

use prometheus_client::metrics::histogram::Histogram;
use serde::{Deserialize, Serialize};
use tcp_common::flow::{Closer, Initiator};
use tcp_common::record::Counters;
use tcp_common::{Cause, CloseKind, End, Flow, FlowKey, Outcome, State};

use super::exemplar::{ConnectionHistogram, Exemplar};
use super::history::DiskCounts;
use super::own::OWN_KINDS;
use super::ports::PortGauges;
use super::reset::KnownReset;
use crate::kernel::ProgramRuns;
use crate::view::describe::handshake_ns;
use crate::view::{ReopenReason, ResetClass, TimeWaitEnding, UNSEEN};

/// Whether an endpoint is on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// The endpoint is on another host.
    Remote = 0,
    /// The endpoint is on this host.
    Local = 1,
}

impl Locality {
    /// Both localities.
    pub const ALL: [Locality; 2] = [Locality::Remote, Locality::Local];

    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Locality::Remote => "remote",
            Locality::Local => "local",
        }
    }

    /// The locality of an end.
    pub(super) fn of(local: bool) -> Locality {
        if local { Locality::Local } else { Locality::Remote }
    }
}

/// Endpoint that closed first, by its locality.
pub const CLOSERS: [&str; 5] = ["local", "remote", "both", "none", "unknown"];
/// Role of the local endpoint in an open.
pub const ROLES: [&str; 2] = ["client", "server"];
/// Eviction class of a flow: finished flows are evicted first, then half-open ones, live ones never.
pub const FLOW_CLASSES: [&str; 3] = ["half_open", "live", "finished"];
/// Outcome of a deferred segment: applied in order, applied after a younger segment of its flow, or dropped
/// because the flow was gone or belonged to another hook.
pub const DEFERRED_OUTCOMES: [&str; 3] = ["in_order", "overtaken", "dropped"];
/// Address families.
pub const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// Counters that the agent maintains itself. Each connection counts once.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Connections with a local end that became ESTABLISHED, by [`ROLES`] and [`FAMILIES`].
    pub opened: [[u64; 2]; 2],
    /// SYNs that were sent again without an answer, once for each connection, by [`ROLES`].
    pub attempts_unanswered: [u64; 2],
    /// Closes of connections with a local end, by [`close_forms`] and [`CLOSERS`]. One that was taken back later is in `reopened`, too.
    pub closed: [[u64; 5]; CloseKind::ALL.len() + 1],
    /// Closes that were taken back, by [`ReopenReason`].
    pub reopened: [u64; ReopenReason::ALL.len()],
    /// RSTs that closed a connection or ended a TIME-WAIT, by [`ResetClass`] and origin ([`Locality`]).
    pub resets: [[u64; 2]; ResetClass::ALL.len()],
    /// TIME-WAITs that have ended, by [`TimeWaitEnding`] and [`Locality`] of the end.
    pub time_wait_ended: [[u64; 2]; TimeWaitEnding::ALL.len()],
    /// TIME-WAITs older than the agent, imported from their socket.
    pub time_wait_adopted: u64,
    /// Flows without a local end that became ESTABLISHED, by [`FAMILIES`].
    pub forwarded_opened: [u64; 2],
    /// Closes of flows without a local end, by [`close_forms`].
    pub forwarded_closed: [u64; CloseKind::ALL.len() + 1],
    /// Transitions that the agent made itself (timers, deferred segments): `[locality][from][to]`.
    pub transitions: [[[u64; State::COUNT]; State::COUNT]; 2],
    /// Events read from the rings.
    pub delivered: u64,
    /// Events that clients of the query socket were too slow to read.
    pub watch_events_lost: u64,
    /// Deferred segments by [`DEFERRED_OUTCOMES`].
    pub deferred: [u64; 3],
    /// Number of rescans of the table because events were lost.
    pub resyncs: u64,
    /// Checks against the kernel's sockets.
    pub audit_looks: u64,
    /// Endpoints closed because their socket was gone, by last known state.
    pub audit_repairs: [u64; State::COUNT],
    /// Connections older than the agent, imported from their socket.
    pub audit_adopted: u64,
    /// Time from the SYN to ESTABLISHED, in seconds.
    pub handshake: ConnectionHistogram,
    /// Time from the SYN to the end of the close without TIME-WAIT, in seconds.
    pub connection: ConnectionHistogram,
    /// Time from the first FIN or RST to the end of the close without TIME-WAIT, in seconds.
    pub close: ConnectionHistogram,
    /// Time in a state until it was left, in seconds, by [`Locality`] and state.
    pub state: [[Histogram; State::COUNT]; 2],
    /// Delay between a deadline and its expiry, in seconds.
    pub lateness: Histogram,
    /// Time for which a scan delayed events, in seconds.
    pub sweep_pause: Histogram,
}

impl Default for Totals {
    fn default() -> Totals {
        let seconds = |bounds: &[f64]| Histogram::new(bounds.iter().copied());
        let of_connections = |bounds: &[f64]| ConnectionHistogram::new(bounds.iter().copied());
        Totals {
            opened: [[0; 2]; 2],
            attempts_unanswered: [0; 2],
            closed: [[0; 5]; CloseKind::ALL.len() + 1],
            reopened: [0; ReopenReason::ALL.len()],
            resets: [[0; 2]; ResetClass::ALL.len()],
            time_wait_ended: [[0; 2]; TimeWaitEnding::ALL.len()],
            time_wait_adopted: 0,
            forwarded_opened: [0; 2],
            forwarded_closed: [0; CloseKind::ALL.len() + 1],
            transitions: [[[0; State::COUNT]; State::COUNT]; 2],
            delivered: 0,
            watch_events_lost: 0,
            deferred: [0; 3],
            resyncs: 0,
            audit_looks: 0,
            audit_repairs: [0; State::COUNT],
            audit_adopted: 0,
            handshake: of_connections(&[0.0001, 0.001, 0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0]),
            connection: of_connections(&[0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0]),
            close: of_connections(&[0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0]),
            state: array::from_fn(|_| array::from_fn(|_| seconds(&STATE_DURATIONS))),
            lateness: seconds(&[0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 30.0]),
            sweep_pause: seconds(&[0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.05]),
        }
    }
}

impl Totals {
    /// Results of checks against the kernel's sockets: endpoints closed by last known state, and connections
    /// imported.
    pub fn repairs(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let ended = State::ALL.into_iter().map(|state| (state.name(), self.audit_repairs[state as usize]));
        ended.chain([("adopted", self.audit_adopted)])
    }

    /// Counts a connection that became ESTABLISHED.
    pub fn count_open(&mut self, key: &FlowKey, flow: &Flow, exemplar: Exemplar) {
        let role = role(flow);
        let family = usize::from(key.family != 4);
        if is_forwarded(flow) {
            self.forwarded_opened[family] += 1;
        } else {
            self.opened[role][family] += 1;
        }
        if let Some(ns) = handshake_ns(flow) {
            exemplar.observe(&self.handshake, seconds(ns));
        }
    }

    /// Counts a connection whose SYN was sent again without an answer.
    pub fn count_attempt(&mut self, flow: &Flow) {
        self.attempts_unanswered[role(flow)] += 1;
    }

    /// Counts a closed incarnation.
    pub fn count_close(&mut self, flow: &Flow, reset: Option<KnownReset>, exemplar: Exemplar) {
        let kind = flow.close_kind();
        let closer = match flow.closer() {
            Closer::One(end) if flow.is_local(end) => 0,
            Closer::One(_) => 1,
            Closer::Both => 2,
            Closer::None if kind == CloseKind::Timeout || kind == CloseKind::Superseded => 4,
            Closer::None => 3,
        };
        let form = form_index(flow.close_kind_seen());
        if is_forwarded(flow) {
            self.forwarded_closed[form] += 1;
        } else {
            self.closed[form][closer] += 1;
        }
        self.count_reset(flow, reset);
        if let Some(closing_ns) = flow.closing_seen_ns() {
            let ended_ns = flow.last_ns();
            exemplar.observe(&self.close, seconds(ended_ns.saturating_sub(closing_ns)));
            if flow.was_established() {
                exemplar.observe(&self.connection, seconds(ended_ns.saturating_sub(flow.opened_ns())));
            }
        }
    }

    /// Counts the RST or ICMP error that ended the connection or its TIME-WAIT, if one did. An ICMP error counts for the
    /// end that did not open.
    pub fn count_reset(&mut self, flow: &Flow, reset: Option<KnownReset>) {
        let Some(KnownReset { class, sender, .. }) = reset.filter(|reset| reset.class != ResetClass::Refuted)
        else {
            return;
        };
        let origin = match (sender, flow.initiator()) {
            (Some(sender), _) => Locality::of(flow.is_local(sender)),
            (None, Initiator::One(opener)) => Locality::of(flow.is_local(opener.peer())),
            (None, Initiator::Both | Initiator::Unknown) => Locality::Remote,
        };
        self.resets[class as usize][origin as usize] += 1;
    }

    /// Counts the time that an endpoint was in a state, in ns.
    pub fn observe_state_duration(&self, local: bool, state: State, ns: u64) {
        self.state[Locality::of(local) as usize][state as usize].observe(seconds(ns));
    }

    /// Counts the transitions of an outcome that the agent caused.
    pub fn count_outcome(&mut self, flow: &Flow, outcome: &Outcome) {
        for end in [End::A, End::B] {
            let (from, to) = (outcome.from[end as usize], outcome.to[end as usize]);
            if from != to {
                self.transitions[Locality::of(flow.is_local(end)) as usize][from as usize][to as usize] += 1;
            }
        }
    }
}

/// Whether neither end of a flow is local.
fn is_forwarded(flow: &Flow) -> bool {
    !flow.is_local(End::A) && !flow.is_local(End::B)
}

/// Index of the local endpoint's role in [`ROLES`].
fn role(flow: &Flow) -> usize {
    let local_client = matches!(flow.initiator(), Initiator::One(end) if flow.is_local(end));
    usize::from(!local_client)
}

/// Names of the close kinds, followed by the name of closes before the start of the agent.
pub fn close_forms() -> [&'static str; CloseKind::ALL.len() + 1] {
    array::from_fn(|form| CloseKind::ALL.get(form).map_or(UNSEEN, |kind| kind.name()))
}

/// Index of a close kind in [`close_forms`]; `None` is a close before the start of the agent.
pub fn form_index(kind: Option<CloseKind>) -> usize {
    let index = |kind| CloseKind::ALL.iter().position(|&known| known == kind);
    kind.and_then(index).unwrap_or(CloseKind::ALL.len())
}

/// All counters and gauges at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counters of the kernel programs.
    pub counters: Counters,
    /// Counters of the agent.
    pub totals: Totals,
    /// The agent's own connections, by [`OwnKind`](super::own::OwnKind).
    pub own: [u64; OWN_KINDS.len()],
    /// What became of closed connections on disk.
    pub disk: DiskCounts,
    /// Endpoints by [`Locality`] and state, without closed connections.
    pub endpoints: [[u64; State::COUNT]; 2],
    /// Flows in the table by [`FAMILIES`] and [`FLOW_CLASSES`].
    pub table_used: [[u64; 3]; 2],
    /// Guaranteed capacity of the flow table, by [`FAMILIES`].
    pub table_capacity: [u64; 2],
    /// TIME-WAITs that this host's kernel did not keep; `None` if it does not say.
    pub host_time_wait_overflows: Option<u64>,
    /// Run counts and times of the kernel programs.
    pub programs: Vec<ProgramRuns>,
    /// Local ports.
    pub ports: PortGauges,
}

impl Snapshot {
    /// Segments that the kernel programs counted under a cause.
    pub fn segments_of(&self, cause: Cause) -> u64 {
        self.counters.packets_by_cause(cause)
    }

    /// Transitions that the kernel programs and the agent counted.
    pub fn transitions(&self, side: Locality, from: State, to: State) -> u64 {
        let (side, from, to) = (side as usize, from as usize, to as usize);
        self.counters.transitions[side][from][to] + self.totals.transitions[side][from][to]
    }

    /// TIME-WAITs that began at ends of this side, or were imported from their socket. An end comes back to its TIME-WAIT from SYN-SENT
    /// if the SYN was not its own (R14).
    pub fn time_waits(&self, side: Locality) -> u64 {
        let from = State::ALL.into_iter().filter(|&from| from != State::SynSent);
        let entered: u64 = from.map(|from| self.transitions(side, from, State::TimeWait)).sum();
        // Sockets are those of this host.
        entered + if side == Locality::Local { self.totals.time_wait_adopted } else { 0 }
    }
}

/// Bounds of the histograms of time in a state, in seconds.
const STATE_DURATIONS: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 10.0, 59.0, 61.0, 600.0, 86_400.0];

/// Converts ns to seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tcp_common::flow::SocketReport;

    use super::*;
    use crate::view::ConnectionId;

    #[test]
    fn a_close_before_the_start_counts_as_unseen() {
        let told =
            SocketReport { state: State::TimeWait, last_ns: 2_000, time_wait_at_ns: 2_000, wscale: None };
        let flow = Flow::adopted(3_000, End::A, &told).expect("a flow");
        let mut totals = Totals::default();
        let exemplar = Exemplar { id: ConnectionId::NONE, at: Timestamp::UNIX_EPOCH };
        totals.count_close(&flow, None, exemplar);
        let unseen = totals.closed[form_index(None)];
        assert_eq!(close_forms()[form_index(None)], UNSEEN);
        assert_eq!(
            (unseen, unseen.iter().sum()),
            ([1, 0, 0, 0, 0], totals.closed.iter().flatten().sum::<u64>())
        );
    }

    #[test]
    fn every_kind_has_its_name_among_the_forms() {
        for kind in CloseKind::ALL {
            assert_eq!(close_forms()[form_index(Some(kind))], kind.name());
        }
    }
}
