//! The families: one table declares them all.

use tcp_common::record::segment_kind;
use tcp_common::{Cause, CloseKind, Ignored, State};

use super::{Data, Family, Samples};
use crate::agent::tally::{
    CLOSERS, DEFERRED_OUTCOMES, FAMILIES, FLOW_CLASSES, Place, RESET_REASONS, ROLES, Snapshot, close_forms,
};
use crate::kernel::ProgramRuns;

/// Every family: the contract with dashboards and alerts.
pub(super) const TABLE: &[Family] = &[
    Family {
        name: "endpoints",
        help: "Ends of connections by the side they are on and the RFC 9293 state they are in",
        labels: &["side", "state"],
        data: Data::Gauge(|snapshot| {
            each(Place::ALL, State::ALL, |place, state| {
                (vec![place.name(), state.name()], snapshot.endpoints[place as usize][state as usize])
            })
        }),
    },
    Family {
        name: "transitions",
        help: "Changes of an end's state; edges of the RFC 9293 diagram are present from the start, others once seen",
        labels: &["side", "from", "to"],
        data: Data::Counter(transitions),
    },
    Family {
        name: "connections_opened",
        help: "Connections whose two ends became ESTABLISHED, by the role of the local end",
        labels: &["role", "family"],
        data: Data::Counter(|snapshot| table(ROLES, FAMILIES, &snapshot.tally.opened)),
    },
    Family {
        name: "connections_closed",
        help: "Connections that are over, by how they were closed and who closed first",
        labels: &["kind", "closer"],
        data: Data::Counter(|snapshot| {
            let mut samples = table(close_forms(), CLOSERS, &snapshot.tally.closed);
            // What is open is not closed.
            samples.retain(|(labels, _)| labels[0] != CloseKind::Open.name());
            samples
        }),
    },
    Family {
        name: "resets",
        help: "RSTs that ended something by reason and origin; blind ones were not believed, their origin counts as remote",
        labels: &["reason", "origin"],
        data: Data::Counter(resets),
    },
    Family {
        name: "time_wait_events",
        help: "What happened to TIME-WAITs; reuse_refused and old_duplicate count such SYNs in every state",
        labels: &["event"],
        data: Data::Counter(time_wait_events),
    },
    Family {
        name: "handshake",
        help: "Time from the SYN until both ends were ESTABLISHED",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.tally.handshake)]),
    },
    Family {
        name: "connection",
        help: "Time from the SYN to the end of the close, TIME-WAIT left out",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.tally.connection)]),
    },
    Family {
        name: "close",
        help: "Time from the first FIN or RST to the end of the close, TIME-WAIT left out",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.tally.close)]),
    },
    Family {
        name: "state",
        help: "Time in states that were left, by the side and the state",
        labels: &["side", "state"],
        data: Data::Seconds(|snapshot| {
            let left = State::ALL.into_iter().filter(|state| ![State::Closed, State::Listen].contains(state));
            Place::ALL
                .into_iter()
                .flat_map(|place| left.clone().map(move |state| (place, state)))
                .map(|(place, state)| {
                    (vec![place.name(), state.name()], &snapshot.tally.state[place as usize][state as usize])
                })
                .collect()
        }),
    },
    Family {
        name: "expiry_lateness",
        help: "How long after its deadline the agent ended what time alone ends",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.tally.lateness)]),
    },
    Family {
        name: "sweep_pause",
        help: "How long a turn of the agent's sweep through the table kept events waiting",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.tally.sweep_pause)]),
    },
    Family {
        name: "segments",
        help: "Segments given to a connection; a packet that offload made of several counts as several",
        labels: &["direction", "kind"],
        data: Data::Counter(|snapshot| table(DIRECTIONS, segment_kind::NAMES, &snapshot.counters.segments)),
    },
    Family {
        name: "segments_unmoved",
        help: "Segments that belong to a connection and moved nothing, by cause",
        labels: &["cause"],
        data: Data::Counter(|snapshot| {
            let causes = (Cause::BadFlags as u8..=u8::MAX).filter_map(Cause::from_u8);
            causes.map(|cause| (vec![cause.name()], count_of(snapshot, &[cause]))).collect()
        }),
    },
    Family {
        name: "retransmitted",
        help: "Segments of handshake and close that came again",
        labels: &["kind"],
        data: Data::Counter(|snapshot| {
            let kinds = [("syn", Cause::SynAgain), ("syn_ack", Cause::SynAckAgain), ("fin", Cause::FinAgain)];
            kinds.map(|(kind, cause)| (vec![kind], count_of(snapshot, &[cause]))).into()
        }),
    },
    Family {
        name: "packets",
        help: "Packets that the kernel programs saw: the tracked and the ignored",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.seen)),
    },
    Family {
        name: "packets_tracked",
        help: "Packets whose segment was given to a connection",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.tracked)),
    },
    Family {
        name: "packets_ignored",
        help: "Packets that were given to no connection, by reason",
        labels: &["reason"],
        data: Data::Counter(|snapshot| list(Ignored::ALL.map(Ignored::name), &snapshot.counters.ignored)),
    },
    Family {
        name: "events_delivered",
        help: "Events that the agent took from the ring",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.tally.delivered)),
    },
    Family {
        name: "events_lost",
        help: "Events that found the ring full",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.events_lost)),
    },
    Family {
        name: "resyncs",
        help: "Times the agent read the whole flow table again because events were lost",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.tally.resyncs)),
    },
    Family {
        name: "audit_looks",
        help: "Times the agent compared its connections with the kernel's sockets",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.tally.audit_looks)),
    },
    Family {
        name: "audit_repairs",
        help: "Local ends that had no socket any more though no segment told, by the state they were taken for; adopted: connections older than the agent, known from their socket",
        labels: &["what"],
        data: Data::Counter(|snapshot| {
            snapshot.tally.repairs().map(|(what, count)| (vec![what], count)).collect()
        }),
    },
    Family {
        name: "deferred_segments",
        help: "Segments handed to the agent because their connection was busy on another CPU",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.deferred)),
    },
    Family {
        name: "deferred_outcomes",
        help: "Deferred segments by what became of them: applied in order, or after a younger one, or without a connection",
        labels: &["outcome"],
        data: Data::Counter(|snapshot| list(DEFERRED_OUTCOMES, &snapshot.tally.deferred)),
    },
    Family {
        name: "claims_yielded",
        help: "Places given up because another CPU opened or ended a connection with the same home at the same time",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.claims_yielded)),
    },
    Family {
        name: "flows_evicted",
        help: "Connections forgotten to make room for others, by what they were",
        labels: &["reason"],
        data: Data::Counter(|snapshot| list(EVICTIONS, &snapshot.counters.evicted)),
    },
    Family {
        name: "flow_table_entries",
        help: "Connections in the flow table",
        labels: &["table"],
        data: Data::Gauge(|snapshot| {
            list(FAMILIES, &snapshot.table_used.map(|classes| classes.iter().sum()))
        }),
    },
    Family {
        name: "flow_table_capacity",
        help: "Connections that all find a place in the flow table; it takes more while there is one in reach",
        labels: &["table"],
        data: Data::Gauge(|snapshot| list(FAMILIES, &snapshot.table_capacity)),
    },
    Family {
        name: "flow_table_flows",
        help: "Connections in the flow table; where space is short half-open ones make room first, live ones never",
        labels: &["class"],
        data: Data::Gauge(|snapshot| list(FLOW_CLASSES, &snapshot.table_classes())),
    },
    Family {
        name: "program_runs",
        help: "Runs of the kernel programs, counted while the sysctl kernel.bpf_stats_enabled is 1",
        labels: &["program"],
        data: Data::Counter(|snapshot| {
            snapshot.programs.iter().map(|program| (vec![program.program], program.runs)).collect()
        }),
    },
    Family {
        name: "program_run",
        help: "Time that these runs took",
        labels: &["program"],
        data: Data::Elapsed(|snapshot| {
            let ns = |program: &ProgramRuns| u64::try_from(program.duration.as_nanos()).unwrap_or(u64::MAX);
            snapshot.programs.iter().map(|program| (vec![program.program], ns(program))).collect()
        }),
    },
    Family {
        name: "build",
        help: "The running agent",
        labels: &["version"],
        data: Data::Info(&[env!("CARGO_PKG_VERSION")]),
    },
];

