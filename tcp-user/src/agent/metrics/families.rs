//! The table that declares every family.

use tcp_common::record::{TimeWaitVisit, segment_kind};
use tcp_common::{Cause, CloseKind, Ignored, State};

use super::{Data, Family, Samples};
use crate::agent::history::DISK_OUTCOMES;
use crate::agent::own::OWN_KINDS;
use crate::agent::totals::{
    CLOSERS, DEFERRED_OUTCOMES, FAMILIES, FLOW_CLASSES, Locality, ROLES, Snapshot, close_forms,
};
use crate::kernel::ProgramRuns;
use crate::view::{ReopenReason, ResetClass, TimeWaitEnding};

/// Every family. Dashboards and alerts depend on names, labels and label values: none is renamed or removed.
pub(super) const TABLE: &[Family] = &[
    Family {
        name: "endpoints",
        help: "Endpoints of tracked connections by side (local or remote) and RFC 9293 state. listen counts those that have not answered a SYN.",
        labels: &["side", "state"],
        data: Data::Gauge(|snapshot| {
            each(Locality::ALL, State::ALL, |place, state| {
                (vec![place.name(), state.name()], snapshot.endpoints[place as usize][state as usize])
            })
        }),
    },
    Family {
        name: "transitions",
        help: "State transitions of endpoints. Those of the RFC 9293 diagram are exported from the start, others once they occur.",
        labels: &["side", "from", "to"],
        data: Data::Counter(transitions),
    },
    Family {
        name: "connections_opened",
        help: "Connections with a local endpoint that reached ESTABLISHED at both ends, by its role. Scrapes of these metrics are not counted.",
        labels: &["role", "family"],
        data: Data::Counter(|snapshot| table(ROLES, FAMILIES, &snapshot.totals.opened)),
    },
    Family {
        name: "own_connections",
        help: "The agent's own connections: accepted on its query socket and at the address of its metrics. The counters of opened and closed connections leave them out.",
        labels: &["kind"],
        data: Data::Counter(|snapshot| list(OWN_KINDS, &snapshot.own)),
    },
    Family {
        name: "connection_attempts_unanswered",
        help: "Connections whose SYN was sent again because nothing had answered it, by role of the local endpoint. Forwarded connections count as server.",
        labels: &["role"],
        data: Data::Counter(|snapshot| list(ROLES, &snapshot.totals.attempts_unanswered)),
    },
    Family {
        name: "connections_closed",
        help: "Closes of connections with a local endpoint, by close kind and by the side that closed first, counted when both ends are done: in TIME-WAIT or CLOSED. Those that were taken back later are in connections_reopened too, so the difference of both is the number of connections that are closed.",
        labels: &["kind", "closer"],
        data: Data::Counter(|snapshot| {
            let mut samples = table(close_forms(), CLOSERS, &snapshot.totals.closed);
            // An open connection is not closed.
            samples.retain(|(labels, _)| labels[0] != CloseKind::Open.name());
            samples
        }),
    },
    Family {
        name: "connections_reopened",
        help: "Closes that were taken back because the receiver of the RST had ignored it, by what shows it.",
        labels: &["reason"],
        data: Data::Counter(|snapshot| {
            let count =
                |&reason: &ReopenReason| (vec![reason.name()], snapshot.totals.reopened[reason as usize]);
            ReopenReason::ALL.iter().map(count).collect()
        }),
    },
    Family {
        name: "forwarded_connections_opened",
        help: "Connections without a local endpoint that reached ESTABLISHED at both ends. A connection that this host translates (NAT) has two legs, and each leg that passes a watched interface counts.",
        labels: &["family"],
        data: Data::Counter(|snapshot| list(FAMILIES, &snapshot.totals.forwarded_opened)),
    },
    Family {
        name: "forwarded_connections_closed",
        help: "Closed connections without a local endpoint, by close kind. Legs count as in finwait_forwarded_connections_opened_total.",
        labels: &["kind"],
        data: Data::Counter(|snapshot| {
            let mut samples = list(close_forms(), &snapshot.totals.forwarded_closed);
            samples.retain(|(labels, _)| labels[0] != CloseKind::Open.name());
            samples
        }),
    },
    Family {
        name: "resets",
        help: "RSTs that ended a connection or a TIME-WAIT, and ICMP errors that refused one, by reason and by the side that sent them. A reason with _or_ is one of the two: segments do not show which. RSTs that were refuted later are in connections_reopened too.",
        labels: &["reason", "origin"],
        data: Data::Counter(|snapshot| {
            let origins = Locality::ALL.map(Locality::name);
            let row = |&class: &ResetClass| {
                table([class.name()], origins, &[snapshot.totals.resets[class as usize]])
            };
            // What was refuted is in connections_reopened.
            ResetClass::ALL.iter().filter(|&&class| class != ResetClass::Refuted).flat_map(row).collect()
        }),
    },
    Family {
        name: "rsts_ignored",
        help: "RSTs that were not accepted because of their sequence number, the connection's state or RFC 1337, by cause.",
        labels: &["cause"],
        data: Data::Counter(|snapshot| by_cause(snapshot, &Cause::IGNORED_RSTS)),
    },
    Family {
        name: "time_wait_events",
        help: "TIME-WAITs by the side that is in them: those that began (entered, imported ones included), how they ended (expired, reused, assassinated, state_lost, socket_gone, evicted), and what segments did in them. restarted: the last ACK was lost. old_duplicate: a late segment was swallowed. SYNs began the next connection (reused_by_sequence, reused_by_timestamp, reused_by_holder) or were not accepted at once (reuse_refused).",
        labels: &["event", "holder"],
        data: Data::Counter(time_wait_events),
    },
    Family {
        name: "host_time_wait_overflows",
        help: "TIME-WAITs that the kernel of the agent's network namespace did not keep, because there were tcp_max_tw_buckets of them: TCPTimeWaitOverflow of /proc/net/netstat, since the namespace exists.",
        labels: &[],
        data: Data::Counter(|snapshot| snapshot.host_time_wait_overflows.map(one).unwrap_or_default()),
    },
    Family {
        name: "handshake_duration",
        help: "Time from the first SYN until both endpoints were ESTABLISHED.",
        labels: &[],
        data: Data::ConnectionSeconds(|snapshot| &snapshot.totals.handshake),
    },
    Family {
        name: "connection_duration",
        help: "Time from the first SYN to the end of the close, without TIME-WAIT.",
        labels: &[],
        data: Data::ConnectionSeconds(|snapshot| &snapshot.totals.connection),
    },
    Family {
        name: "close_duration",
        help: "Time from the first FIN or RST to the end of the close, without TIME-WAIT.",
        labels: &[],
        data: Data::ConnectionSeconds(|snapshot| &snapshot.totals.close),
    },
    Family {
        name: "state_duration",
        help: "Time that endpoints spent in a state, by side. Observed when the state is left.",
        labels: &["side", "state"],
        data: Data::Seconds(|snapshot| {
            let left = State::ALL.into_iter().filter(|state| ![State::Closed, State::Listen].contains(state));
            Locality::ALL
                .into_iter()
                .flat_map(|place| left.clone().map(move |state| (place, state)))
                .map(|(place, state)| {
                    (vec![place.name(), state.name()], &snapshot.totals.state[place as usize][state as usize])
                })
                .collect()
        }),
    },
    Family {
        name: "expiry_lateness",
        help: "Delay between a timer's deadline and its expiry.",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.totals.lateness)]),
    },
    Family {
        name: "sweep_pause",
        help: "Time that events waited for one step of the agent's scan of the flow table.",
        labels: &[],
        data: Data::Seconds(|snapshot| vec![(Vec::new(), &snapshot.totals.sweep_pause)]),
    },
    Family {
        name: "segments",
        help: "Segments of tracked connections. A packet merged by offloading counts as the segments that it stands for.",
        labels: &["direction", "kind"],
        data: Data::Counter(|snapshot| {
            table(DIRECTIONS, segment_kind::NAMES, &snapshot.counters.segments_by_kind())
        }),
    },
    Family {
        name: "segments_without_effect",
        help: "Segments of tracked connections that changed nothing, by cause.",
        labels: &["cause"],
        data: Data::Counter(|snapshot| by_cause(snapshot, &Cause::without_effect().collect::<Vec<_>>())),
    },
    Family {
        name: "retransmitted_segments",
        help: "Retransmitted segments of the handshake and of the close.",
        labels: &["kind"],
        data: Data::Counter(|snapshot| {
            let kinds = [("syn", Cause::SynAgain), ("syn_ack", Cause::SynAckAgain), ("fin", Cause::FinAgain)];
            kinds.map(|(kind, cause)| (vec![kind], snapshot.segments_of(cause))).into()
        }),
    },
    Family {
        name: "packets",
        help: "Packets that the kernel programs saw: tracked, ignored, and fragments that wait.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.packets_seen())),
    },
    Family {
        name: "packets_tracked",
        help: "Packets that belong to a tracked connection.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.packets_tracked())),
    },
    Family {
        name: "packets_ignored",
        help: "Packets that belong to no tracked connection, by reason.",
        labels: &["reason"],
        data: Data::Counter(|snapshot| list(Ignored::ALL.map(Ignored::name), &snapshot.counters.ignored)),
    },
    Family {
        name: "fragments_pending",
        help: "Fragments that wait for the rest of their datagram, neither tracked nor ignored yet.",
        labels: &[],
        data: Data::Gauge(|snapshot| one(snapshot.counters.fragments_pending())),
    },
    Family {
        name: "events_delivered",
        help: "Events that the agent read from the kernel's ring buffers.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.totals.delivered)),
    },
    Family {
        name: "events_lost",
        help: "Events lost because a ring buffer was full.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.events_lost)),
    },
    Family {
        name: "events_withheld",
        help: "SYN, FIN and RST that changed no state and are not remembered, because half of a ring buffer was full.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.events_withheld)),
    },
    Family {
        name: "watch_events_lost",
        help: "Events that clients of the query socket were too slow to read. Each client counts.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.totals.watch_events_lost)),
    },
    Family {
        name: "resyncs",
        help: "Full reads of the flow table after events were lost.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.totals.resyncs)),
    },
    Family {
        name: "socket_checks",
        help: "Checks of the agent's connections against the kernel's sockets.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.totals.audit_looks)),
    },
    Family {
        name: "audit_repairs",
        help: "Local endpoints closed because the kernel no longer had a socket for them, by last known state.",
        labels: &["state"],
        data: Data::Counter(|snapshot| {
            let repairs = |state: State| (vec![state.name()], snapshot.totals.audit_repairs[state as usize]);
            State::ALL.map(repairs).into()
        }),
    },
    Family {
        name: "connections_adopted",
        help: "Connections older than the agent that it imported from the kernel's sockets.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.totals.audit_adopted)),
    },
    Family {
        name: "deferred_segments",
        help: "Segments handed to the agent because another CPU had locked their connection.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.deferred)),
    },
    Family {
        name: "deferred_outcomes",
        help: "Deferred segments by outcome: applied in order, overtaken by a later segment, or dropped without a connection.",
        labels: &["outcome"],
        data: Data::Counter(|snapshot| list(DEFERRED_OUTCOMES, &snapshot.totals.deferred)),
    },
    Family {
        name: "flow_table_insert_retries",
        help: "Flow table inserts retried because another CPU changed the same bucket.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.counters.insert_retries)),
    },
    Family {
        name: "flows_evicted",
        help: "Connections evicted from the flow table to make room, by their condition.",
        labels: &["reason"],
        data: Data::Counter(|snapshot| list(EVICTIONS, &snapshot.counters.evicted)),
    },
    Family {
        name: "flow_table_entries",
        help: "Connections in the flow table by address family and class. Half-open ones are evicted first, live ones never.",
        labels: &["table", "class"],
        data: Data::Gauge(|snapshot| table(FAMILIES, FLOW_CLASSES, &snapshot.table_used)),
    },
    Family {
        name: "flow_table_capacity",
        help: "Guaranteed capacity of the flow table, in connections.",
        labels: &["table"],
        data: Data::Gauge(|snapshot| list(FAMILIES, &snapshot.table_capacity)),
    },
    Family {
        name: "ports_available",
        help: "Local ports that connect() can choose from for a destination without connections: those of ip_local_port_range that are neither reserved nor bound.",
        labels: &[],
        data: Data::Gauge(|snapshot| snapshot.ports.available.map(one).unwrap_or_default()),
    },
    Family {
        name: "ports_bound",
        help: "Local ports of ip_local_port_range that bind() has taken and that are therefore available for no destination. At least, before Linux 6.8.",
        labels: &[],
        data: Data::Gauge(|snapshot| snapshot.ports.bound.map(one).unwrap_or_default()),
    },
    Family {
        name: "ports_used_ratio",
        help: "Part of the local ports for a destination that connections hold, from 0 to 1. The 10 destinations with the largest part have a series each; other is the largest part of the rest.",
        labels: &["local", "destination"],
        data: Data::Destinations(|snapshot| &snapshot.ports.used),
    },
    Family {
        name: "ports_exhaustion",
        help: "Time until connect() to a destination finds no free port, if connections go on to open and close as they do. The 10 destinations with the shortest time have a series each; other is the shortest time of the rest. A destination with ports for a day has none.",
        labels: &["local", "destination"],
        data: Data::DestinationSeconds(|snapshot| &snapshot.ports.exhaustion),
    },
    Family {
        name: "history_connections",
        help: "Connections that closed while the agent keeps a history on disk, by what became of them there: written, or dropped because too many waited (queue_full), the disk was full (disk_full), or writing failed in another way (failed). attempt_left_out counts attempts that were never established, of which a file takes a limited number.",
        labels: &["outcome"],
        data: Data::Counter(|snapshot| list(DISK_OUTCOMES, &snapshot.disk.outcomes)),
    },
    Family {
        name: "history_files_set_aside",
        help: "Damaged files of the history that were renamed, so that the agent goes on without them.",
        labels: &[],
        data: Data::Counter(|snapshot| one(snapshot.disk.set_aside)),
    },
    Family {
        name: "history_bytes",
        help: "Size of the files of the history, in bytes.",
        labels: &[],
        data: Data::Gauge(|snapshot| one(snapshot.disk.bytes)),
    },
    Family {
        name: "program_runs",
        help: "Runs of the kernel programs. Counted only while the sysctl kernel.bpf_stats_enabled is 1.",
        labels: &["program"],
        data: Data::Counter(|snapshot| {
            snapshot.programs.iter().map(|program| (vec![program.program], program.runs)).collect()
        }),
    },
    Family {
        name: "program_run",
        help: "Time spent in the kernel programs. Counted only while the sysctl kernel.bpf_stats_enabled is 1.",
        labels: &["program"],
        data: Data::Elapsed(|snapshot| {
            let ns = |program: &ProgramRuns| u64::try_from(program.duration.as_nanos()).unwrap_or(u64::MAX);
            snapshot.programs.iter().map(|program| (vec![program.program], ns(program))).collect()
        }),
    },
    Family {
        name: "build",
        help: "Version of the running agent.",
        labels: &["version"],
        data: Data::Info(&[env!("CARGO_PKG_VERSION")]),
    },
];

