//! finwait on kernels that this machine does not run: Debian's, booted by qemu without KVM, and so without
//! root.
//!
//! `debian_kernel` fetches one; `guest` makes the files of a guest, whose first process (`init.sh`) runs the
//! [`PLAN`].

mod debian_kernel;
mod guest;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::target_dir;
use crate::debian;

use debian_kernel::DebianKernel;
pub(crate) use debian_kernel::Version;
use guest::Programs;

/// The programs that the guest runs: `finwait` or a test program, and its arguments.
const PLAN: &[&[&str]] = &[
    &["kernel_parse"],
    &["kernel_rare"],
    &["kernel_scenarios"],
    &["kernel_differential"],
    &["kernel_two_cpus"],
    &["kernel_diagnostics", "each_segment"],
    &["chain"],
    &["finwait", "demo"],
    &["finwait", "demo", "--ingress", "tc"],
];

const PACKAGES: &[&str] = &["busybox-static", "cpio", "iproute2", "qemu-system-x86", "xz-utils"];

/// Boots the given kernels, or all if none is given. Runs the plan on each, or only its lines that begin with
/// `only`.
pub(crate) fn run(versions: &[Version], only: Option<&str>) -> Result<()> {
    let plan: Vec<_> =
        PLAN.iter().copied().filter(|line| only.is_none_or(|only| line.first() == Some(&only))).collect();
    if plan.is_empty() {
        bail!("the plan has only {PLAN:?}");
    }
    debian::install(PACKAGES)?;
    let programs = Programs::build(&plan)?;
    let folder = std::path::absolute(target_dir()).context("the target folder")?.join("vmtest");
    let versions = if versions.is_empty() { Version::ALL } else { versions };
    let mut failed = Vec::new();
    for version in versions {
        let kernel = DebianKernel::fetch(*version, &folder)?;
        println!("{version}: booting {}", kernel.package);
        let image = guest::image(&folder, &kernel, &programs, &plan)?;
        let log = folder.join(format!("{version}.log"));
        let passed = boot(*version, &kernel.kernel, &image, &log)?;
        fs::remove_file(&image).context("removing the guest's files")?;
        println!("{version}: {}, see {}", if passed { "everything passed" } else { "FAILED" }, log.display());
        if !passed {
            failed.push(version.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("not right on {}", failed.join(", "));
    }
    Ok(())
}

/// Boots a guest, and prints and saves its output. Returns whether the guest printed [`guest::SUCCESS`].
fn boot(version: Version, kernel: &Path, image: &Path, log: &PathBuf) -> Result<bool> {
    let mut guest = Command::new("timeout")
        .args(["--kill-after=5", LIMIT, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", "2", "-m", MEMORY, "-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu")?;
    let output = guest.stdout.take().context("what qemu prints")?;
    let mut log = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let mut passed = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("reading what qemu prints")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        writeln!(log, "{line}").context("writing the log")?;
        println!("{version}: {line}");
        passed |= line == guest::SUCCESS;
    }
    guest.wait().context("waiting for qemu")?;
    Ok(passed)
}

/// Time limit for one kernel in seconds. Programs run about thirty times slower than without emulation.
const LIMIT: &str = "3600";
const MEMORY: &str = "1024";