/// Directions, in the order of `Counters::segments`.
const DIRECTIONS: [&str; 2] = ["ingress", "egress"];
/// Reasons of eviction, in the order of `Counters::evicted`.
const EVICTIONS: [&str; 3] = ["over", "half_open", "time_wait"];

/// The edges of RFC 9293 3.3.2, figure 5, without those to CLOSED: a RST or the clock leads there from every state.
const EDGES: [(State, State); 17] = {
    use State::*;
    [
        (Closed, Listen),
        (Closed, SynSent),
        (Listen, SynSent),
        (Listen, SynReceived),
        (SynSent, SynReceived),
        (SynSent, Established),
        (SynReceived, Listen),
        (SynReceived, Established),
        (SynReceived, FinWait1),
        (Established, FinWait1),
        (Established, CloseWait),
        (FinWait1, FinWait2),
        (FinWait1, Closing),
        (FinWait1, TimeWait),
        (FinWait2, TimeWait),
        (Closing, TimeWait),
        (CloseWait, LastAck),
    ]
};

/// The edges of the RFC, also at 0, so that the first of them is an increase that `rate` sees. An observer that missed
/// segments sees others too: they join once they were seen, and eleven states leave room for 110 a side at most.
fn transitions(snapshot: &Snapshot) -> Samples {
    let mut samples = Samples::new();
    for place in Place::ALL {
        for (from, to) in State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to))) {
            let count = snapshot.transitions(place, from, to);
            let expected = to == State::Closed || EDGES.contains(&(from, to));
            if from != to && (expected || count > 0) {
                samples.push((vec![place.name(), from.name(), to.name()], count));
            }
        }
    }
    samples
}

