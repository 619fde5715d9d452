//! The random plan of a connection and the close record that it must produce.

use finwait::lab::{Family, Role};
use tcp_common::CloseKind;

use crate::sockets::{LISTENING_PORTS, REFUSING_PORT};

/// The plan of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) family: Family,
    /// The host that opens.
    pub(crate) opener: Role,
    /// The ports of the opener and of the other host.
    pub(crate) ports: (u16, u16),
    pub(crate) ending: Ending,
    /// The host that closes first.
    pub(crate) first: Role,
    /// Whether that host closes its socket. If not, it shuts down its direction only.
    pub(crate) closes_socket: bool,
    /// Bytes of the opener's request and of the answer.
    pub(crate) request: usize,
    pub(crate) answer: usize,
    pub(crate) hold: Hold,
    pub(crate) fast_open: bool,
    pub(crate) keep_alive: bool,
    /// Whether hosts answer every SYN with a cookie meanwhile, and so keep no state.
    pub(crate) cookies: bool,
}

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// The second host has read everything before it closes.
    Fins,
    /// The second host sends `more` bytes after the first FIN, then closes.
    HalfClose { more: usize },
    /// Both hosts close at once.
    Simultaneous,
    /// The first host closes with SO_LINGER 0.
    Abort,
    /// The first host closes, then the second with SO_LINGER 0.
    AbortAfterFin,
    /// The first host closes with unread data.
    Unread,
    /// The first host shuts down, and the second closes with unread data.
    UnreadAfterFin,
    /// The first host closes its socket, and the second sends more data.
    DataAfterClose,
    /// No socket listens on the port.
    Refused,
    /// The opener closes before the handshake is complete.
    OpenAbandoned,
}

/// When the connection holds until the next comparison is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Never,
    Open,
    HalfClosed,
}

/// The expected close record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The possible close kinds.
    pub(crate) kinds: &'static [CloseKind],
    pub(crate) closer: Option<Role>,
    pub(crate) aborter: Option<Role>,
}

impl Ending {
    /// The ending's name, without numbers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Ending::Fins => "fins",
            Ending::HalfClose { .. } => "half-close",
            Ending::Simultaneous => "simultaneous",
            Ending::Abort => "abort",
            Ending::AbortAfterFin => "abort after FIN",
            Ending::Unread => "unread",
            Ending::UnreadAfterFin => "unread after FIN",
            Ending::DataAfterClose => "data after close",
            Ending::Refused => "refused",
            Ending::OpenAbandoned => "open abandoned",
        }
    }
}

impl Plan {
    /// Draws the plan with this number. `both_families`: IPv4 and IPv6, otherwise IPv4 only.
    pub(crate) fn draw(seed: u64, number: u64, both_families: bool) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let side = |rng: &mut fastrand::Rng| if rng.bool() { Role::Client } else { Role::Server };
        let ending = match rng.u8(0..100) {
            0..38 => Ending::Fins,
            38..50 => Ending::HalfClose { more: size(&mut rng).max(1) },
            50..60 => Ending::Simultaneous,
            60..68 => Ending::Abort,
            68..74 => Ending::AbortAfterFin,
            74..80 => Ending::Unread,
            80..86 => Ending::UnreadAfterFin,
            86..93 => Ending::DataAfterClose,
            93..97 => Ending::Refused,
            _ => Ending::OpenAbandoned,
        };
        let port = if ending == Ending::Refused {
            REFUSING_PORT
        } else {
            LISTENING_PORTS.start + (number / u64::from(OWN_PORTS)) as u16 % LISTENING_PORTS.len() as u16
        };
        Plan {
            family: if both_families && rng.bool() { Family::Ipv6 } else { Family::Ipv4 },
            opener: side(&mut rng),
            ports: (FIRST_OWN_PORT + (number % u64::from(OWN_PORTS)) as u16, port),
            ending,
            first: side(&mut rng),
            closes_socket: rng.bool(),
            request: size(&mut rng),
            answer: size(&mut rng),
            hold: match rng.u8(0..20) {
                0 => Hold::Open,
                1 => Hold::HalfClosed,
                _ => Hold::Never,
            },
            fast_open: rng.u8(0..10) == 0,
            keep_alive: rng.u8(0..10) == 0,
            cookies: false,
        }
    }

    /// The close record that is certain if everything went as planned and no RST was lost. `None` if it
    /// depends on timing.
    pub(crate) fn expected(&self) -> Option<Expected> {
        use CloseKind::*;
        let (first, second) = (Some(self.first), Some(self.first.peer()));
        let (kinds, closer, aborter): (&[_], _, _) = match self.ending {
            Ending::Fins => (&[Fin4Seg, Fin3Seg], first, None),
            Ending::HalfClose { .. } => (&[HalfClose], first, None),
            // With Fast Open the data and the RST may arrive before the last ACK of the handshake.
            Ending::Abort | Ending::Unread if self.fast_open => (&[RstAbort, SynAbort], None, first),
            Ending::Abort | Ending::Unread => (&[RstAbort], None, first),
            Ending::AbortAfterFin | Ending::UnreadAfterFin => (&[RstAfterFin], first, second),
            Ending::DataAfterClose => (&[RstAfterFin], first, first),
            Ending::Refused => (&[Refused], None, Some(self.opener.peer())),
            Ending::Simultaneous | Ending::OpenAbandoned => return None,
        };
        Some(Expected { kinds, closer, aborter })
    }

    /// Bytes that the first host leaves unread.
    pub(crate) const UNREAD: usize = 100;
}

/// Mostly small, sometimes many segments.
fn size(rng: &mut fastrand::Rng) -> usize {
    match rng.u8(0..20) {
        0 => 0,
        1 => rng.usize(1..60_000),
        2..6 => rng.usize(1..6_000),
        _ => rng.usize(1..600),
    }
}

const FIRST_OWN_PORT: u16 = 10_000;
const OWN_PORTS: u16 = 50_000;
