//! Makes symbol names independent of the checkout's path.
//!
//! Cargo derives a crate's identity, which its symbols carry, from the absolute path of a path dependency.
//! The wrapper derives it from the crate's name instead. For that, cargo runs this program in place of rustc.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

const MARK: &str = "XTASK_AS_RUSTC";

/// Makes cargo run this program in place of rustc.
///
/// # Errors
/// Fails if the path of this program is unknown.
pub(crate) fn wrap(cargo: &mut Command) -> Result<&mut Command> {
    let itself = env::current_exe().context("finding the path of xtask")?;
    Ok(cargo.env("RUSTC_WRAPPER", itself).env(MARK, "1"))
}

/// Whether cargo runs this program in place of rustc.
pub(crate) fn is_active() -> bool {
    env::var_os(MARK).is_some()
}

/// Replaces this process by the rustc that cargo asked for, with a stable crate identity.
///
/// # Errors
/// Returns only on failure.
pub(crate) fn run() -> Result<()> {
    let mut words = env::args_os().skip(1);
    let rustc = words.next().context("cargo passes the compiler first")?;
    let words = with_identity(words.collect(), &env::var("CARGO_PKG_NAME").unwrap_or_default());
    Err(Command::new(rustc).args(words).exec()).context("starting rustc")
}

/// Changes crates built for the kernel only: build scripts and macros leave nothing in the object.
fn with_identity(mut words: Vec<OsString>, package: &str) -> Vec<OsString> {
    if words.iter().any(|word| word == "--target") {
        for word in
            words.iter_mut().filter(|word| word.to_str().is_some_and(|word| word.starts_with("metadata=")))
        {
            *word = format!("metadata={package}").into();
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_for_the_kernel_get_another_identity() {
        let host: Vec<OsString> = ["-C", "metadata=17"].map(OsString::from).to_vec();
        assert_eq!(with_identity(host.clone(), "syn"), host);
        let mut kernel = host;
        kernel.extend(["--target", "bpfel-unknown-none"].map(OsString::from));
        assert_eq!(with_identity(kernel, "tcp-common")[1], "metadata=tcp-common");
    }
}
