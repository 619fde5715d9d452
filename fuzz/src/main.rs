//! The program that libFuzzer drives; `FINWAIT_FUZZ_TARGET` names the target.

#![no_main]

use std::sync::OnceLock;

use finwait_fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));

fn chosen() -> Target {
    let name = std::env::var("FINWAIT_FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(target, _)| *target == name) {
        Some((_, target)) => *target,
        None => panic!("FINWAIT_FUZZ_TARGET={name}: choose one of {:?}", TARGETS.map(|(name, _)| name)),
    }
}
