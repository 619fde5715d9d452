//! Debian packages.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{call, exists};

/// Names the missing packages and installs them. Their services neither start now nor at the next boot: only
/// their programs are wanted. A package that is already installed stays as it is, and so does its service.
///
/// # Errors
/// Fails without `apt-get`, or when installing fails.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!(
            "apt-get is missing: install the equivalents of these Debian packages, then try again: {}",
            missing.join(" ")
        );
    }
    println!("installing the Debian packages {} (their services stay off)", missing.join(" "));
    let _no_services = NoServices::begin()?;
    call(Command::new("apt-get").args(["update", "--quiet"]).stdout(Stdio::null()))?;
    call(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()),
    )?;
    for package in missing {
        // Each of these packages names its service after itself.
        if Path::new("/etc/init.d").join(package).exists() {
            call(Command::new("update-rc.d").args([package, "disable"]))?;
        }
    }
    Ok(())
}

/// Returns the packages that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| !is_installed(package)).collect()
}

/// Keeps packages from starting services while it exists: see `policy-rc.d` in invoke-rc.d(8).
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY) {
            Ok(mut file) => {
                let guard = NoServices { ours: true };
                // The script allows everything once this process is gone: a killed process cannot remove the
                // file.
                write!(
                    file,
                    "#!/bin/sh\n# Written by finwait's cargo xtask while it installs packages.\n\
                     kill -0 {} 2>/dev/null && exit 101\nexit 0\n",
                    std::process::id()
                )
                .with_context(|| format!("writing {POLICY}"))?;
                Ok(guard)
            }
            // The administrator's own policy stays in force.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(NoServices { ours: false }),
            Err(error) => Err(error).with_context(|| format!("writing {POLICY}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
