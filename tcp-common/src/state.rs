//! The eleven states of one end (RFC 9293 3.3.2), and which end is meant.

/// The RFC 9293 state of ONE end of a connection.
///
/// `Unknown` is no RFC state: it is the proved track of an end that has not shown itself yet.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are the states of RFC 9293 3.3.2")]
pub enum State {
    Unknown = 0,
    Closed = 1,
    Listen = 2,
    SynSent = 3,
    SynReceived = 4,
    Established = 5,
    FinWait1 = 6,
    FinWait2 = 7,
    CloseWait = 8,
    Closing = 9,
    LastAck = 10,
    TimeWait = 11,
}

impl State {
    /// How many values there are; states index arrays of this length.
    pub const COUNT: usize = 12;

    /// Every RFC state, `Unknown` left out, in the order of RFC 9293 3.3.2's life of a connection.
    pub const ALL: [State; 11] = [
        State::Closed,
        State::Listen,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
    ];

    /// The state with this number, if there is one.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Option<State> {
        Some(match value {
            0 => State::Unknown,
            1 => State::Closed,
            2 => State::Listen,
            3 => State::SynSent,
            4 => State::SynReceived,
            5 => State::Established,
            6 => State::FinWait1,
            7 => State::FinWait2,
            8 => State::CloseWait,
            9 => State::Closing,
            10 => State::LastAck,
            11 => State::TimeWait,
            _ => return None,
        })
    }

    /// Name in machine output: `fin_wait_1`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Closed => "closed",
            State::Listen => "listen",
            State::SynSent => "syn_sent",
            State::SynReceived => "syn_received",
            State::Established => "established",
            State::FinWait1 => "fin_wait_1",
            State::FinWait2 => "fin_wait_2",
            State::CloseWait => "close_wait",
            State::Closing => "closing",
            State::LastAck => "last_ack",
            State::TimeWait => "time_wait",
        }
    }

    /// Name for people, in the spelling of RFC 9293: `FIN-WAIT-1`.
    pub const fn rfc_name(self) -> &'static str {
        match self {
            State::Unknown => "?",
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }
}

/// One of the two ends of a flow, by its place in the flow's key: says nothing of client or server.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum End {
    /// The end whose address and port come first in the key.
    A = 0,
    /// The other one.
    B = 1,
}

impl End {
    /// The end that is not this one.
    #[inline(always)]
    pub const fn peer(self) -> End {
        match self {
            End::A => End::B,
            End::B => End::A,
        }
    }
}
