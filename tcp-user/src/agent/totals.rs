//! What the agent has counted, and the snapshot that the exporter and `finwait stats` read.

use std::array;

use prometheus_client::metrics::histogram::Histogram;
use serde::{Deserialize, Serialize};
use tcp_common::flow::{Closer, Initiator};
use tcp_common::record::Counters;
use tcp_common::{Cause, CloseKind, End, Flow, FlowKey, Outcome, State};

use crate::kernel::ProgramRuns;
use crate::view::UNSEEN;
use crate::view::describe::handshake_ns;

/// Where an end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of the design")]
pub enum Locality {
    Remote = 0,
    Local = 1,
}

impl Locality {
    /// Both.
    pub const ALL: [Locality; 2] = [Locality::Remote, Locality::Local];

    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Locality::Remote => "remote",
            Locality::Local => "local",
        }
    }

    /// The place of an end.
    pub(super) fn of(local: bool) -> Locality {
        if local { Locality::Local } else { Locality::Remote }
    }
}

/// Who closed first, seen from this host.
pub const CLOSERS: [&str; 5] = ["local", "remote", "both", "none", "unknown"];
/// Why an accepted RST was sent.
pub const RESET_REASONS: [&str; 5] = ["refused", "abort", "after_fin", "state_lost", "syn_abort"];
/// The role of the local end in an open.
pub const ROLES: [&str; 2] = ["client", "server"];
/// What a flow is when space is short: the first must make room before the last, the second never.
pub const FLOW_CLASSES: [&str; 3] = ["half_open", "live", "finished"];
/// What became of a deferred segment: it was applied before any younger one of its flow, or after, or its flow was gone or
/// another hook's.
pub const DEFERRED_OUTCOMES: [&str; 3] = ["in_order", "overtaken", "dropped"];
/// Address families.
pub const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// Everything the agent counts itself: per connection, once.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Connections that became ESTABLISHED, by [`ROLES`] and [`FAMILIES`]. Forwarded ones count as server.
    pub opened: [[u64; 2]; 2],
    /// Connections that are over, by [`close_forms`] and [`CLOSERS`].
    pub closed: [[u64; 5]; CloseKind::ALL.len() + 1],
    /// RSTs that closed a connection, by [`RESET_REASONS`] and origin ([`Locality`]).
    pub resets: [[u64; 2]; 5],
    /// TIME-WAITs that ran out.
    pub time_wait_expired: u64,
    /// Transitions that the agent made itself (clock, deferred segments): `[place][from][to]`.
    pub transitions: [[[u64; State::COUNT]; State::COUNT]; 2],
    /// Events taken from the ring.
    pub delivered: u64,
    /// Deferred segments by [`DEFERRED_OUTCOMES`].
    pub deferred: [u64; 3],
    /// Times the table was reread because events were lost.
    pub resyncs: u64,
    /// Looks at the kernel's sockets.
    pub audit_looks: u64,
    /// Ends whose socket was gone without a segment, by the state they were in.
    pub audit_repairs: [u64; State::COUNT],
    /// Connections older than the agent, known from their socket.
    pub audit_adopted: u64,
    /// SYN to ESTABLISHED, seconds.
    pub handshake: Histogram,
    /// SYN to the end of the close, TIME-WAIT left out, seconds.
    pub connection: Histogram,
    /// First FIN or RST to the end of the close, seconds.
    pub close: Histogram,
    /// Time in a state that was left, seconds, by [`Locality`] and state.
    pub state: [[Histogram; State::COUNT]; 2],
    /// How late the clock ended something, seconds.
    pub lateness: Histogram,
    /// How long a turn of the sweep kept events waiting, seconds.
    pub sweep_pause: Histogram,
}

