//! The results of a storm.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use tcp_common::FlowKey;

use crate::compare::Position;

/// The results of a storm.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Connections started.
    pub connections: u64,
    /// Connections that went as planned. Packet loss can prevent that.
    pub as_planned: u64,
    /// Connections that did not go as planned, by reason.
    pub not_as_planned: BTreeMap<String, u64>,
    /// TCP frames: sent, lost, duplicated, delayed.
    pub frames: [u64; 4],
    /// TCP frames sent over each cable.
    pub cables: [u64; 2],
    /// Frames with a fragment.
    pub fragments: u64,
    /// Number of comparisons.
    pub comparisons: u64,
    /// States of local ends, compared with the kernel of the same host.
    pub local: Checks,
    /// States of remote ends, compared with the kernel of the other host.
    pub remote: Checks,
    /// States of the server host's ends at the third host, compared with the server host's kernel.
    pub near: Checks,
    /// States of the client host's ends at the third host, compared with the client host's kernel.
    pub far: Checks,
    /// Remaining TIME-WAIT of local ends, compared with the kernel's timer.
    pub timers: Checks,
    /// Close records, compared with the plans.
    pub closes: Checks,
    /// States of `nf_conntrack`, compared with the server's sockets, if enabled.
    pub conntrack: Option<Checks>,
    /// Tuples of which conntrack's state was incompatible at least once.
    pub conntrack_conflicts: HashSet<FlowKey>,
}

/// Counts of one type of check.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Number of checks.
    pub checks: u64,
    /// Checks without a difference.
    pub agreed: u64,
    /// Differences with a known cause, by cause.
    pub explained: BTreeMap<&'static str, Differences>,
    /// Differences without a known cause.
    pub differences: Differences,
}

/// Differences by reported and actual value: their number, and the first of them in full.
pub type Differences = BTreeMap<String, (u64, Vec<String>)>;

impl Report {
    /// Number of differences without a known cause.
    pub fn unexplained(&self) -> u64 {
        [&self.local, &self.remote, &self.near, &self.far, &self.timers, &self.closes]
            .iter()
            .map(|checks| checks.unexplained())
            .sum()
    }

    /// The checks of the near and the far ends of an agent.
    pub(crate) fn ends(&mut self, observer: Position) -> (&mut Checks, &mut Checks) {
        match observer {
            Position::Host(_) => (&mut self.local, &mut self.remote),
            Position::Third => (&mut self.near, &mut self.far),
        }
    }
}

impl Checks {
    /// Number of differences without a known cause.
    pub fn unexplained(&self) -> u64 {
        count(&self.differences)
    }

    /// Number of differences with a known cause.
    pub fn explained_count(&self) -> u64 {
        self.explained.values().map(count).sum()
    }

    pub(crate) fn agree(&mut self) {
        self.checks += 1;
        self.agreed += 1;
    }

    /// Counts a difference, with its known cause or `None`.
    pub(crate) fn differ(
        &mut self,
        reason: Option<&'static str>,
        what: String,
        example: impl FnOnce() -> String,
    ) {
        self.checks += 1;
        let differences = match reason {
            Some(reason) => self.explained.entry(reason).or_default(),
            None => &mut self.differences,
        };
        let (count, examples) = differences.entry(what).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }
}

fn count(differences: &Differences) -> u64 {
    differences.values().map(|(count, _)| count).sum()
}

/// Prints the report. The alternate form adds examples of explained differences.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { EXAMPLES } else { 0 };
        let [sent, lost, doubled, delayed] = self.frames;
        writeln!(
            f,
            "{} connections, {} as planned; {sent} segments, {lost} lost, {doubled} duplicated, {delayed} delayed; \
             {} comparisons",
            self.connections, self.as_planned, self.comparisons
        )?;
        if self.cables[1] > 0 {
            writeln!(
                f,
                "    {:>7} segments over the first cable, {} over the second",
                self.cables[0], self.cables[1]
            )?;
        }
        if self.fragments > 0 {
            writeln!(f, "    {:>7} fragments", self.fragments)?;
        }
        for (reason, count) in &self.not_as_planned {
            writeln!(f, "    {count:>7} not as planned: {reason}")?;
        }
        let third = |checks| (self.near.checks > 0).then_some(checks);
        let all_checks = [
            ("local ends", Some(&self.local)),
            ("remote ends", Some(&self.remote)),
            ("near ends, third", third(&self.near)),
            ("far ends, third", third(&self.far)),
            ("TIME-WAIT timers", Some(&self.timers)),
            ("closes", Some(&self.closes)),
            ("nf_conntrack", self.conntrack.as_ref()),
        ];
        for (name, checks) in all_checks.into_iter().filter_map(|(name, checks)| Some((name, checks?))) {
            writeln!(
                f,
                "{name:<21}{:>9} checks,{:>9} equal,{:>7} explained,{:>6} unexplained",
                checks.checks,
                checks.agreed,
                checks.explained_count(),
                checks.unexplained()
            )?;
            for (reason, differences) in &checks.explained {
                writeln!(f, "    {:>7} explained: {reason}", count(differences))?;
                for (what, (count, examples)) in differences {
                    writeln!(f, "            {count:>7} {what}")?;
                    for example in examples.iter().take(shown) {
                        writeln!(f, "                    {example}")?;
                    }
                }
            }
            for (what, (count, examples)) in &checks.differences {
                writeln!(f, "    {count:>7} UNEXPLAINED: {what}")?;
                for example in examples {
                    writeln!(f, "            {example}")?;
                }
            }
        }
        if self.conntrack.is_some() {
            writeln!(
                f,
                "    {:>7} tuples of which nf_conntrack differed at least once",
                self.conntrack_conflicts.len()
            )?;
        }
        Ok(())
    }
}

const EXAMPLES: usize = 3;
