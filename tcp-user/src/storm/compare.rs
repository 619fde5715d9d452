//! What finwait says beside what is true: the sockets of both kernels, and what the program did.
//!
//! While the cable stands still and no program runs, the watched host's own end must be what its kernel has, always.
//! Of the other end the watcher may lack what the cable lost or still holds; the cable's own notes say what that is.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use tcp_common::{FlowKey, State};

use super::plan::{Ending, Plan};
use super::report::{Report, Tally};
use super::trail::{Trails, Way, is_behind, key};
use crate::lab::{KernelSocket, Side};
use crate::view::{Connection, Endpoint};

/// A kernel's connections by (its own end, the other one).
pub(super) type Sockets = HashMap<(SocketAddr, SocketAddr), KernelSocket>;

/// Everything that was looked at while the cable stood still.
pub(super) struct Look<'a> {
    /// Each kernel's sockets before and after the agents were asked.
    pub(super) kernels: [[Sockets; 2]; 2],
    /// What the agent of each host says.
    pub(super) ours: [Vec<Connection>; 2],
    pub(super) trails: &'a Trails,
    /// What each flow was to do, the latest last.
    pub(super) plans: &'a HashMap<FlowKey, Vec<Plan>>,
}

/// Only the sockets of connections: no listeners, nothing unconnected.
pub(super) fn connected(sockets: Vec<KernelSocket>) -> Sockets {
    sockets
        .into_iter()
        .filter(|socket| socket.remote.port() != 0 && socket.state != State::Listen)
        .map(|socket| ((socket.local, socket.remote), socket))
        .collect()
}