impl Default for Totals {
    fn default() -> Totals {
        let seconds = |bounds: &[f64]| Histogram::new(bounds.iter().copied());
        Totals {
            opened: [[0; 2]; 2],
            closed: [[0; 5]; CloseKind::ALL.len() + 1],
            resets: [[0; 2]; 5],
            time_wait_expired: 0,
            transitions: [[[0; State::COUNT]; State::COUNT]; 2],
            delivered: 0,
            deferred: [0; 3],
            resyncs: 0,
            audit_looks: 0,
            audit_repairs: [0; State::COUNT],
            audit_adopted: 0,
            handshake: seconds(&[0.0001, 0.001, 0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0]),
            connection: seconds(&[0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0]),
            close: seconds(&[0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0]),
            state: array::from_fn(|_| array::from_fn(|_| seconds(&STAYS))),
            lateness: seconds(&[0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 30.0]),
            sweep_pause: seconds(&[0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.05]),
        }
    }
}

impl Totals {
    /// What looks at the kernel's sockets have set right: ends whose socket was gone, by the state they were in, and
    /// connections older than the agent.
    pub fn repairs(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let ended = State::ALL.into_iter().map(|state| (state.name(), self.audit_repairs[state as usize]));
        ended.chain([("adopted", self.audit_adopted)])
    }

    /// Counts a connection that became ESTABLISHED.
    pub fn count_open(&mut self, key: &FlowKey, flow: &Flow) {
        let local_client = matches!(flow.initiator(), Initiator::One(end) if flow.is_local(end));
        let role = usize::from(!local_client);
        let family = usize::from(key.family != 4);
        self.opened[role][family] += 1;
        if let Some(ns) = handshake_ns(flow) {
            self.handshake.observe(seconds(ns));
        }
    }

    /// Counts an incarnation that is over.
    pub fn count_close(&mut self, flow: &Flow) {
        let kind = flow.close_kind();
        let closer = match flow.closer() {
            Closer::One(end) if flow.is_local(end) => 0,
            Closer::One(_) => 1,
            Closer::Both => 2,
            Closer::None if kind == CloseKind::Timeout || kind == CloseKind::Superseded => 4,
            Closer::None => 3,
        };
        self.closed[form_index(flow.close_kind_seen())][closer] += 1;
        if let Some(aborter) = flow.aborter() {
            let reason = match kind {
                CloseKind::Refused => 0,
                CloseKind::RstAfterFin => 2,
                CloseKind::SynAbort => 4,
                _ if flow.state_lost() => 3,
                _ => 1,
            };
            self.resets[reason][Locality::of(flow.is_local(aborter)) as usize] += 1;
        }
        if let Some(closing_ns) = flow.closing_seen_ns() {
            let ended_ns = flow.last_ns();
            self.close.observe(seconds(ended_ns.saturating_sub(closing_ns)));
            if flow.was_established() {
                self.connection.observe(seconds(ended_ns.saturating_sub(flow.opened_ns())));
            }
        }
    }

    /// Counts how long an end was in a state.
    pub fn observe_state_duration(&self, local: bool, state: State, ns: u64) {
        self.state[Locality::of(local) as usize][state as usize].observe(seconds(ns));
    }

    /// Counts what the agent made of a flow.
    pub fn count_outcome(&mut self, flow: &Flow, outcome: &Outcome) {
        for end in [End::A, End::B] {
            let (from, to) = (outcome.from[end as usize], outcome.to[end as usize]);
            self.count_transition(flow.is_local(end), from, to);
            let expired = from == State::TimeWait && to == State::Closed;
            self.time_wait_expired += u64::from(expired && outcome.cause == Cause::TimeWaitExpired);
        }
    }

    /// Counts a transition that the agent made.
    pub fn count_transition(&mut self, local: bool, from: State, to: State) {
        if from != to {
            self.transitions[Locality::of(local) as usize][from as usize][to as usize] += 1;
        }
    }
}

/// In which forms connections are closed: the kinds, and the one that passed before it could be seen.
pub fn close_forms() -> [&'static str; CloseKind::ALL.len() + 1] {
    array::from_fn(|form| CloseKind::ALL.get(form).map_or(UNSEEN, |kind| kind.name()))
}

/// Index of a kind in [`close_forms`]; `None`: it was not seen.
pub fn form_index(kind: Option<CloseKind>) -> usize {
    let index = |kind| CloseKind::ALL.iter().position(|&known| known == kind);
    kind.and_then(index).unwrap_or(CloseKind::ALL.len())
}

