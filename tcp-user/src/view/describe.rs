//! From a flow record, which knows ends A and B and a clock, to what a person reads: client and server and
//! wall time.

use std::net::{IpAddr, Ipv6Addr};

use tcp_common::flow::{Closer, Coverage, Initiator};
use tcp_common::{Cause, CloseKind, End, Flow, FlowKey, Rules, State};

use super::{
    Close, CloseInfo, Confidence, Connection, ConnectionEnd, ConnectionId, Durations, EndAddress, Family,
    Fins, IcmpMessage, IgnoredRst, Opener, ReopenReason, Reopened, ResetClass, ResetInfo, Role, Roles,
    TimeWait, TimeWaitEnd, TimeWaitEnding, Transition,
};
use crate::clock::Clock;

/// Converts flows into records.
#[derive(Clone, Copy, Debug)]
pub struct Describer<'a> {
    /// The rules in force.
    pub rules: &'a Rules,
    /// The records' clock.
    pub clock: Clock,
    /// Now, on that clock.
    pub now_ns: u64,
    /// The client's end, where it is known otherwise than from the flow.
    pub client: Option<End>,
    /// The connection's id, where it is that of another flow.
    pub id: Option<ConnectionId>,
}

/// Where a flow was seen.
#[derive(Clone, Debug, Default)]
pub struct Location {
    /// Name of the interface that saw it first, if known.
    pub interface: Option<String>,
    /// VLAN tags of each end's packets, A first, as in [`Sightings::tags`](tcp_common::record::Sightings::tags).
    pub tags: [u32; 2],
    /// Name of the interface to whose link the link-local addresses among the flow's belong; `None` if it is
    /// unknown or there are none.
    pub scope: Option<String>,
}

/// The client: the end that opened, or the end with the higher port if that was not seen.
pub fn client_end(key: &FlowKey, flow: &Flow) -> End {
    match flow.initiator() {
        Initiator::One(end) => end,
        Initiator::Both | Initiator::Unknown => {
            if key.port_a >= key.port_b {
                End::A
            } else {
                End::B
            }
        }
    }
}

/// Address of an end, IPv4 unmapped.
pub fn address(key: &FlowKey, end: End) -> IpAddr {
    let address = Ipv6Addr::from(key.endpoint(end).octets());
    match (key.family, address.to_ipv4_mapped()) {
        (4, Some(v4)) => IpAddr::V4(v4),
        _ => IpAddr::V6(address),
    }
}

