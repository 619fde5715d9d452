//! Coverage-guided fuzzing by libFuzzer, on stable Rust.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{call, root, target_dir};

/// The flags that cargo-fuzz passes to rustc, without the sanitizer: stable Rust has none, and the code under
/// test has no unsafe code of its own.
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

/// Fuzzes one target for a number of seconds. New inputs go to a corpus under the target folder. An input
/// that fails is written beside it and named.
///
/// # Errors
/// Fails for an unknown target, or if an input fails.
pub(crate) fn fuzz(target: &str, seconds: u64) -> Result<()> {
    let known = targets()?;
    ensure!(
        known.iter().any(|name| name == target),
        "no target {target:?}: choose one of {}",
        known.join(", ")
    );
    let work = root().join(target_dir()).join("fuzz");
    let found = work.join("corpus").join(target);
    fs::create_dir_all(&found)?;
    // With a named target the flags do not reach build scripts and macros.
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

/// The targets: each has a folder in the committed corpus.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in root().join("fuzz/corpus").read_dir().context("reading fuzz/corpus")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
