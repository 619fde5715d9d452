//! The Debian package, and a look at what it installs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{call, cargo, exists};

const INSTALLED: &str = "usr/sbin/finwait";

/// Builds `finwait.deb` in the target folder, unpacks it beside it and starts the program in it.
pub(crate) fn package() -> Result<()> {
    if !exists("cargo-deb") {
        cargo(&["install", "cargo-deb", "--version", "3.8.0", "--locked"])?;
    }
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let target = std::path::absolute(&target).context("the target folder")?;
    let package = target.join("finwait.deb");
    let unpacked = target.join("finwait.deb.unpacked");
    cargo(&["build", "--release", "--package", "tcp-user"])?;
    call(
        Command::new("cargo-deb").args(["-p", "tcp-user", "--no-build", "--strip", "--output"]).arg(&package),
    )?;
    call(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
    remove(&unpacked)?;
    call(Command::new("dpkg-deb").arg("--extract").args([&package, &unpacked]))?;
    call(Command::new(unpacked.join(INSTALLED)).arg("--version"))?;
    remove(&unpacked)?;
    println!("{} is ready: apt install {0}", package.display());
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