impl Describer<'_> {
    /// The connection as it stands.
    pub fn connection(&self, key: &FlowKey, flow: &Flow, location: Location) -> Connection {
        let client = self.client_of(key, flow);
        let midstream = matches!(flow.coverage(), Coverage::Midstream);
        Connection {
            family: if key.family == 4 { Family::Ipv4 } else { Family::Ipv6 },
            tunnel: None,
            incarnation: flow.incarnation(),
            id: self.id(key, flow),
            client: self.endpoint(key, flow, client, location.tags),
            server: self.endpoint(key, flow, client.peer(), location.tags),
            interface: location.interface,
            scope: location.scope,
            opener: match flow.initiator() {
                Initiator::Unknown => Opener::Unknown,
                Initiator::One(end) if end == client => Opener::Client,
                Initiator::One(_) => Opener::Server,
                Initiator::Both => Opener::Both,
            },
            confidence: match flow.coverage() {
                Coverage::Exact => Confidence::Exact,
                Coverage::Gap => Confidence::Gap,
                Coverage::Midstream => Confidence::Midstream,
                Coverage::OneWay => Confidence::OneWay,
            },
            opened_at: (!midstream).then(|| self.clock.wall(flow.opened_ns())),
            last_seen_at: self.clock.wall(flow.last_ns()),
            handshake_ms: handshake_ns(flow).map(ms),
            close: self.close_info(key, flow, client),
            reset: ResetClass::of(flow).map(|(class, sender)| ResetInfo {
                class,
                sender: sender.map(|sender| side(sender, client)),
                kernel_reason: None,
            }),
            ignored_rst: flow.ignored_rst().map(|cause| cause.name().into()),
            time_wait: self.time_wait(flow, client),
            nat: None,
            process: None,
        }
    }

    /// The close record of an incarnation whose close was complete at `closed_ns`.
    pub fn close(&self, key: &FlowKey, flow: &Flow, location: Location, closed_ns: u64) -> Close {
        let started = |ns: u64| (ns != 0).then_some(ns);
        let closing_ns = flow.closing_seen_ns();
        // If the beginning of the close was not seen, the time in ESTABLISHED is unknown.
        let open = (flow.closing_ns() == 0 || closing_ns.is_some()).then_some(flow.established_ns());
        let established_until = closing_ns.unwrap_or(closed_ns);
        Close {
            connection: self.connection(key, flow, location),
            revision: 1 + u32::from(flow.was_reopened()),
            closed_at: Some(self.clock.wall(closed_ns)),
            durations_ms: Durations {
                handshake: handshake_ns(flow).map(ms),
                established: open.and_then(started).map(|ns| ms(established_until.saturating_sub(ns))),
                closing: closing_ns.map(|ns| ms(closed_ns.saturating_sub(ns))),
                time_wait: None,
            },
        }
    }

    /// The record of a close that was taken back. `scope` is that of the flow's [`Location`].
    pub fn reopened(
        &self,
        key: &FlowKey,
        flow: &Flow,
        scope: Option<&str>,
        at_ns: u64,
        reason: ReopenReason,
    ) -> Reopened {
        let [client, server] = self.addresses(key, flow);
        Reopened {
            at: self.clock.wall(at_ns),
            scope: scope.map(str::to_owned),
            client,
            server,
            incarnation: flow.incarnation(),
            id: self.id(key, flow),
            reason,
        }
    }

    /// The record of a RST of `sender` that was not accepted. `scope` is that of the flow's [`Location`].
    pub fn ignored_rst(
        &self,
        key: &FlowKey,
        flow: &Flow,
        scope: Option<&str>,
        at_ns: u64,
        sender: End,
        cause: Cause,
    ) -> IgnoredRst {
        let [client, server] = self.addresses(key, flow);
        IgnoredRst {
            at: self.clock.wall(at_ns),
            scope: scope.map(str::to_owned),
            client,
            server,
            incarnation: flow.incarnation(),
            id: self.id(key, flow),
            sender: side(sender, self.client_of(key, flow)),
            cause: cause.name().into(),
        }
    }

    /// The record of the TIME-WAIT of `end`, which has ended. `scope` is that of the flow's [`Location`].
    pub fn time_wait_end(
        &self,
        key: &FlowKey,
        flow: &Flow,
        scope: Option<&str>,
        at_ns: u64,
        end: End,
        ending: TimeWaitEnding,
    ) -> TimeWaitEnd {
        let ([client, server], x) = (self.addresses(key, flow), flow.end(end));
        TimeWaitEnd {
            at: self.clock.wall(at_ns),
            scope: scope.map(str::to_owned),
            client,
            server,
            incarnation: flow.incarnation(),
            id: self.id(key, flow),
            holder: side(end, self.client_of(key, flow)),
            ending,
            duration_ms: ms(x.time_wait_ns().map_or(0, |since_ns| at_ns.saturating_sub(since_ns))),
            restarts: u32::from(x.restarts()),
        }
    }

    /// The transitions of one segment or one timer: none, one or two. That a SYN was sent to an end is none of
    /// that end. `scope` is that of the flow's [`Location`]. The states are those before and after, A first.
    pub fn transitions(
        &self,
        key: &FlowKey,
        flow: &Flow,
        scope: Option<&str>,
        at_ns: u64,
        (from, to): ([State; 2], [State; 2]),
        cause: Cause,
    ) -> Vec<Transition> {
        let ([client, server], first) = (self.addresses(key, flow), self.client_of(key, flow));
        [first, first.peer()]
            .into_iter()
            .map(|end| (end, left_state(from[end as usize], to[end as usize]), to[end as usize]))
            .map(|(end, from, to)| (end, from, known_state(flow, end, to)))
            .filter(|&(_, from, to)| from != to && (from, to) != (State::Closed, State::Unknown))
            .map(|(end, from, to)| Transition {
                at: self.clock.wall(at_ns),
                scope: scope.map(str::to_owned),
                client,
                server,
                incarnation: flow.incarnation(),
                id: self.id(key, flow),
                side: side(end, first),
                from,
                to,
                cause: cause.name().into(),
            })
            .collect()
    }

    fn client_of(&self, key: &FlowKey, flow: &Flow) -> End {
        self.client.unwrap_or_else(|| client_end(key, flow))
    }

    /// The addresses of the client and of the server.
    fn addresses(&self, key: &FlowKey, flow: &Flow) -> [EndAddress; 2] {
        let client = self.client_of(key, flow);
        [client, client.peer()].map(|end| EndAddress {
            address: address(key, end),
            port: key.endpoint(end).port,
            local: flow.is_local(end),
        })
    }

    /// The id of the connection that a flow is, or is a leg of.
    pub fn id(&self, key: &FlowKey, flow: &Flow) -> ConnectionId {
        self.id.unwrap_or_else(|| ConnectionId::new(key, flow, self.clock.boot))
    }

    fn endpoint(&self, key: &FlowKey, flow: &Flow, end: End, tags: [u32; 2]) -> ConnectionEnd {
        let x = flow.end(end);
        ConnectionEnd {
            address: address(key, end),
            port: key.endpoint(end).port,
            state: known_state(flow, end, flow.state(end)),
            confirmed: flow.confirmed(end),
            local: flow.is_local(end),
            on_host: flow.is_local(end),
            vlan: vlan_ids(tags[end as usize]),
            segments: u64::from(x.segments()),
            bytes: flow.payload_bytes(end),
        }
    }

    fn close_info(&self, key: &FlowKey, flow: &Flow, client: End) -> Option<CloseInfo> {
        let kind = flow.close_kind_seen();
        let icmp = flow.icmp_error().map(|error| error.type_and_code(key.family));
        if kind == Some(CloseKind::Open) && flow.closing_ns() == 0 {
            return None;
        }
        let fins = match (flow.sent_fin(client), flow.sent_fin(client.peer())) {
            (false, false) => Fins::None,
            (true, false) => Fins::Client,
            (false, true) => Fins::Server,
            (true, true) => Fins::Both,
        };
        Some(CloseInfo {
            kind,
            closer: match flow.closer() {
                Closer::None => None,
                Closer::One(end) => Some(side(end, client).into()),
                Closer::Both => Some(Roles::Both),
            },
            aborter: flow.aborter().map(|end| side(end, client)),
            icmp: icmp.map(|(kind, code)| IcmpMessage { kind, code }),
            fins,
            complete: flow.complete(),
            started_at: flow.closing_seen_ns().map(|ns| self.clock.wall(ns)),
        })
    }

    fn time_wait(&self, flow: &Flow, client: End) -> Option<TimeWait> {
        let deadline = |end| flow.time_wait_deadline_ns(end, self.rules);
        let (holder, until_ns) = match (deadline(client), deadline(client.peer())) {
            (None, None) => return None,
            (Some(ns), None) => (Roles::Client, ns),
            (None, Some(ns)) => (Roles::Server, ns),
            (Some(first), Some(second)) => (Roles::Both, first.max(second)),
        };
        Some(TimeWait {
            holder,
            expires_in_ms: until_ns.saturating_sub(self.now_ns) / 1_000_000,
            restarts: [End::A, End::B].iter().map(|&end| u32::from(flow.end(end).restarts())).sum(),
        })
    }
}

