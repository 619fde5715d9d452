//! Why a state may differ from its kernel's although no rule is wrong: no segment tells it. Every reason must be shown by
//! what the cable has noted or by what the programs were to do; a difference without one is a fault.

use std::time::{Duration, Instant};

use finwait::lab::{KernelSocket, Side};
use finwait::view::Connection;
use tcp_common::State;

use crate::packet_log::{Direction, is_behind};
use crate::plan::{Ending, Plan};

/// One end whose kernel says something else.
pub(crate) struct Case<'a> {
    /// The host of this end.
    pub(crate) side: Side,
    /// What finwait says of it, and whether as proved.
    pub(crate) state: State,
    pub(crate) confirmed: bool,
    /// Its connection, unless finwait knows of none.
    pub(crate) connection: Option<&'a Connection>,
    /// The kernel's socket, unless there is none.
    pub(crate) socket: Option<&'a KernelSocket>,
    /// What both hosts have sent in the flow.
    pub(crate) directions: [Direction; 2],
    /// What the flow was to do, the latest last.
    pub(crate) plans: &'a [Plan],
    /// When finwait was asked.
    pub(crate) asked_at: Instant,
}

impl Case<'_> {
    /// Why finwait on the host of this end may say so.
    pub(crate) fn explain_local(&self) -> Option<&'static str> {
        use State::*;
        let (mine, theirs) =
            (&self.directions[self.side as usize], &self.directions[self.side.peer() as usize]);
        let cookies = self.planned(|plan| plan.cookies);
        Some(match (self.state, self.kernel()) {
            (_, FinWait1 | Closing | LastAck) if mine.two_fins => {
                "Linux, closing while the handshake's last ACK was in work, sent a second FIN behind its first"
            }
            _ if cookies && theirs.probed_at_start => {
                "Linux takes a keepalive probe for the ACK with the SYN cookie: its socket is one octet behind"
            }
            (Established, SynReceived) if theirs.probed_at_start && !self.confirmed => {
                "Linux refuses a handshake's ACK that echoes its answer to a keepalive probe (TSEcrRejected); marked `?`"
            }
            _ if cookies && (mine.has_two_sockets() || theirs.has_two_sockets()) => SECOND_SOCKET,
            (Closed, Established | FinWait1) if cookies && theirs.doubled + theirs.delayed > 0 => {
                SECOND_SOCKET
            }
            (Closed, TimeWait) if self.is_overdue() => LATE_TIMER,
            (TimeWait, Closed) if self.expires_now() => LATE_TIMER,
            (Established | CloseWait, FinWait1 | Closing | LastAck)
                if mine.fin_at.is_none_or(|at| at >= self.asked_at) =>
            {
                "closed, but the FIN waits in the host (cwnd, window) and was not sent yet"
            }
            (Closed | LastAck, TimeWait | Closing) if mine.fin_acknowledges_peer && self.closes_at_once() => {
                "closed at once, but the FIN waited in the host until the other host's had come"
            }
            (SynReceived, Closed) if cookies => "the host answers with a SYN cookie and remembers nothing",
            (Closed, SynReceived) if theirs.copied => {
                "a late copy of the SYN came when the connection was over, and was answered (R16)"
            }
            (_, SynSent) if self.planned(|plan| plan.fast_open) && !mine.latest_is_syn => {
                "with Fast Open a socket is in SYN-SENT until there are data to send with the SYN"
            }
            (FinWait2, Closed) if mine.fin_at.is_some_and(|at| at.elapsed() >= ORPHAN) => {
                "a FIN-WAIT-2 that no process has ends after a minute (tcp_fin_timeout)"
            }
            (Closed, Established | FinWait1) if cookies && mine.has_reset() => {
                "an ACK with the SYN cookie made a second socket after the host's own RST"
            }
            (TimeWait, Closed) if self.open_abandoned() => {
                "a new socket took the tuple out of TIME-WAIT and was closed before its SYN"
            }
            (SynSent, Closed) if self.open_abandoned() => "the program closed its socket in SYN-SENT",
            (SynSent, Closed)
                if mine.latest_is_syn && self.planned(|plan| plan.fast_open && plan.answer == 0) =>
            {
                "with Fast Open the whole request was there with the SYN, and the program closed in SYN-SENT"
            }
            _ => return None,
        })
    }

    /// Why finwait on the other host may say so.
    pub(crate) fn explain_remote(&self) -> Option<&'static str> {
        use State::*;
        let (mine, theirs) =
            (&self.directions[self.side as usize], &self.directions[self.side.peer() as usize]);
        let crosses = mine.again || mine.copied;
        Some(match (self.state, self.kernel()) {
            _ if is_behind(&self.directions, self.side) => {
                "what the other end sent was lost or held before the watcher"
            }
            _ if is_behind(&self.directions, self.side.peer()) && !self.confirmed => {
                "what was sent to the other end was lost or held behind the watcher; marked `?`"
            }
            (SynReceived, Established | CloseWait)
            | (FinWait1 | Closing | LastAck, FinWait2 | TimeWait | Closed)
                if crosses =>
            {
                "its SYN-ACK or FIN was sent again, or copied, and crossed what acknowledges it"
            }
            (Closed, TimeWait) if self.expires_within(theirs.longest) => {
                "its 2MSL began when the last segment came, which the watcher saw before the cable held it"
            }
            (Closed, TimeWait) if self.expires_within(theirs.longest + mine.longest) => {
                "its 2MSL began anew when a segment that the cable had held long was answered (Linux)"
            }
            (Established, Closed) if mine.copied && !self.confirmed => {
                "a late copy of its SYN was answered, it has that connection no more (R16); marked `?`"
            }
            (Closed | LastAck, TimeWait | Closing) if mine.fin_lost && self.closes_at_once() => {
                "closed at once, but of its FIN only a copy came, which was sent when the other host's was there"
            }
            _ => return self.explain_local(),
        })
    }

    fn kernel(&self) -> State {
        self.socket.map_or(State::Closed, |socket| socket.state)
    }

    /// Whether a connection of this flow was to do so.
    fn planned(&self, what: impl Fn(&Plan) -> bool) -> bool {
        self.plans.iter().any(what)
    }

    fn open_abandoned(&self) -> bool {
        self.planned(|plan| plan.ending == Ending::OpenAbandoned)
    }

    /// Whether both hosts may close without having seen the other's FIN: nobody waits for an open that was given up.
    fn closes_at_once(&self) -> bool {
        self.planned(|plan| matches!(plan.ending, Ending::Simultaneous | Ending::OpenAbandoned))
    }

    /// The kernel's timers of a minute go off up to some seconds late (`kernel/time/timer.c`: granularity).
    fn is_overdue(&self) -> bool {
        self.expires_within(Duration::ZERO)
    }

    /// Whether the kernel's timer has no more than this to go.
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
    "an ACK with the SYN cookie that came twice or late made a second socket: two of one tuple";
const LATE_TIMER: &str = "2MSL is over, the kernel's timer has not gone off yet";
/// `tcp_fin_timeout`, less a second.
const ORPHAN: Duration = Duration::from_secs(59);
/// The kernel counts in ticks of up to 10 ms (CONFIG_HZ), and two clocks are read one after the other.
pub(crate) const TICKS_MS: u64 = 50;
