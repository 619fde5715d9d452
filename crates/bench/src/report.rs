//! Medians, quartiles and ratios, as a table and as JSON.

use serde_json::{Value, json};

/// Measurements of several cases, which take turns in every round.
pub(crate) struct Series {
    title: String,
    cases: Vec<(String, Vec<f64>)>,
}

impl Series {
    pub(crate) fn new(title: impl Into<String>) -> Series {
        Series { title: title.into(), cases: Vec::new() }
    }

    /// Adds one measurement in ns.
    pub(crate) fn add(&mut self, case: &str, ns: f64) {
        match self.cases.iter_mut().find(|(name, _)| name == case) {
            Some((_, rounds)) => rounds.push(ns),
            None => self.cases.push((case.to_owned(), vec![ns])),
        }
    }

    /// Median of a case in ns.
    pub(crate) fn median(&self, case: &str) -> Option<f64> {
        self.rounds(case).map(|rounds| median(rounds.to_vec()))
    }

    /// Median of what a case adds to `base` in the same round, in ns.
    pub(crate) fn added(&self, case: &str, base: &str) -> Option<f64> {
        let (rounds, base) = (self.rounds(case)?, self.rounds(base)?);
        Some(median(rounds.iter().zip(base).map(|(own, base)| own - base).collect()))
    }

    fn rounds(&self, case: &str) -> Option<&[f64]> {
        self.cases.iter().find(|(name, _)| name == case).map(|(_, rounds)| rounds.as_slice())
    }

    /// Prints each case compared with `base`. With `reference`, also each case's share of what the reference
    /// adds.
    pub(crate) fn print(&self, base: &str, reference: Option<&str>) -> Value {
        let Some(base_rounds) = self.rounds(base) else { return Value::Null };
        let reference = reference.and_then(|reference| self.added(reference, base));
        println!("\n{} (ns; {} interleaved rounds)", self.title, base_rounds.len());
        println!(
            "{:<34}{:>11}{:>11}{:>11}{:>11}{:>8}{:>8}",
            "", "median", "quarter", "3/4", "added", "ratio", "of ref."
        );
        let mut values = Vec::new();
        for (name, rounds) in &self.cases {
            let [low, middle, high] = [1, 2, 3].map(|quarters| quantile(rounds.clone(), quarters));
            let added = self.added(name, base).unwrap_or(0.0);
            let ratio = median(rounds.iter().zip(base_rounds).map(|(own, base)| own / base).collect());
            let of_reference = reference.map(|reference| added / reference);
            let shown = of_reference.map_or_else(|| "-".to_owned(), |part| format!("{part:.2}"));
            // There is no multiple of zero.
            let times = if ratio.is_finite() { format!("{ratio:.2}") } else { "-".into() };
            println!("{name:<34}{middle:>11.1}{low:>11.1}{high:>11.1}{added:>11.1}{times:>8}{shown:>8}");
            values.push(json!({
                "case": name, "median_ns": middle, "quartiles_ns": [low, high], "added_ns": added,
                "ratio": ratio, "part_of_reference": of_reference, "rounds_ns": rounds,
            }));
        }
        json!({ "title": self.title, "cases": values })
    }
}

fn median(values: Vec<f64>) -> f64 {
    quantile(values, 2)
}

fn quantile(mut values: Vec<f64>, quarters: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) * quarters / 4]
}
