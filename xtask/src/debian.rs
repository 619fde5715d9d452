//! Debian packages.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::run::{call, exists};

/// Installs those packages that are missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!("this is no Debian: install by hand what Debian calls {missing:?}, then try again");
    }
    println!("installing {missing:?}");
    call(Command::new("apt-get").args(["update", "--quiet"]).stdout(Stdio::null()))?;
    call(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()),
    )
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    query.is_ok_and(|output| output.stdout == b"installed")
}