/// Directions in the order of `Counters::segments`.
const DIRECTIONS: [&str; 2] = ["ingress", "egress"];
/// Reasons for eviction in the order of `Counters::evicted`.
const EVICTIONS: [&str; 3] = ["over", "half_open", "time_wait"];

/// The transitions of RFC 9293 3.3.2, figure 5, except those to CLOSED: a RST or a timer leads there from
/// every state.
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

/// Samples of the state transitions. Those of RFC 9293 are exported at 0 too, so that `rate` sees the first
/// one as an increase. An observer that missed segments sees other transitions as well. They are exported
/// once they occurred; there are at most 110 for each side.
fn transitions(snapshot: &Snapshot) -> Samples {
    let mut samples = Samples::new();
    for place in Locality::ALL {
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

/// Samples of what happened to TIME-WAITs.
fn time_wait_events(snapshot: &Snapshot) -> Samples {
    let entered = ("entered", Locality::ALL.map(|holder| snapshot.time_waits(holder)));
    let visits =
        TimeWaitVisit::ALL.map(|visit| (visit.name(), snapshot.counters.time_wait_visits[visit as usize]));
    let ended = |&ending: &TimeWaitEnding| (ending.name(), snapshot.totals.time_wait_ended[ending as usize]);
    let events = std::iter::once(entered).chain(visits).chain(TimeWaitEnding::ALL.iter().map(ended));
    let by_holder = |(event, counts): (_, [u64; 2])| {
        Locality::ALL.map(|holder| (vec![event, holder.name()], counts[holder as usize]))
    };
    events.flat_map(by_holder).collect()
}

/// One sample for each cause.
fn by_cause(snapshot: &Snapshot, causes: &[Cause]) -> Samples {
    causes.iter().map(|&cause| (vec![cause.name()], snapshot.segments_of(cause))).collect()
}

/// The one sample of a family without labels.
fn one(count: u64) -> Samples {
    vec![(Vec::new(), count)]
}

/// Samples of a family with one label.
fn list<const N: usize>(names: [&'static str; N], counts: &[u64; N]) -> Samples {
    names.into_iter().zip(counts).map(|(name, &count)| (vec![name], count)).collect()
}

/// Samples of a family with two labels.
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

/// One sample for each pair.
fn each<A: Copy, B: Copy, const N: usize, const M: usize>(
    rows: [A; N],
    columns: [B; M],
    sample: impl Fn(A, B) -> (Vec<&'static str>, u64),
) -> Samples {
    let pairs = rows.into_iter().flat_map(|row| columns.map(|column| (row, column)));
    pairs.map(|(row, column)| sample(row, column)).collect()
}