/// The state of an end, or UNKNOWN if only a SYN that was sent to it suggests the state.
fn known_state(flow: &Flow, end: End, state: State) -> State {
    if state == State::Listen && flow.proved(end) == State::Unknown { State::Unknown } else { state }
}

/// The state that an end has left for `to`. Only an end that answers a SYN was in LISTEN for certain.
fn left_state(from: State, to: State) -> State {
    if from == State::Listen && to != State::SynReceived { State::Unknown } else { from }
}

/// The VLAN ids of a packet's tags, outermost first: the outer one is in the lower half.
pub(crate) fn vlan_ids(tags: u32) -> Option<Vec<u16>> {
    let ids: Vec<u16> = [tags as u16, (tags >> 16) as u16].into_iter().filter(|&id| id != 0).collect();
    (!ids.is_empty()).then_some(ids)
}

/// How the TIME-WAIT of an end ended, if the incarnation goes on and this was the cause of the last change.
pub fn time_wait_ending(flow: &Flow, end: End, cause: Cause) -> TimeWaitEnding {
    match flow.time_wait_resetter() {
        _ if cause == Cause::Silence => TimeWaitEnding::SocketGone,
        Some(sender) if sender == end => TimeWaitEnding::StateLost,
        Some(_) => TimeWaitEnding::Assassinated,
        None => TimeWaitEnding::Expired,
    }
}

fn side(end: End, client: End) -> Role {
    if end == client { Role::Client } else { Role::Server }
}

/// From the first segment to both ends ESTABLISHED; `None` where either was not seen.
pub fn handshake_ns(flow: &Flow) -> Option<u64> {
    let seen = flow.was_established() && !matches!(flow.initiator(), Initiator::Unknown);
    seen.then(|| flow.established_ns().saturating_sub(flow.opened_ns()))
}

fn ms(ns: u64) -> f64 {
    // Microseconds are what the clock is good for.
    (ns / 1_000) as f64 / 1_000.0
}
