//! The eleven states of one end (RFC 9293 3.3.2), and the two ends.

use strum::{FromRepr, IntoStaticStr, VariantArray};

/// The RFC 9293 state of one end of a connection.
///
/// `Unknown` is not a state of the RFC: it is the proved state of an end that has proved none yet.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, FromRepr, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs, reason = "the variants are the states of RFC 9293 3.3.2")]
pub enum State {
    Unknown = 0,
    Closed = 1,
    Listen = 2,
    SynSent = 3,
    SynReceived = 4,
    Established = 5,
    #[strum(serialize = "fin_wait_1")]
    FinWait1 = 6,
    #[strum(serialize = "fin_wait_2")]
    FinWait2 = 7,
    CloseWait = 8,
    Closing = 9,
    LastAck = 10,
    TimeWait = 11,
}

impl State {
    /// How many values there are; states index arrays of this length.
    pub const COUNT: usize = State::VARIANTS.len();

    /// Every RFC state, `Unknown` left out, in the order in which a connection may reach them.
    pub const ALL: [State; State::COUNT - 1] = match State::VARIANTS.last_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// Name in machine output: `fin_wait_1`.
    pub fn name(self) -> &'static str {
        self.into()
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

/// One of the two ends of a flow, by its position in the flow's key. It does not depend on who is client or
/// server.
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
