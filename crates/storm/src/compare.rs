//! Compares finwait's view with the sockets of both kernels and the plans.
//!
//! While the link and the programs are paused, the state of a local end must equal that of its kernel's
//! socket. The view of the remote end may lack what the link dropped or holds back, which the packet log
//! shows.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use finwait::lab::{KernelSocket, Role};
use finwait::view::{Connection, ConnectionEnd};
use jiff::{SignedDuration, Timestamp};
use tcp_common::{CloseKind, FlowKey, State};

use crate::conntrack;
use crate::explain::{Case, MISSED, TICKS_MS};
use crate::network::Network;
use crate::packet_log::{PacketLog, key};
use crate::plan::Plan;
use crate::report::{Checks, Report};
use crate::world::{World, canonical};

/// A kernel's connections by canonical local and remote address.
pub(crate) type Sockets = HashMap<(SocketAddr, SocketAddr), KernelSocket>;

/// Everything that was read while the link was paused.
pub(crate) struct Comparison<'a> {
    pub(crate) network: &'a Network,
    /// The sockets of each kernel before and after the agents were queried.
    pub(crate) kernels: [[Sockets; 2]; 2],
    /// When the agents were queried.
    pub(crate) asked_at: Instant,
    /// The connections that each agent lists, in the order of [`Position`].
    pub(crate) ours: Vec<Vec<Connection>>,
    /// The entries of conntrack on the server host, if it is compared.
    pub(crate) conntrack: Option<conntrack::States>,
    pub(crate) packet_log: &'a PacketLog,
    /// The plans of each flow, the latest last.
    pub(crate) plans: &'a HashMap<FlowKey, Vec<Plan>>,
}

/// Only the sockets of connections: no listening and no unconnected sockets.
pub(crate) fn connected(sockets: Vec<KernelSocket>) -> Sockets {
    sockets
        .into_iter()
        .filter(|socket| socket.remote.port() != 0 && socket.state != State::Listen)
        .map(|socket| ((canonical(socket.local), canonical(socket.remote)), socket))
        .collect()
}

/// Where an agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// On a host of the storm: one end of each connection is local.
    Host(Role),
    /// On a third host, at the server host's port: it sees the segments that the server host sends and
    /// receives.
    Third,
}

impl Position {
    pub(crate) const ALL: [Position; 3] =
        [Position::Host(Role::Client), Position::Host(Role::Server), Position::Third];

    /// The host whose ends the agent knows at once.
    fn near(self) -> Role {
        match self {
            Position::Host(side) => side,
            Position::Third => Role::Server,
        }
    }
}

