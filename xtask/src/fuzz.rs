//! Coverage-guided fuzzing by libFuzzer, on stable Rust.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::command::{call, root, target_dir};

/// What cargo-fuzz passes to rustc, less the sanitizer, which stable has not: the code under test has no unsafe of its own.
const COVERAGE: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

/// Fuzzes one target for some seconds. What it finds goes to a corpus under the target folder; an input that fails is
/// written beside it and named.
pub(crate) fn fuzz(target: &str, seconds: u64) -> Result<()> {
    let work = root().join(target_dir()).join("fuzz");
    let found = work.join("corpus").join(target);
    fs::create_dir_all(&found)?;
    // Named, so that build scripts and macros are left as they are.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    call(
        Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--package", "finwait-fuzz", "--features", "libfuzzer"])
            .args(["--target", &triple])
            .env("CARGO_TARGET_DIR", &work)
            .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f")),
    )?;
    call(
        Command::new(work.join(&triple).join("release/finwait-fuzz"))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/{target}-", work.display()))
            .args(["-print_final_stats=1", "-max_len=4096", "-timeout=10"])
            .args([found, root().join("fuzz/corpus").join(target)])
            .env("FINWAIT_FUZZ_TARGET", target),
    )
}
