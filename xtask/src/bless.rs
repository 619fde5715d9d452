//! Rewriting the golden files.

use std::process::Command;

use anyhow::Result;

use crate::command::call;

/// The tests that compare with golden files and snapshots, by package.
const GOLDEN_TESTS: [&[&str]; 2] = [
    &["--package", "tcp-common", "--test", "scenarios", "--test", "transitions", "--test", "rules"],
    &["--package", "tcp-user", "--lib", "--test", "metrics", "--test", "records"],
];

/// Runs the golden tests with the switches that make them write what they would compare: `FINWAIT_BLESS` for
/// the golden files, `INSTA_UPDATE` for insta's snapshots.
///
/// # Errors
/// Fails if a test fails for another reason than a golden file.
pub(crate) fn bless() -> Result<()> {
    for tests in GOLDEN_TESTS {
        call(
            Command::new(env!("CARGO"))
                .args(["test", "--quiet"])
                .args(tests)
                .env("FINWAIT_BLESS", "1")
                .env("INSTA_UPDATE", "always"),
        )?;
    }
    println!("read the difference: git diff");
    Ok(())
}