/// Everything that can be told at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The kernel programs' counters.
    pub counters: Counters,
    /// The agent's.
    pub totals: Totals,
    /// Ends by [`Locality`] and state, connections that are over left out.
    pub endpoints: [[u64; State::COUNT]; 2],
    /// Flows in the table by [`FAMILIES`] and [`FLOW_CLASSES`].
    pub table_used: [[u64; 3]; 2],
    /// Flows that always find a place, by [`FAMILIES`].
    pub table_capacity: [u64; 2],
    /// What the kernel says of each program's runs.
    pub programs: Vec<ProgramRuns>,
}

impl Snapshot {
    /// Causes of RSTs that belong to a connection and were not accepted (RFC 9293 3.10.7.4, RFC 5961, RFC 1337).
    pub const IGNORED_RSTS: [Cause; 4] =
        [Cause::RstSynSent, Cause::RstInexact, Cause::RstOutOfWindow, Cause::RstRfc1337];

    /// Segments that the kernel programs counted under a cause.
    pub fn segments_of(&self, cause: Cause) -> u64 {
        self.counters.packets_by_cause(cause)
    }

    /// Flows in the table by [`FLOW_CLASSES`].
    pub fn table_classes(&self) -> [u64; 3] {
        let [v4, v6] = self.table_used;
        array::from_fn(|class| v4[class] + v6[class])
    }

    /// RSTs that belong to a connection and were not accepted.
    pub fn ignored_rsts(&self) -> u64 {
        Snapshot::IGNORED_RSTS.map(|cause| self.segments_of(cause)).iter().sum()
    }

    /// Accepted RSTs by reason and by the side that sent them ([`Locality`]): those that closed a connection, counted by
    /// the agent, and those in TIME-WAIT, counted by the kernel programs.
    pub fn resets(&self) -> [(&'static str, [u64; 2]); RESET_REASONS.len() + 1] {
        let assassinations = [self.assassinated(Locality::Local), self.assassinated(Locality::Remote)];
        array::from_fn(|index| match RESET_REASONS.get(index) {
            Some(&reason) => (reason, self.totals.resets[index]),
            None => ("time_wait_assassination", assassinations),
        })
    }

    /// TIME-WAITs of this side that a segment ended. The agent's scan ends those that expire; a TIME-WAIT whose next
    /// segment arrives between its deadline and the scan is counted here.
    pub fn assassinated(&self, side: Locality) -> u64 {
        self.counters.transitions[side as usize][State::TimeWait as usize][State::Closed as usize]
    }

    /// Transitions of kernel and agent together.
    pub fn transitions(&self, place: Locality, from: State, to: State) -> u64 {
        let (place, from, to) = (place as usize, from as usize, to as usize);
        self.counters.transitions[place][from][to] + self.totals.transitions[place][from][to]
    }

    /// How often an end entered a state.
    pub fn entered(&self, state: State) -> u64 {
        let pairs = Locality::ALL.iter().flat_map(|&place| State::ALL.iter().map(move |&from| (place, from)));
        pairs.map(|(place, from)| self.transitions(place, from, state)).sum()
    }
}

/// From a state that a segment ends at once to those that are left only after hours.
const STAYS: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 10.0, 59.0, 61.0, 600.0, 86_400.0];

/// Nanoseconds as Prometheus wants them.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use tcp_common::flow::SocketReport;

    use super::*;

    #[test]
    fn a_close_that_nobody_saw_is_counted_as_that() {
        let told = SocketReport { state: State::TimeWait, time_wait_at_ns: 2_000, wscale: None };
        let flow = Flow::adopted(3_000, End::A, &told).expect("a flow");
        let mut totals = Totals::default();
        totals.count_close(&flow);
        let unseen = totals.closed[form_index(None)];
        assert_eq!(close_forms()[form_index(None)], UNSEEN);
        assert_eq!(
            (unseen, unseen.iter().sum()),
            ([1, 0, 0, 0, 0], totals.closed.iter().flatten().sum::<u64>())
        );
    }

    #[test]
    fn every_kind_has_a_form_of_its_name() {
        for kind in CloseKind::ALL {
            assert_eq!(close_forms()[form_index(Some(kind))], kind.name());
        }
    }
}
