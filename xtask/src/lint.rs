//! Format and lints.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::build_ebpf;
use crate::command::{call, cargo};

/// Checks format, lints and packaging of every crate; a warning is a failure.
///
/// # Errors
/// Fails if rustfmt or clippy is missing, and says what to install.
pub(crate) fn lint() -> Result<()> {
    for (tool, component, package) in
        [("fmt", "rustfmt", "rustfmt-web"), ("clippy", "clippy", "rust-web-clippy")]
    {
        let probe = Command::new(env!("CARGO"))
            .args([tool, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !probe.success() {
            bail!(
                "`cargo {tool}` is missing: run `rustup component add {component}`, \
                 or on Debian `apt install {package}`"
            );
        }
    }
    call(Command::new(env!("CARGO")).args(["fmt", "--all", "--check"]))?;
    build_ebpf::check_format()?;
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    build_ebpf::clippy()?;
    // The agent without the lab and the demonstration.
    cargo(&[
        "clippy",
        "--quiet",
        "--package",
        "tcp-user",
        "--no-default-features",
        "--",
        "--deny",
        "warnings",
    ])?;
    // Without `--no-verify` this would build every dependency once more.
    cargo(&[
        "package",
        "--quiet",
        "--no-verify",
        "--allow-dirty",
        "--package",
        "tcp-common",
        "--package",
        "tcp-user",
    ])
}