/// The agent's count of closes by RST, and what only the kernel programs see.
fn resets(snapshot: &Snapshot) -> Samples {
    each(RESET_REASONS, Place::ALL, |reason, origin| {
        let index = RESET_REASONS.iter().position(|&known| known == reason);
        let closes = index.map_or(0, |index| snapshot.tally.resets[index][origin as usize]);
        let seen_in_kernel = match (reason, origin) {
            ("time_wait_assassination", Place::Remote) => assassinated(snapshot, Place::Local),
            ("time_wait_assassination", Place::Local) => assassinated(snapshot, Place::Remote),
            ("blind", Place::Remote) => count_of(
                snapshot,
                &[Cause::RstSynSent, Cause::RstInexact, Cause::RstOutOfWindow, Cause::RstRfc1337],
            ),
            _ => 0,
        };
        (vec![reason, origin.name()], closes + seen_in_kernel)
    })
}

fn time_wait_events(snapshot: &Snapshot) -> Samples {
    [
        ("entered", snapshot.entered(State::TimeWait)),
        ("expired", snapshot.tally.time_wait_expired),
        ("restarted", snapshot.counters.time_wait_restarted),
        ("reused", count_of(snapshot, &[Cause::Reuse])),
        ("reuse_refused", count_of(snapshot, &[Cause::PendingSyn])),
        ("old_duplicate", count_of(snapshot, &[Cause::OldDupSyn])),
        ("assassinated", Place::ALL.iter().map(|&place| assassinated(snapshot, place)).sum()),
    ]
    .map(|(event, count)| (vec![event], count))
    .into()
}

/// TIME-WAITs of this side that a segment ended. The agent's sweep ends those that run out; one whose next segment comes
/// between its deadline and the sweep is counted here.
fn assassinated(snapshot: &Snapshot, place: Place) -> u64 {
    snapshot.counters.transitions[place as usize][State::TimeWait as usize][State::Closed as usize]
}

/// Sum of the kernel programs' counts of these causes.
fn count_of(snapshot: &Snapshot, causes: &[Cause]) -> u64 {
    causes.iter().map(|&cause| snapshot.counters.causes[cause as usize]).sum()
}

fn one(count: u64) -> Samples {
    vec![(Vec::new(), count)]
}

fn list<const N: usize>(names: [&'static str; N], counts: &[u64; N]) -> Samples {
    names.into_iter().zip(counts).map(|(name, &count)| (vec![name], count)).collect()
}

fn table<const N: usize, const M: usize>(
    rows: [&'static str; N],
    columns: [&'static str; M],
    counts: &[[u64; M]; N],
) -> Samples {
    let row = |(name, counts)| {
        list(columns, counts).into_iter().map(move |(column, count)| ([vec![name], column].concat(), count))
    };
    rows.into_iter().zip(counts).flat_map(row).collect()
}

fn each<A: Copy, B: Copy, const N: usize, const M: usize>(
    rows: [A; N],
    columns: [B; M],
    sample: impl Fn(A, B) -> (Vec<&'static str>, u64),
) -> Samples {
    let pairs = rows.into_iter().flat_map(|row| columns.map(|column| (row, column)));
    pairs.map(|(row, column)| sample(row, column)).collect()
}
