//! How connections ended: aborted ones, and many short ones.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use tcp_common::{CloseKind, State};

use super::{DoctorFinding, EXAMPLES, FindingKind, Likelihood, PER_KIND, Thresholds};
use crate::output::duration;
use crate::view::{Connection, ResetClass, Role};

/// What ended, by service.
#[derive(Debug, Default)]
pub(super) struct Closes {
    /// Closed connections of each server.
    by_server: HashMap<SocketAddr, u64>,
    resets: HashMap<(SocketAddr, ResetClass, Option<Role>), ClosedGroup>,
    orderly: HashMap<(IpAddr, SocketAddr), Short>,
}

#[derive(Debug, Default)]
struct ClosedGroup {
    count: u64,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    examples: Vec<Connection>,
}

#[derive(Debug, Default)]
struct Short {
    ended: ClosedGroup,
    /// Time from the SYN to the last segment, ms, of all.
    lifetime_ms: f64,
    /// Connections of which the client or the server holds TIME-WAIT at present.
    time_waits: [u64; 2],
}

impl Closes {
    pub(super) fn add(&mut self, connection: &Connection) {
        let Some(kind) = connection.close_kind().filter(|&kind| kind != CloseKind::Open) else { return };
        let server = connection.server.socket_address();
        *self.by_server.entry(server).or_default() += 1;
        if let Some(reset) = connection.reset.as_ref().filter(|reset| reset.class != ResetClass::Refuted) {
            self.resets.entry((server, reset.class, reset.sender)).or_default().add(connection);
        }
        match kind {
            CloseKind::Fin4Seg | CloseKind::Fin3Seg | CloseKind::Simultaneous | CloseKind::HalfClose => {
                let Some(opened_at) = connection.opened_at else { return };
                let short = self.orderly.entry((connection.client.address, server)).or_default();
                short.ended.add(connection);
                short.lifetime_ms += connection.last_seen_at.duration_since(opened_at).as_secs_f64() * 1000.0;
                for (count, end) in short.time_waits.iter_mut().zip(connection.ends()) {
                    *count += u64::from(end.state == State::TimeWait);
                }
            }
            _ => {}
        }
    }

    pub(super) fn findings(self, thresholds: Thresholds) -> Vec<DoctorFinding> {
        let mut findings = Vec::new();
        let mut resets: Vec<_> =
            self.resets.into_iter().filter(|(_, ended)| ended.count >= thresholds.count.max(1)).collect();
        resets.sort_by_key(|((server, ..), ended)| (Reverse(ended.count), *server));
        for ((server, class, sender), ended) in resets.into_iter().take(PER_KIND) {
            let all = self.by_server.get(&server).copied().unwrap_or(ended.count);
            findings.push(reset_storm(server, class, sender, all, ended));
        }
        let is_churn = |short: &Short| {
            short.ended.count >= thresholds.count.max(1) * CHURN && short.mean_lifetime_ms() < SHORT_MS
        };
        let mut orderly: Vec<_> = self.orderly.into_iter().filter(|(_, short)| is_churn(short)).collect();
        orderly.sort_by_key(|(pair, short)| (Reverse(short.ended.count), *pair));
        for ((client, server), short) in orderly.into_iter().take(PER_KIND) {
            findings.push(churn(client, server, short));
        }
        findings
    }
}

impl ClosedGroup {
    fn add(&mut self, connection: &Connection) {
        let at = connection.last_seen_at;
        self.count += 1;
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.until = Some(self.until.map_or(at, |until| until.max(at)));
        if self.examples.len() < EXAMPLES {
            self.examples.push(connection.clone());
        }
    }

    /// `in 12s`; nothing if there is one moment only.
    fn span(&self) -> String {
        let span = self.since.zip(self.until).map(|(since, until)| until.duration_since(since).as_secs_f64());
        span.filter(|&span| span > 0.0)
            .map_or_else(String::new, |span| format!(" within {}", duration(span * 1000.0)))
    }
}

impl Short {
    fn mean_lifetime_ms(&self) -> f64 {
        self.lifetime_ms / self.ended.count.max(1) as f64
    }
}

fn reset_storm(
    server: SocketAddr,
    class: ResetClass,
    sender: Option<Role>,
    all: u64,
    ended: ClosedGroup,
) -> DoctorFinding {
    let by = sender.map_or_else(String::new, |side| format!(" by the {side}"));
    let summary = format!("{} connections to {server} were reset{by}: {class}", ended.count);
    let share = 100 * ended.count / all.max(1);
    let evidence = vec![format!("{share} % of the {all} connections to {server} that ended{}", ended.span())];
    let confidence = if share >= LARGE_SHARE { Likelihood::High } else { Likelihood::Medium };
    let finding = DoctorFinding::new(FindingKind::ResetStorm, confidence, summary, evidence);
    DoctorFinding { since: ended.since, examples: ended.examples, ..finding }
}

fn churn(client: IpAddr, server: SocketAddr, short: Short) -> DoctorFinding {
    let summary = format!(
        "{client} opened and closed {} connections to {server}{}, each for {} on average",
        short.ended.count,
        short.ended.span(),
        duration(short.mean_lifetime_ms())
    );
    let [by_client, by_server] = short.time_waits;
    let mut evidence = Vec::new();
    if by_client > 0 {
        evidence
            .push(format!("{by_client} ports of the client are in TIME-WAIT: keep-alive would free them"));
    }
    if by_server > 0 {
        evidence.push(format!("{by_server} are in TIME-WAIT at the server, which costs memory and no ports"));
    }
    let confidence = if by_client > 0 { Likelihood::High } else { Likelihood::Medium };
    let finding = DoctorFinding::new(FindingKind::Churn, confidence, summary, evidence);
    DoctorFinding { since: short.ended.since, examples: short.ended.examples, ..finding }
}

/// Times as many short connections as make a pile.
const CHURN: u64 = 10;
/// What a short connection is at most, in ms.
const SHORT_MS: f64 = 1000.0;
/// Percent of a service's connections from which on the resets are the rule.
const LARGE_SHARE: u64 = 10;
