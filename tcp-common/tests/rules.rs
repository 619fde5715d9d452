//! The table of rules, the scenarios that are about each, and the faults that break it:
//! `conformance/RULES.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use testkit::golden::assert_golden;
use testkit::scenario::{LAST_RULE, load};

/// Rules that no scenario can show, and why.
const WITHOUT_SCENARIO: &[(u8, &str)] =
    &[(25, "a scenario starts before any segment, without a socket: `tcp-common/tests/adopted.rs`")];

#[derive(Deserialize)]
struct Faults {
    mutant: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    id: String,
    fault: String,
}

#[test]
fn every_rule_has_a_scenario_and_a_fault() {
    let scenarios = load();
    let faults: Faults = toml::from_str(&read("conformance/mutants.toml")).expect("a list of faults");
    let rules = rules();
    let mut text = HEAD.to_owned();
    for (number, summary) in (1..=LAST_RULE).zip(&rules) {
        let citing: Vec<_> = scenarios.iter().filter(|scenario| scenario.cites.contains(&number)).collect();
        let breaking: Vec<_> = faults.mutant.iter().filter(|fault| fault.rule() == Some(number)).collect();
        let reason = WITHOUT_SCENARIO.iter().find(|(rule, _)| *rule == number).map(|(_, reason)| *reason);
        assert!(
            citing.is_empty() == reason.is_some(),
            "R{number} has no scenario, or a reason for having none"
        );
        assert!(!breaking.is_empty(), "R{number} has no fault in conformance/mutants.toml");
        let mut scenarios: Vec<_> = citing.iter().map(|scenario| scenario.id.as_str()).collect();
        scenarios.sort_unstable();
        let faults: Vec<_> = breaking.iter().map(|fault| fault.id.as_str()).collect();
        _ = writeln!(
            text,
            "| R{number} | {summary} | {} | {} |",
            reason.map_or(scenarios.join(", "), |reason| format!("none: {reason}")),
            faults.join(", ")
        );
    }
    text.push_str(SCENARIOS);
    for scenario in &scenarios {
        let rules: Vec<_> = scenario.cites.iter().map(|rule| format!("R{rule}")).collect();
        _ = writeln!(text, "| {} | {} | {} |", scenario.id, scenario.title, rules.join(", "));
    }
    text.push_str(FAULTS);
    for Fault { id, fault } in &faults.mutant {
        _ = writeln!(text, "| {id} | {fault} |");
    }
    assert_golden(path("conformance/RULES.md"), &text);
}

impl Fault {
    /// The rule that it breaks: 7 for `R7-late`.
    fn rule(&self) -> Option<u8> {
        let number = self.id.strip_prefix('R')?;
        number.split('-').next()?.parse().ok()
    }
}

/// The beginning of each rule in docs/STATE_MACHINE.md, R1 first.
fn rules() -> Vec<String> {
    let page = read("docs/STATE_MACHINE.md");
    let paragraph = |number: u8| {
        let (_, text) = page.split_once(&format!("- **R{number}** "))?;
        let words: Vec<_> = text.lines().take(3).flat_map(str::split_whitespace).collect();
        let text = words.join(" ").replace("**", "");
        let end = [". ", ": ", "; "].iter().filter_map(|end| text.find(end)).min();
        Some(text[..end.unwrap_or(text.len())].trim_end_matches(['.', ':']).to_owned())
    };
    (1..=LAST_RULE)
        .map(|number| {
            paragraph(number).unwrap_or_else(|| panic!("docs/STATE_MACHINE.md has no rule R{number}"))
        })
        .collect()
}

fn path(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("reading {file}: {error}"))
}

const HEAD: &str = "\
# Rules, scenarios and faults

Derived from [docs/STATE_MACHINE.md](../docs/STATE_MACHINE.md), `scenarios/*.pkt` and `mutants.toml`: do not edit.
`cargo xtask bless` renews it. `cargo xtask mutants` shows that a test notices each fault.

| rule | begins | scenarios | faults |
| --- | --- | --- | --- |
";
const SCENARIOS: &str = "
## Scenarios

| scenario | title | rules |
| --- | --- | --- |
";
const FAULTS: &str = "
## Faults

| fault | what it breaks |
| --- | --- |
";
