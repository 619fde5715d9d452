//! `finwait doctor`: what is wrong with the TCP of this host, by what the connections, the kernel's counters and the
//! agent itself show.
//!
//! [`Examination`] takes the connections one by one, of an agent or of a capture, and what else is known. Its
//! [`Diagnosis`] has the findings.

mod agent;
mod budget;
mod closes;
mod host;
mod kind;
mod piles;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

pub use host::HostReading;
pub use kind::{FindingKind, Likelihood};

use crate::api::{Stats, Status};
use crate::view::{Connection, Ports};
use closes::Closes;
use piles::Piles;

/// Name of the schema of a [`Diagnosis`].
pub const SCHEMA: &str = "finwait.doctor/1";

/// All findings.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Diagnosis {
    /// `finwait.doctor/1`.
    pub schema: &'static str,
    /// The time that the diagnosis is of.
    pub as_of: Timestamp,
    /// Number of connections that were checked.
    pub connections: u64,
    /// What was found, the most serious kinds first.
    pub findings: Vec<DoctorFinding>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
}

/// Something that is wrong, or will be.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DoctorFinding {
    /// What kind of fault it is.
    pub kind: FindingKind,
    /// How sure it is.
    pub confidence: Likelihood,
    /// What was found, in a sentence.
    pub summary: String,
    /// The numbers behind it.
    pub evidence: Vec<String>,
    /// Time of the earliest evidence; `null` if it is not known.
    pub since: Option<Timestamp>,
    /// Some of the connections that show it.
    pub examples: Vec<Connection>,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// What not to do, because it does not help or does harm.
    pub avoid: &'static str,
}

/// What counts as a finding.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// How long a state lasts that should be short.
    pub lasting: SignedDuration,
    /// How many connections make a pile.
    pub count: u64,
}

/// A check of connections, host and agent.
#[derive(Debug)]
pub struct Examination {
    thresholds: Thresholds,
    piles: Piles,
    closes: Closes,
    connections: u64,
    others: Vec<DoctorFinding>,
    unchecked: Vec<String>,
}

impl Examination {
    /// An examination that has seen nothing. In one of `this_host`, the waiting of ends of other hosts is not a finding.
    pub fn new(thresholds: Thresholds, this_host: bool) -> Examination {
        Examination {
            thresholds,
            piles: Piles::new(this_host),
            closes: Closes::default(),
            connections: 0,
            others: Vec::new(),
            unchecked: Vec::new(),
        }
    }

    /// Takes a connection as it stood at `now`, tracked or ended.
    pub fn connection(&mut self, connection: &Connection, now: Timestamp) {
        self.connections += 1;
        self.piles.add(connection, now, self.thresholds);
        self.closes.add(connection);
    }

    /// Takes the counters of this host, read twice.
    pub fn host(&mut self, before: &HostReading, after: &HostReading) {
        self.others.extend(host::findings(before, after, self.thresholds));
    }

    /// Takes the budgets of local ports.
    pub fn ports(&mut self, ports: &Ports) {
        self.others.extend(budget::findings(ports));
    }

    /// Takes what the agent says of itself.
    pub fn agent(&mut self, status: &Status, stats: &Stats) {
        self.others.extend(agent::findings(status, stats, self.thresholds));
    }

    /// Says that something could not be checked.
    pub fn leave_out(&mut self, what: impl fmt::Display) {
        self.unchecked.push(what.to_string());
    }

    /// The findings at this time.
    pub fn finish(self, as_of: Timestamp) -> Diagnosis {
        let mut findings = self.piles.findings(as_of, self.thresholds);
        findings.extend(self.closes.findings(self.thresholds));
        findings.extend(self.others);
        findings.sort_by_key(|finding| FindingKind::ALL.iter().position(|&kind| kind == finding.kind));
        Diagnosis {
            schema: SCHEMA,
            as_of,
            connections: self.connections,
            findings,
            unchecked: self.unchecked,
        }
    }
}

impl DoctorFinding {
    fn new(
        kind: FindingKind,
        confidence: Likelihood,
        summary: String,
        evidence: Vec<String>,
    ) -> DoctorFinding {
        DoctorFinding {
            kind,
            confidence,
            summary,
            evidence,
            since: None,
            examples: Vec::new(),
            meaning: kind.meaning(),
            remedy: kind.remedy(),
            avoid: kind.avoid(),
        }
    }
}

/// Number of examples of a finding.
const EXAMPLES: usize = 3;
/// Number of findings of one kind: the largest groups.
const PER_KIND: usize = 5;
