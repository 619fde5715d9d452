//! States that should be short and last.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use tcp_common::State;

use super::{DoctorFinding, EXAMPLES, FindingKind, Likelihood, PER_KIND, Thresholds};
use crate::output::{duration, escape};
use crate::view::{Connection, Role};

/// Ends that wait, in groups.
#[derive(Debug)]
pub(super) struct Piles {
    /// Whether only the ends on this host count.
    this_host: bool,
    groups: HashMap<PileKey, Pile>,
}

/// What the ends of a pile have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PileKey {
    kind: FindingKind,
    side: Role,
    server: SocketAddr,
    /// Command and process id of the owner.
    process: Option<(String, u32)>,
}

#[derive(Debug, Default)]
struct Pile {
    /// Ends that have been in the state for longer than it should last.
    lasting: u64,
    /// Ends that have not.
    recent: u64,
    since: Option<Timestamp>,
    examples: Vec<Connection>,
}

impl Piles {
    pub(super) fn new(this_host: bool) -> Piles {
        Piles { this_host, groups: HashMap::new() }
    }

    pub(super) fn add(&mut self, connection: &Connection, now: Timestamp, thresholds: Thresholds) {
        for side in [Role::Client, Role::Server] {
            let Some((kind, since)) = self.waits(connection, side) else { continue };
            let owned = connection.process.as_ref().filter(|_| connection.end(side).local);
            let process = owned.map(|process| (process.comm.clone(), process.pid));
            let server = connection.server.socket_address();
            let pile = self.groups.entry(PileKey { kind, side, server, process }).or_default();
            if now.duration_since(since) < limit(kind, thresholds) {
                pile.recent += 1;
                continue;
            }
            pile.lasting += 1;
            pile.since = Some(pile.since.map_or(since, |earlier| earlier.min(since)));
            if pile.examples.len() < EXAMPLES {
                pile.examples.push(connection.clone());
            }
        }
    }

    /// What an end's state would be a sign of if it lasted, and since when it has at least been in it.
    fn waits(&self, connection: &Connection, side: Role) -> Option<(FindingKind, Timestamp)> {
        let (end, peer) = (connection.end(side), connection.end(side.peer()));
        let counts = |end: &crate::view::ConnectionEnd| !self.this_host || end.on_host;
        if !counts(end) {
            return None;
        }
        let kind = match end.state {
            State::SynSent => FindingKind::UnansweredSyns,
            State::SynReceived => FindingKind::HalfOpen,
            State::CloseWait => FindingKind::CloseWaitLeak,
            State::FinWait1 | State::Closing | State::LastAck => FindingKind::UnacknowledgedFins,
            // Where the peer counts as well, its CLOSE-WAIT says who is to act.
            State::FinWait2 if !(counts(peer) && peer.state == State::CloseWait) => {
                FindingKind::PeersDoNotClose
            }
            _ => return None,
        };
        let began = match end.state {
            State::SynSent | State::SynReceived => connection.opened_at,
            _ => connection.close.as_ref().and_then(|close| close.started_at),
        };
        Some((kind, began.unwrap_or(connection.last_seen_at)))
    }

    pub(super) fn findings(self, now: Timestamp, thresholds: Thresholds) -> Vec<DoctorFinding> {
        let mut piles: Vec<_> =
            self.groups.into_iter().filter(|(_, pile)| pile.lasting >= thresholds.count.max(1)).collect();
        piles.sort_by_key(|(key, pile)| {
            (std::cmp::Reverse(pile.lasting), key.server, key.side == Role::Server)
        });
        let mut of_kind = HashMap::new();
        piles.retain(|(key, _)| {
            let count: &mut usize = of_kind.entry(key.kind).or_default();
            *count += 1;
            *count <= PER_KIND
        });
        piles.into_iter().map(|(key, pile)| pile.finding(&key, now, thresholds)).collect()
    }
}

impl Pile {
    fn finding(self, key: &PileKey, now: Timestamp, thresholds: Thresholds) -> DoctorFinding {
        let limit = words(limit(key.kind, thresholds));
        let summary = format!("{} {key} {} for more than {limit}", self.lasting, state_words(key.kind));
        let oldest = self.since.map_or_else(String::new, |since| words(now.duration_since(since)));
        let mut evidence = vec![format!("the oldest for {oldest}")];
        if self.recent > 0 {
            evidence.push(format!("{} more for less than {limit}: the number grows", self.recent));
        }
        let confidence = match key.kind {
            FindingKind::CloseWaitLeak if self.recent == 0 => Likelihood::Medium,
            FindingKind::CloseWaitLeak | FindingKind::UnansweredSyns | FindingKind::UnacknowledgedFins => {
                Likelihood::High
            }
            _ => Likelihood::Medium,
        };
        let finding = DoctorFinding::new(key.kind, confidence, summary, evidence);
        DoctorFinding { since: self.since, examples: self.examples, ..finding }
    }
}

/// `connections at 10.0.0.1:443 (nginx/812)`, or `clients of 10.0.0.1:443`.
impl fmt::Display for PileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Role::Server => write!(f, "connections at {}", self.server)?,
            Role::Client => write!(f, "clients of {}", self.server)?,
        }
        match &self.process {
            Some((comm, pid)) => write!(f, " ({}/{pid})", escape(comm)),
            None => Ok(()),
        }
    }
}

fn state_words(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::UnansweredSyns => "have been in SYN-SENT",
        FindingKind::HalfOpen => "have been in SYN-RECEIVED",
        FindingKind::CloseWaitLeak => "have been in CLOSE-WAIT",
        FindingKind::PeersDoNotClose => "have been in FIN-WAIT-2",
        _ => "have waited for the ACK of their FIN",
    }
}

/// How long the state may last.
fn limit(kind: FindingKind, thresholds: Thresholds) -> SignedDuration {
    let at_most = match kind {
        FindingKind::UnansweredSyns | FindingKind::HalfOpen => HANDSHAKE,
        FindingKind::UnacknowledgedFins => CLOSE,
        _ => return thresholds.lasting,
    };
    thresholds.lasting.min(at_most)
}

fn words(age: SignedDuration) -> String {
    duration(age.as_secs_f64() * 1000.0)
}

/// Within this time a SYN is answered, its first two retransmissions included.
const HANDSHAKE: SignedDuration = SignedDuration::from_secs(3);
/// Within this time a FIN is acknowledged.
const CLOSE: SignedDuration = SignedDuration::from_secs(10);
