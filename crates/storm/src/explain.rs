//! Known causes of a difference from the kernel's state: cases in which no segment shows the state. The
//! packet log or the plan must prove a cause. A difference without one is a bug.

use std::time::{Duration, Instant};

use finwait::lab::{KernelSocket, Role};
use finwait::view::{Confidence, Connection};
use tcp_common::State;

use crate::compare::Position;
use crate::packet_log::{Direction, is_behind, tap_was_behind};
use crate::plan::{Ending, Plan};

/// An end whose kernel has another state.
pub(crate) struct Case<'a> {
    /// The host of the end.
    pub(crate) side: Role,
    /// Finwait's state of the end, and whether it is confirmed.
    pub(crate) state: State,
    pub(crate) confirmed: bool,
    /// Finwait's connection, if it has one.
    pub(crate) connection: Option<&'a Connection>,
    /// The kernel's socket, if there is one.
    pub(crate) socket: Option<&'a KernelSocket>,
    /// What both hosts have sent in the flow.
    pub(crate) directions: [Direction; 2],
    /// The plans of the flow, the latest last.
    pub(crate) plans: &'a [Plan],
    /// When finwait was queried.
    pub(crate) asked_at: Instant,
}

impl Case<'_> {
    /// Why the agent for which this end is the near one may differ.
    pub(crate) fn explain_near(&self, observer: Position) -> Option<&'static str> {
        let dropped = observer == Position::Third && self.directions[self.side.peer() as usize].reset_lost;
        let is_marked = !self.confirmed
            || self.connection.is_some_and(|connection| connection.confidence != Confidence::Exact);
        self.explain_third(observer).or_else(|| self.explain_local()).or_else(|| {
            (dropped && is_marked).then_some(
                "the router dropped a RST after its agent had seen it; marked `?`, or by the confidence",
            )
        })
    }

    /// Why the agent for which this end is the far one may differ.
    pub(crate) fn explain_far(&self, observer: Position) -> Option<&'static str> {
        self.explain_third(observer).or_else(|| self.explain_remote())
    }

    /// Why the agent on the third host may differ, and no other.
    fn explain_third(&self, observer: Position) -> Option<&'static str> {
        if observer != Position::Third {
            return None;
        }
        if tap_was_behind(&self.directions, self.asked_at) {
            return Some(MISSED);
        }
        let own = &self.directions[self.side as usize];
        let holds_no_time_wait = matches!(
            (self.state, self.kernel()),
            (State::Closed | State::LastAck, State::TimeWait | State::Closing)
        );
        if own.fin_missed && holds_no_time_wait && self.closes_at_once() {
            return Some(
                "both ends were to close at once; the network tap showed only a copy of one FIN, sent after the other had arrived",
            );
        }
        let is_refused = self.state == State::SynSent && self.kernel() == State::Closed;
        (own.crossed && (self.is_before_acknowledgment() || is_refused)).then_some(CROSSED)
    }

    /// Whether finwait has the end before the acknowledgment of its SYN or FIN, and its kernel after it.
    fn is_before_acknowledgment(&self) -> bool {
        use State::*;
        matches!(
            (self.state, self.kernel()),
            (SynReceived, Established | CloseWait)
                | (FinWait1 | Closing | LastAck, FinWait2 | TimeWait | Closed)
        )
    }

    /// Why the agent on the host of this end may differ.
    fn explain_local(&self) -> Option<&'static str> {
        use State::*;
        let (own, peer) = (&self.directions[self.side as usize], &self.directions[self.side.peer() as usize]);
        let cookies = self.planned(|plan| plan.cookies);
        Some(match (self.state, self.kernel()) {
            (_, FinWait1 | Closing | LastAck) if own.two_fins => {
                "Linux, closing while it processed the last ACK of the handshake, sent a second FIN after its first"
            }
            _ if cookies && peer.probed_at_start => {
                "Linux takes a keepalive probe for the ACK with the SYN cookie: its socket is one byte behind"
            }
            (Established, SynReceived) if peer.probed_at_start && !self.confirmed => {
                "Linux rejects a handshake ACK that echoes its answer to a keepalive probe (TSEcrRejected); marked `?`"
            }
            _ if cookies && (own.has_two_sockets() || peer.has_two_sockets()) => SECOND_SOCKET,
            (Closed, Established | FinWait1) if cookies && peer.doubled + peer.delayed > 0 => SECOND_SOCKET,
            (Closed, TimeWait) if self.is_overdue() => LATE_TIMER,
            (TimeWait, Closed) if self.expires_now() => LATE_TIMER,
            (Established | CloseWait, FinWait1 | Closing | LastAck)
                if own.fin_at.is_none_or(|at| at >= self.asked_at) =>
            {
                "the FIN waits in the host (cwnd, window) and has not been sent"
            }
            (Closed | LastAck, TimeWait | Closing) if own.fin_acknowledges_peer && self.closes_at_once() => {
                "both ends were to close at once; one FIN waited in its host until the other had arrived"
            }
            (SynReceived, Closed) if cookies => "the host answers with a SYN cookie and keeps no state",
            (Closed, SynReceived) if peer.copied => {
                "a late copy of the SYN was answered after the connection had ended (R16)"
            }
            (_, SynSent) if self.planned(|plan| plan.fast_open) && !own.latest_is_syn => {
                "with Fast Open a socket is in SYN-SENT until there is data to send with the SYN"
            }
            (FinWait2, Closed) if own.fin_at.is_some_and(|at| at.elapsed() >= ORPHAN) => {
                "a FIN-WAIT-2 without a process ends after a minute (tcp_fin_timeout)"
            }
            (Closed, Established | FinWait1) if cookies && own.has_reset() => {
                "an ACK with the SYN cookie created a second socket after the host's own RST"
            }
            (TimeWait, Closed) if self.open_abandoned() => {
                "a new socket took the tuple out of TIME-WAIT and was closed before its SYN"
            }
            (Established, SynReceived) if self.planned(|plan| plan.fast_open) && peer.lost > 0 => {
                "with Fast Open a server sends before it has received the last ACK of the handshake"
            }
            (SynSent, Closed) if self.open_abandoned() => "the program closed its socket in SYN-SENT",
            (SynSent, Closed)
                if (peer.reset_lost || own.nothing_arrived())
                    && self.planned(|plan| plan.ending == Ending::Refused) =>
            {
                "the program closed its socket in SYN-SENT"
            }
            (Established | CloseWait | FinWait1 | LastAck | SynReceived, Closed)
                if peer.no_reset_arrived() =>
            {
                "no RST of the peer arrived, and the host gave up what it had sent again and again"
            }
            (SynSent, Closed)
                if own.latest_is_syn && self.planned(|plan| plan.fast_open && plan.answer == 0) =>
            {
                "with Fast Open the SYN carried the whole request, and the program closed in SYN-SENT"
            }
            _ => return None,
        })
    }

    /// Why the agent on the other host may differ.
    fn explain_remote(&self) -> Option<&'static str> {
        use State::*;
        let (own, peer) = (&self.directions[self.side as usize], &self.directions[self.side.peer() as usize]);
        let crosses = own.retransmitted || own.copied;
        Some(match (self.state, self.kernel()) {
            _ if is_behind(&self.directions, self.side) => {
                "a segment was lost or delayed before the observer"
            }
            _ if is_behind(&self.directions, self.side.peer()) && !self.confirmed => {
                "a segment was lost or delayed after the observer; marked `?`"
            }
            _ if crosses && self.is_before_acknowledgment() => CROSSED,
            (Closed, TimeWait) if self.expires_within(peer.longest) => {
                "for the kernel, 2MSL began when the link delivered the last segment, after the observer had seen it"
            }
            (Closed, TimeWait) if self.expires_within(peer.longest + own.longest) => {
                "a segment that the link had delayed was answered and restarted 2MSL (Linux)"
            }
            (Established, Closed) if own.copied && !self.confirmed => {
                "a late copy of the SYN was answered, but the connection had ended (R16); marked `?`"
            }
            (Established, Closed) if peer.has_reset() && self.planned(|plan| plan.cookies) => {
                "the peer sent a RST, and an ACK with the SYN cookie then created a second socket of it"
            }
            (Closed | LastAck, TimeWait | Closing) if own.fin_lost && self.closes_at_once() => {
                "both ends were to close at once; of one FIN only a copy arrived, sent after the other FIN had arrived"
            }
            (Closed | LastAck, TimeWait | Closing) if own.fin_overtaken && self.closes_at_once() => {
                "both ends were to close at once; one FIN arrived after its copy, sent after the other FIN had arrived"
            }
            _ => return self.explain_local(),
        })
    }

    fn kernel(&self) -> State {
        self.socket.map_or(State::Closed, |socket| socket.state)
    }

    /// Whether a plan of the flow meets the condition.
    fn planned(&self, what: impl Fn(&Plan) -> bool) -> bool {
        self.plans.iter().any(what)
    }

    fn open_abandoned(&self) -> bool {
        self.planned(|plan| plan.ending == Ending::OpenAbandoned)
    }

    /// Whether either host may close before it has received the other's FIN. An abandoned open is closed by
    /// its listener at once.
    fn closes_at_once(&self) -> bool {
        self.planned(|plan| matches!(plan.ending, Ending::Simultaneous | Ending::OpenAbandoned))
    }

    /// The kernel's timers of a minute expire up to some seconds late (`kernel/time/timer.c`: granularity).
    fn is_overdue(&self) -> bool {
        self.expires_within(Duration::ZERO)
    }

    /// Whether the kernel's timer expires within `time`.
    fn expires_within(&self, time: Duration) -> bool {
        let left = self.socket.and_then(|socket| socket.expires_ms);
        left.is_some_and(|left| u128::from(left) <= time.as_millis() + u128::from(TICKS_MS))
    }

    fn expires_now(&self) -> bool {
        let time_wait = self.connection.and_then(|connection| connection.time_wait.as_ref());
        time_wait.is_some_and(|time_wait| time_wait.expires_in_ms <= TICKS_MS)
    }
}

const SECOND_SOCKET: &str =
    "an ACK with the SYN cookie arrived twice or late and created a second socket of the tuple";
const CROSSED: &str = "a retransmitted or copied SYN, SYN-ACK or FIN crossed its answer";
pub(crate) const MISSED: &str = "the network tap did not show a segment of the connection";
const LATE_TIMER: &str = "2MSL has elapsed; the kernel's timer has not fired yet";
/// `tcp_fin_timeout` minus one second.
const ORPHAN: Duration = Duration::from_secs(59);
/// The kernel counts in ticks of up to 10 ms (CONFIG_HZ), the two clocks are read one after the other, and on a busy host a
/// segment waits between the hook and its socket. Less than the shortest retransmission timeout (200 ms), so that a
/// missed restart of TIME-WAIT shows.
pub(crate) const TICKS_MS: u64 = 150;
