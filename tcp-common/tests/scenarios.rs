//! Every scenario of `conformance/scenarios.toml` through the pure machine: with every pair of ISNs, with the ends
//! swapped, and with every segment fed twice.

mod common;

use common::{ISN_PAIRS, Scenario, Variant, load, run};

fn run_all(swapped: bool, doubled: bool) {
    let (mut failures, mut runs) = (Vec::new(), 0);
    for scenario in load() {
        for isn in ISN_PAIRS.iter().copied().chain(scenario.isn.map(|isn| (isn.a, isn.b))) {
            runs += 1;
            let variant = Variant { isn, swapped, doubled };
            if let Err(message) = run(&scenario, variant) {
                failures.push(format!("{} {:?} {variant:?}\n    {message}", scenario.id, scenario.title));
            }
        }
    }
    assert!(runs > 500, "only {runs} runs: is the file complete?");
    assert!(failures.is_empty(), "{} of {runs} runs failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn as_written() {
    run_all(false, false);
}

#[test]
fn with_ends_swapped() {
    run_all(true, false);
}

#[test]
fn with_every_segment_twice() {
    run_all(false, true);
}

#[test]
fn with_ends_swapped_and_every_segment_twice() {
    run_all(true, true);
}

#[test]
fn a_broken_expectation_is_noticed() {
    let mut scenario: Scenario = load().remove(0);
    scenario.close[0].kind = vec!["simultaneous".into()];
    assert!(run(&scenario, Variant { isn: (1000, 5000), swapped: false, doubled: false }).is_err());
}
