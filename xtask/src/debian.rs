//! Debian packages.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{call, exists};

/// Installs those packages that are missing. Their services neither start nor will at the next boot: what is wanted is
/// the programs. A package that was there before is left as it is, and so is its service.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!("this is no Debian: install by hand what Debian calls {missing:?}, then try again");
    }
    println!("installing {missing:?}");
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
        // A service is called like its package here.
        if Path::new("/etc/init.d").join(package).exists() {
            call(Command::new("update-rc.d").args([package, "disable"]))?;
        }
    }
    Ok(())
}

/// While it is there, packages that are installed start no services: see `policy-rc.d` in invoke-rc.d(8).
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY) {
            Ok(mut file) => {
                let guard = NoServices { ours: true };
                // Without effect once this process is gone, should it be killed before it can take the file away.
                write!(
                    file,
                    "#!/bin/sh\n# Written by finwait's cargo xtask test, for the time it installs packages.\n\
                     kill -0 {} 2>/dev/null && exit 101\nexit 0\n",
                    std::process::id()
                )
                .with_context(|| format!("writing {POLICY}"))?;
                Ok(guard)
            }
            // The administrator's own word on services.
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