impl Comparison<'_> {
    /// Compares the view of every agent with both kernels.
    pub(crate) fn compare_all(&self, report: &mut Report) {
        for (observer, connections) in Position::ALL.into_iter().zip(&self.ours) {
            self.compare(observer, connections, report);
        }
    }

    fn compare(&self, observer: Position, connections: &[Connection], report: &mut Report) {
        let mut known = HashSet::new();
        for connection in connections {
            let (client, server) = (&connection.client, &connection.server);
            known.insert(key(client.socket_address(), server.socket_address()));
            self.compare_location(observer, connection, report.ends(observer).0);
            self.compare_tags(observer, connection, report.ends(observer).0);
            let near_address = self.network.lab.host(observer.near()).address(connection.family);
            if client.address == near_address {
                self.compare_ends(observer, connection, client, server, report);
            } else {
                self.compare_ends(observer, connection, server, client, report);
            }
        }
        for ((local, remote), socket) in &self.kernels[observer.near() as usize][1] {
            if socket.state == State::Closed || known.contains(&key(*local, *remote)) {
                continue;
            }
            let case = Case {
                side: observer.near(),
                state: State::Closed,
                confirmed: false,
                connection: None,
                socket: Some(socket),
                directions: self.packet_log.directions(*local, *remote),
                plans: self.plans_of(*local, *remote),
                asked_at: self.asked_at,
            };
            let what = format!("not seen, kernel {}", socket.state.rfc_name());
            report.ends(observer).0.differ(case.explain_near(observer), what, || {
                format!("{local} {remote}, {}", self.history(*local, *remote))
            });
        }
    }

    /// Checks that the agent knows which ends are local, and that it joins the legs of a translated connection.
    /// A translating router asks conntrack when the connection is open or closed; until then, each leg has an
    /// address of its own.
    fn compare_location(&self, observer: Position, connection: &Connection, checks: &mut Checks) {
        let near_address = self.network.lab.host(observer.near()).address(connection.family);
        let ends = [&connection.client, &connection.server];
        let expected = ends.map(|end| matches!(observer, Position::Host(_)) && end.address == near_address);
        let is_translated = observer == Position::Third && self.network.world == World::Nat;
        let local = ends.map(|end| end.local);
        let is_opening = connection.handshake_ms.is_none()
            && connection.close_kind().is_none_or(|kind| kind == CloseKind::Open);
        if (local == expected && connection.nat.is_some() == is_translated) || (is_translated && is_opening) {
            return;
        }
        let is_refused = connection.close_kind() == Some(CloseKind::Refused);
        let reason = if !is_translated {
            None
        } else if is_refused {
            Some("conntrack forgets a connection when a RST is the first answer, so its legs are not joined")
        } else if self.has_just_opened(connection) {
            Some("conntrack is asked when the event of the open is read, some milliseconds later")
        } else {
            None
        };
        let what = format!("client, server local {local:?}, translated {}", connection.nat.is_some());
        checks.differ(reason, what, || describe(connection));
    }

    /// Whether the agent may not have read the event of the open yet when it was asked.
    fn has_just_opened(&self, connection: &Connection) -> bool {
        let (Some(opened_at), Some(handshake_ms)) = (connection.opened_at, connection.handshake_ms) else {
            return false;
        };
        let asked = Timestamp::now() - SignedDuration::try_from(self.asked_at.elapsed()).unwrap_or_default();
        asked.duration_since(opened_at).as_secs_f64() * 1000.0 < handshake_ms + TICKS_MS as f64
    }

    /// Checks the VLAN tags of each end's segments. The segments of the other host are first seen at the card. The
    /// host's own are first seen at the VLAN device, without tags; if the process that adds the tags is slow, the
    /// agent takes those at the card for retransmissions.
    fn compare_tags(&self, observer: Position, connection: &Connection, checks: &mut Checks) {
        for end in [&connection.client, &connection.server].into_iter().filter(|end| end.segments > 0) {
            let is_near = end.address == self.network.lab.host(observer.near()).address(connection.family);
            let side = if is_near { observer.near() } else { observer.near().peer() };
            let (ids, sent) = (end.vlan.as_deref().unwrap_or_default(), self.network.world.vlan_ids(side));
            if ids != sent && !(is_near && ids.is_empty()) {
                checks.differ(None, format!("VLANs {ids:?}, sent in {sent:?}"), || describe(connection));
            }
        }
    }

    /// Compares a connection whose near end is `own`.
    fn compare_ends(
        &self,
        observer: Position,
        connection: &Connection,
        own: &ConnectionEnd,
        other: &ConnectionEnd,
        report: &mut Report,
    ) {
        let (near, far) = (observer.near(), observer.near().peer());
        let (own_address, other_address) = (own.socket_address(), other.socket_address());
        let example = || format!("{} {}", describe(connection), self.history(own_address, other_address));
        if let Some(socket) = self.stable_socket(near, own_address, other_address) {
            let actual = socket.map_or(State::Closed, |socket| socket.state);
            let reported = socket_state(own.state);
            let case = || self.case(near, own, connection, socket).explain_near(observer);
            let reason = if reported == actual { None } else { case() };
            if let (None, Position::Host(Role::Server), Some(states)) = (reason, observer, &self.conntrack) {
                // Only where the packets decide the state.
                conntrack::compare(states, key(own_address, other_address), actual, report, example);
            }
            let checks = report.ends(observer).0;
            if reported == actual {
                checks.agree();
                if actual == State::TimeWait {
                    self.compare_timer(observer, connection, own_address, other_address, &mut report.timers);
                }
            } else {
                checks.differ(reason, difference(reported, own.confirmed, actual), example);
            }
        }
        if let Some(socket) = self.stable_socket(far, other_address, own_address) {
            let actual = socket.map_or(State::Closed, |socket| socket.state);
            let reported = socket_state(other.state);
            let checks = report.ends(observer).1;
            if reported == actual {
                checks.agree();
            } else {
                let reason = self.case(far, other, connection, socket).explain_far(observer);
                checks.differ(reason, difference(reported, other.confirmed, actual), example);
            }
        }
    }

    /// The kernel's socket. `None` if its state changed during the comparison.
    fn stable_socket(
        &self,
        side: Role,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Option<&KernelSocket>> {
        let [before, after] = &self.kernels[side as usize];
        let (before, after) = (before.get(&(local, remote)), after.get(&(local, remote)));
        (before.map(|socket| socket.state) == after.map(|socket| socket.state)).then_some(after)
    }

    fn case<'a>(
        &'a self,
        side: Role,
        end: &ConnectionEnd,
        connection: &'a Connection,
        socket: Option<&'a KernelSocket>,
    ) -> Case<'a> {
        let (client, server) = (connection.client.socket_address(), connection.server.socket_address());
        Case {
            side,
            state: end.state,
            confirmed: end.confirmed,
            connection: Some(connection),
            socket,
            directions: self.packet_log.directions(client, server),
            plans: self.plans_of(client, server),
            asked_at: self.asked_at,
        }
    }

    fn compare_timer(
        &self,
        observer: Position,
        connection: &Connection,
        local: SocketAddr,
        remote: SocketAddr,
        timers: &mut Checks,
    ) {
        let left =
            |moment: usize| self.kernels[observer.near() as usize][moment].get(&(local, remote))?.expires_ms;
        let (Some(before), Some(after), Some(ours)) = (left(0), left(1), &connection.time_wait) else {
            timers.differ(None, "no timer".into(), || describe(connection));
            return;
        };
        let (least, most) = (u64::from(after).saturating_sub(TICKS_MS), u64::from(before) + TICKS_MS);
        if (least..=most).contains(&ours.expires_in_ms) {
            timers.agree();
        } else {
            let reason =
                self.packet_log.directions(local, remote).iter().any(|direction| direction.missed > 0);
            let reason = (reason && observer == Position::Third).then_some(MISSED);
            timers.differ(reason, "TIME-WAIT ends at a different time".into(), || {
                format!(
                    "{observer:?}, {}: {} ms left, kernel {before}..{after}; {}",
                    describe(connection),
                    ours.expires_in_ms,
                    self.history(local, remote)
                )
            });
        }
    }

    fn plans_of(&self, one: SocketAddr, other: SocketAddr) -> &[Plan] {
        self.plans.get(&key(one, other)).map_or(&[], Vec::as_slice)
    }

    fn history(&self, one: SocketAddr, other: SocketAddr) -> String {
        let plan = self.plans_of(one, other).last();
        let directions = self.packet_log.directions(one, other);
        format!(
            "plan {plan:?}, from the client host {:?}, from the server host {:?}",
            directions[0], directions[1]
        )
    }
}

/// The state that the kernel's socket table shows for `state`. An unanswered open has no socket at the
/// listener's end.
fn socket_state(state: State) -> State {
    if matches!(state, State::Listen | State::Unknown) { State::Closed } else { state }
}

fn difference(reported: State, confirmed: bool, actual: State) -> String {
    let mark = if confirmed { "" } else { "?" };
    format!("{}{mark}, kernel {}", reported.rfc_name(), actual.rfc_name())
}

pub(crate) fn describe(connection: &Connection) -> String {
    let end = |end: &ConnectionEnd| {
        let mark = if end.confirmed { "" } else { "?" };
        format!("{} {}{mark}", end.socket_address(), end.state.rfc_name())
    };
    format!(
        "{} - {}, incarnation {}, {}, {:?}",
        end(&connection.client),
        end(&connection.server),
        connection.incarnation,
        connection.confidence,
        connection.close
    )
}
