//! What the ends' own segments prove after each step: derived by the pure state machine, kept in a
//! golden file.

use std::fmt::Write as _;

use tcp_common::{End, State};

use super::check::{Pure, feed};
use super::{Scenario, Step, Variant};
use crate::golden;

const GOLDEN: &str = include_str!("../../../../conformance/scenarios/proved.txt");

const HEADER: &str = "\
# What the own segments of ends a and b prove after each step of each scenario; `?` is nothing yet.
# Derived by the state machine: do not edit. `cargo xtask bless` renews it.
";

/// The text of the golden file, as the pure state machine derives it.
pub fn proved_states(scenarios: &[Scenario]) -> String {
    let mut text = HEADER.to_owned();
    for scenario in scenarios {
        let local =
            [[false; 2], [true, false], [false, true]].into_iter().find(|&local| scenario.holds(local));
        let variant = Variant { local: local.unwrap_or([true; 2]), ..Variant::PLAIN };
        let mut machine = Pure::new(scenario, variant);
        _ = writeln!(text, "\n{}", scenario.id);
        for step in &scenario.steps {
            if let Some(flow) = feed(step, variant, &mut machine) {
                let [a, b] = [End::A, End::B].map(|end| flow.proved(end).rfc_name());
                _ = writeln!(text, "{:>9}  {a}, {b}", step.at_ms);
            }
        }
    }
    text
}

/// Adds the golden file's states to the expectations. Scenarios that it does not have, or has with
/// other steps, stay without: the test of the golden file names them.
pub(super) fn attach(scenarios: &mut [Scenario]) {
    if golden::is_blessing() {
        return;
    }
    let paragraphs = GOLDEN.split("\n\n").skip(1).map(|paragraph| {
        let mut lines = paragraph.lines();
        (lines.next().unwrap_or_default(), lines.map(states).collect::<Vec<_>>())
    });
    for (id, proved) in paragraphs {
        let Some(scenario) = scenarios.iter_mut().find(|scenario| scenario.id == id) else { continue };
        let expected: Vec<_> =
            scenario.steps.iter_mut().filter_map(|Step { expected, .. }| expected.as_mut()).collect();
        if expected.len() == proved.len() {
            for (expected, proved) in expected.into_iter().zip(proved) {
                for (expected, proved) in expected.iter_mut().zip(proved) {
                    expected.proved = Some(proved);
                }
            }
        }
    }
}

/// The two states of a line such as `10  SYN-SENT, SYN-RECEIVED`.
fn states(line: &str) -> [State; 2] {
    let (_, names) = line.trim().split_once(' ').expect("a time and two states");
    let (a, b) = names.trim().split_once(", ").expect("two states");
    [a, b].map(|name| {
        let mut all = State::ALL.into_iter().chain([State::Unknown]);
        all.find(|state| state.rfc_name() == name).unwrap_or_else(|| panic!("no state is named {name}"))
    })
}