impl Look<'_> {
    /// Compares what the agent on the host of this side says.
    pub(super) fn compare(&self, watched: Side, report: &mut Report) {
        let mut known = HashSet::new();
        for connection in &self.ours[watched as usize] {
            let (client, server) = (&connection.client, &connection.server);
            known.insert(key(client.socket_address(), server.socket_address()));
            match (client.local, server.local) {
                (true, false) => self.compare_ends(watched, connection, client, server, report),
                (false, true) => self.compare_ends(watched, connection, server, client, report),
                both => {
                    report.local.differ(format!("client local {}, server local {}", both.0, both.1), || {
                        describe(connection)
                    })
                }
            }
        }
        for ((local, remote), socket) in &self.kernels[watched as usize][1] {
            if socket.state != State::Closed && !known.contains(&key(*local, *remote)) {
                report.local.differ(format!("not seen, kernel {}", socket.state.rfc_name()), || {
                    format!("{local} {remote}, {}", self.history(*local, *remote))
                });
            }
        }
    }

    fn compare_ends(
        &self,
        watched: Side,
        connection: &Connection,
        own: &Endpoint,
        other: &Endpoint,
        report: &mut Report,
    ) {
        let (own_address, other_address) = (own.socket_address(), other.socket_address());
        let example = || format!("{} {}", describe(connection), self.history(own_address, other_address));
        if let Some(socket) = self.steady(watched, own_address, other_address) {
            let truth = socket.map_or(State::Closed, |socket| socket.state);
            let said = socket_state(own.state);
            if said == truth {
                report.local.agree();
                if truth == State::TimeWait {
                    self.compare_timer(watched, connection, own_address, other_address, &mut report.timers);
                }
            } else if let Some(why) = self.why_own(watched, own, connection, socket) {
                report.local.explain(why);
            } else {
                report.local.differ(contradiction(said, truth), example);
            }
        }
        if let Some(socket) = self.steady(watched.peer(), other_address, own_address) {
            let truth = socket.map_or(State::Closed, |socket| socket.state);
            let said = socket_state(other.state);
            let ways = self.trails.ways(own_address, other_address);
            if said == truth {
                report.remote.agree();
            } else if let Some(why) = self.why_other(watched, other, &ways, connection, socket) {
                report.remote.explain(why);
            } else {
                let mark = if other.confirmed { "" } else { "?" };
                report
                    .remote
                    .differ(format!("{}{mark}, kernel {}", said.rfc_name(), truth.rfc_name()), example);
            }
        }
    }

    /// The kernel's socket; `None` if its state changed while it was looked at.
    fn steady(&self, side: Side, local: SocketAddr, remote: SocketAddr) -> Option<Option<&KernelSocket>> {
        let [before, after] = &self.kernels[side as usize];
        let (before, after) = (before.get(&(local, remote)), after.get(&(local, remote)));
        (before.map(|socket| socket.state) == after.map(|socket| socket.state)).then_some(after)
    }

    fn why_own(
        &self,
        side: Side,
        own: &Endpoint,
        connection: &Connection,
        socket: Option<&KernelSocket>,
    ) -> Option<&'static str> {
        match (own.state, socket) {
            (State::Closed, Some(socket)) if is_overdue(socket) => Some(LATE_TIMER),
            (State::Established | State::CloseWait, Some(socket))
                if matches!(socket.state, State::FinWait1 | State::Closing | State::LastAck)
                    && self.ways(connection)[side as usize].fin_end.is_none() =>
            {
                Some("closed, but the FIN waits in the host (cwnd, window) and was not sent yet")
            }
            (State::TimeWait, None) if expires_now(connection) => Some(LATE_TIMER),
            (State::Closed | State::LastAck, Some(socket))
                if matches!(socket.state, State::TimeWait | State::Closing)
                    && self.was_to(connection, closes_at_once) =>
            {
                Some(
                    "both closed at once, and of one FIN only a copy was seen that was sent when the other was there (cwnd, loss)",
                )
            }
            (State::SynReceived, None) if self.was_to(connection, |plan| plan.cookies) => {
                Some("the host answers with a SYN cookie and remembers nothing")
            }
            (State::Closed, Some(socket))
                if socket.state == State::SynReceived && self.had_late_copies(connection) =>
            {
                Some("a late copy of the SYN came when the connection was over, and was answered (R16)")
            }
            (State::Closed | State::LastAck, Some(socket))
                if socket.state == State::FinWait1
                    && self.ways(connection).iter().any(|way| way.two_fins) =>
            {
                Some(
                    "Linux, closing while the handshake's last ACK was in work, sent a second FIN behind its first",
                )
            }
            (State::TimeWait, None) if self.was_to(connection, |plan| plan.ending == Ending::GivenUp) => {
                Some("a new socket took the tuple out of TIME-WAIT and was closed before its SYN")
            }
            (State::SynSent, None)
                if self.was_to(connection, |plan| plan.ending == Ending::GivenUp || plan.fast_open) =>
            {
                Some("the program closed its socket in SYN-SENT; no segment tells that")
            }
            _ => None,
        }
    }

    fn why_other(
        &self,
        watched: Side,
        other: &Endpoint,
        ways: &[Way; 2],
        connection: &Connection,
        socket: Option<&KernelSocket>,
    ) -> Option<&'static str> {
        if is_behind(ways, watched.peer()) {
            return Some("what the other end sent was lost or held before the watcher");
        }
        if is_behind(ways, watched) && !other.confirmed {
            return Some("what was sent to the other end was lost or held behind the watcher; marked `?`");
        }
        if other.state == State::SynReceived
            && socket.is_some_and(|socket| socket.state == State::Established)
            && self.had_late_copies(connection)
        {
            return Some("a late copy of the SYN-ACK looks like one that was sent again");
        }
        self.why_own(watched.peer(), other, connection, socket)
    }

    fn compare_timer(
        &self,
        watched: Side,
        connection: &Connection,
        local: SocketAddr,
        remote: SocketAddr,
        timers: &mut Tally,
    ) {
        let left = |moment: usize| self.kernels[watched as usize][moment].get(&(local, remote))?.expires_ms;
        let (Some(before), Some(after), Some(ours)) = (left(0), left(1), &connection.time_wait) else {
            timers.differ("no timer".into(), || describe(connection));
            return;
        };
        let (least, most) = (u64::from(after).saturating_sub(TICKS_MS), u64::from(before) + TICKS_MS);
        if (least..=most).contains(&ours.expires_in_ms) {
            timers.agree();
        } else {
            timers.differ("TIME-WAIT ends at another time".into(), || {
                format!(
                    "{}: {} ms left, kernel {before}..{after}; {}",
                    describe(connection),
                    ours.expires_in_ms,
                    self.history(local, remote)
                )
            });
        }
    }

    /// Whether a connection of this flow was to do so.
    fn was_to(&self, connection: &Connection, what: impl Fn(&Plan) -> bool) -> bool {
        let flow = key(connection.client.socket_address(), connection.server.socket_address());
        self.plans.get(&flow).is_some_and(|plans| plans.iter().any(what))
    }

    fn had_late_copies(&self, connection: &Connection) -> bool {
        self.ways(connection).iter().any(|way| way.doubled + way.delayed > 0)
    }

    fn ways(&self, connection: &Connection) -> [Way; 2] {
        self.trails.ways(connection.client.socket_address(), connection.server.socket_address())
    }

    fn history(&self, one: SocketAddr, other: SocketAddr) -> String {
        let plan = self.plans.get(&key(one, other)).and_then(|plans| plans.last());
        let ways = self.trails.ways(one, other);
        format!("plan {plan:?}, from the client host {:?}, from the server host {:?}", ways[0], ways[1])
    }
}

/// What a kernel's socket table shows for this state: a listener's part in an open that nobody answered is no socket of
/// the connection.
fn socket_state(state: State) -> State {
    if state == State::Listen { State::Closed } else { state }
}

/// The kernel's timers of a minute go off up to some seconds late (`kernel/time/timer.c`: granularity).
fn is_overdue(socket: &KernelSocket) -> bool {
    socket.state == State::TimeWait && socket.expires_ms.is_some_and(|left| u64::from(left) <= TICKS_MS)
}

fn expires_now(connection: &Connection) -> bool {
    connection.time_wait.as_ref().is_some_and(|time_wait| time_wait.expires_in_ms <= TICKS_MS)
}

/// Whether both hosts may close without having seen the other's FIN: nobody waits for an open that was given up.
fn closes_at_once(plan: &Plan) -> bool {
    matches!(plan.ending, Ending::AtOnce | Ending::GivenUp)
}

fn contradiction(said: State, truth: State) -> String {
    format!("{}, kernel {}", said.rfc_name(), truth.rfc_name())
}

pub(super) fn describe(connection: &Connection) -> String {
    let end = |end: &Endpoint| {
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

const LATE_TIMER: &str = "2MSL is over, the kernel's timer has not gone off yet";
/// The kernel counts in ticks of up to 10 ms (CONFIG_HZ), and two clocks are read one after the other.
const TICKS_MS: u64 = 50;
