//! What came of a storm.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use tcp_common::FlowKey;

/// What came of a storm.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Connections that were begun.
    pub connections: u64,
    /// Connections that went as planned; under loss some do not.
    pub as_planned: u64,
    /// Why the others did not.
    pub not_as_planned: BTreeMap<String, u64>,
    /// TCP frames that the hosts sent, and how many of them were lost, doubled and delayed on the direction.
    pub frames: [u64; 4],
    /// How often everything was compared.
    pub comparisons: u64,
    /// The state of the watched host's own ends against its kernel's sockets.
    pub local: Checks,
    /// The state of the other ends against the other kernel's sockets.
    pub remote: Checks,
    /// What is left of the own ends' TIME-WAIT against the kernel's timer.
    pub timers: Checks,
    /// The close records against what the program did.
    pub closes: Checks,
    /// `nf_conntrack`'s state against the same sockets of the watched host, where it was asked for.
    pub conntrack: Option<Checks>,
    /// The tuples of which it was wrong at least once.
    pub conntrack_conflicts: HashSet<FlowKey>,
}

/// Checks of one sort.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// How many.
    pub checks: u64,
    /// Where both said the same.
    pub agreed: u64,
    /// Differences that cannot be otherwise, by reason.
    pub explained: BTreeMap<&'static str, Differences>,
    /// All others.
    pub differences: Differences,
}

/// Differences, by what was said and what is true: how many, and the first of them in full.
pub type Differences = BTreeMap<String, (u64, Vec<String>)>;

impl Report {
    /// How many differences have no explanation.
    pub fn unexplained(&self) -> u64 {
        [&self.local, &self.remote, &self.timers, &self.closes]
            .iter()
            .map(|checks| checks.unexplained())
            .sum()
    }
}

impl Checks {
    /// How many differences have no explanation.
    pub fn unexplained(&self) -> u64 {
        count(&self.differences)
    }

    /// How many have one.
    pub fn explained_count(&self) -> u64 {
        self.explained.values().map(count).sum()
    }

    pub(crate) fn agree(&mut self) {
        self.checks += 1;
        self.agreed += 1;
    }

    /// A difference, with a reason or without.
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

/// Examples of what has a reason are in the alternate form only.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { EXAMPLES } else { 0 };
        let [sent, lost, doubled, delayed] = self.frames;
        writeln!(
            f,
            "{} connections, {} as planned; {sent} segments, {lost} lost, {doubled} doubled, {delayed} delayed; \
             {} comparisons",
            self.connections, self.as_planned, self.comparisons
        )?;
        for (reason, count) in &self.not_as_planned {
            writeln!(f, "    {count:>7} not as planned: {reason}")?;
        }
        let all_checks = [
            ("own ends' states", Some(&self.local)),
            ("other ends' states", Some(&self.remote)),
            ("own TIME-WAIT timers", Some(&self.timers)),
            ("closes", Some(&self.closes)),
            ("nf_conntrack", self.conntrack.as_ref()),
        ];
        for (name, checks) in all_checks.into_iter().filter_map(|(name, checks)| Some((name, checks?))) {
            writeln!(
                f,
                "{name:<21}{:>9} checks,{:>9} agree,{:>7} explained,{:>6} differ",
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
                writeln!(f, "    {count:>7} DIFFER: {what}")?;
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
