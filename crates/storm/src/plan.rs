//! What a connection of the storm is to do, drawn by lot, and what must be said of it afterwards.

use finwait::lab::{Family, Side};
use tcp_common::CloseKind;

use crate::sockets::{LISTENING_PORTS, REFUSING_PORT};

/// One connection to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) family: Family,
    /// Which host opens.
    pub(crate) opener: Side,
    /// The opener's port and the other host's.
    pub(crate) ports: (u16, u16),
    pub(crate) ending: Ending,
    /// Which host begins to close.
    pub(crate) first: Side,
    /// Whether that host closes its socket at once, and does not only shut down its half.
    pub(crate) whole: bool,
    /// Octets that the opener sends, and that come back.
    pub(crate) request: usize,
    pub(crate) answer: usize,
    pub(crate) hold: Hold,
    pub(crate) fast_open: bool,
    pub(crate) keep_alive: bool,
    /// Whether hosts answer SYNs with cookies only meanwhile, and so remember nothing.
    pub(crate) cookies: bool,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// The second host has read everything before it closes.
    Fins,
    /// After the first FIN the second host sends so much more, then closes.
    HalfClose { more: usize },
    /// Both shut down at once.
    Simultaneous,
    /// The first host closes with SO_LINGER 0.
    Abort,
    /// The first host closes, the second one with SO_LINGER 0.
    AbortAfterFin,
    /// The first host closes without having read what has come.
    Unread,
    /// The first host shuts down, the second one closes without having read what has come.
    UnreadAfterFin,
    /// The first host closes, the second one goes on sending.
    DataAfterClose,
    /// Nobody listens.
    Refused,
    /// The opener closes at once.
    OpenAbandoned,
}

/// Where it stands still until the next comparison is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Never,
    Open,
    HalfClosed,
}

/// What must be said of a connection in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// One of these.
    pub(crate) kinds: &'static [CloseKind],
    pub(crate) closer: Option<Side>,
    pub(crate) aborter: Option<Side>,
}

impl Ending {
    /// Its name, without numbers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Ending::Fins => "fins",
            Ending::HalfClose { .. } => "half-close",
            Ending::Simultaneous => "at once",
            Ending::Abort => "abort",
            Ending::AbortAfterFin => "abort after FIN",
            Ending::Unread => "unread",
            Ending::UnreadAfterFin => "unread after FIN",
            Ending::DataAfterClose => "nobody reads",
            Ending::Refused => "refused",
            Ending::OpenAbandoned => "given up",
        }
    }
}

impl Plan {
    /// Draws the plan with this number. `both_families`: IPv6 too.
    pub(crate) fn draw(seed: u64, number: u64, both_families: bool) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let side = |rng: &mut fastrand::Rng| if rng.bool() { Side::Client } else { Side::Server };
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
            whole: rng.bool(),
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

    /// What is certain of its end if everything went as planned and no RST was lost; `None` where the timing decides.
    pub(crate) fn expected(&self) -> Option<Expected> {
        use CloseKind::*;
        let (first, second) = (Some(self.first), Some(self.first.peer()));
        let (kinds, closer, aborter): (&[_], _, _) = match self.ending {
            Ending::Fins => (&[Fin4Seg, Fin3Seg], first, None),
            Ending::HalfClose { .. } => (&[HalfClose], first, None),
            // With Fast Open the data, and the RST, may be there before the handshake's last ACK.
            Ending::Abort | Ending::Unread if self.fast_open => (&[RstAbort, SynAbort], None, first),
            Ending::Abort | Ending::Unread => (&[RstAbort], None, first),
            Ending::AbortAfterFin | Ending::UnreadAfterFin => (&[RstAfterFin], first, second),
            Ending::DataAfterClose => (&[RstAfterFin], first, first),
            Ending::Refused => (&[Refused], None, Some(self.opener.peer())),
            Ending::Simultaneous | Ending::OpenAbandoned => return None,
        };
        Some(Expected { kinds, closer, aborter })
    }

    /// Octets that lie unread at the first host.
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
