//! Medians, spread and ratios: as a table and as JSON.

use serde_json::{Value, json};

/// Rounds of several cases, all of which take their turn in every round.
pub(crate) struct Series {
    title: &'static str,
    cases: Vec<(String, Vec<f64>)>,
}

impl Series {
    pub(crate) fn new(title: &'static str) -> Series {
        Series { title, cases: Vec::new() }
    }

    /// Takes one measurement, in ns.
    pub(crate) fn add(&mut self, case: &str, ns: f64) {
        match self.cases.iter_mut().find(|(name, _)| name == case) {
            Some((_, rounds)) => rounds.push(ns),
            None => self.cases.push((case.to_owned(), vec![ns])),
        }
    }

    /// Prints each case beside the first one. With `reference`, what each adds over what that one adds.
    pub(crate) fn print(&self, base: &str, reference: Option<&str>) -> Value {
        let rounds = |name: &str| self.cases.iter().find(|(case, _)| case == name).map(|(_, rounds)| rounds);
        let Some(base) = rounds(base) else { return Value::Null };
        let added = |rounds: &[f64]| median(rounds.iter().zip(base).map(|(own, base)| own - base).collect());
        let reference = reference.and_then(rounds).map(|rounds| added(rounds));
        println!("\n{} (ns; {} interleaved rounds)", self.title, base.len());
        println!(
            "{:<44}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "", "median", "quarter", "3/4", "added", "ratio", "of ref."
        );
        let mut values = Vec::new();
        for (name, rounds) in &self.cases {
            let (low, middle, high) =
                (quantile(rounds.clone(), 1), median(rounds.clone()), quantile(rounds.clone(), 3));
            let ratio = median(rounds.iter().zip(base).map(|(own, base)| own / base).collect());
            let of_reference = reference.map(|reference| added(rounds) / reference);
            let shown = of_reference.map_or_else(|| "-".to_owned(), |part| format!("{part:.2}"));
            println!(
                "{name:<44}{middle:>9.1}{low:>9.1}{high:>9.1}{:>9.1}{ratio:>9.2}{shown:>9}",
                added(rounds)
            );
            values.push(json!({
                "case": name, "median_ns": middle, "quartiles_ns": [low, high], "added_ns": added(rounds),
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
