//! The Debian package: built, checked by lintian, and tried on a system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{call, cargo, exists, is_root, root, target_dir};
use crate::debian;

/// Builds `finwait.deb` in the target folder and checks it with lintian; as root also tries it.
pub(crate) fn package() -> Result<()> {
    if !exists("cargo-deb") {
        cargo(&["install", "cargo-deb", "--version", "3.8.0", "--locked"])?;
    }
    let target = std::path::absolute(target_dir()).context("the target folder")?;
    let package = target.join("finwait.deb");
    cargo(&["build", "--release", "--package", "tcp-user"])?;
    let pages = target.join("release/pages");
    remove(&pages)?;
    call(Command::new(target.join("release/finwait")).arg("generate").arg(&pages))?;
    for section in [".1", ".5"] {
        call(Command::new("gzip").args(["-9", "--no-name"]).args(files_ending(&pages, section)?))?;
    }
    call(
        Command::new("cargo-deb").args(["-p", "tcp-user", "--no-build", "--strip", "--output"]).arg(&package),
    )?;
    call(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
    lint(&package)?;
    if is_root() {
        try_out(&target, &package)?;
    } else {
        println!(
            "The package was not installed. As root, this command tries it on a copy-on-write image of this system."
        );
    }
    println!("{} is ready: apt install {0}", package.display());
    Ok(())
}

/// Fails on an error or a warning of lintian that `packaging/lintian-overrides` does not justify.
fn lint(package: &Path) -> Result<()> {
    if is_root() {
        debian::install(&["lintian"])?;
    } else if !exists("lintian") {
        println!("lintian is not installed: the package was not checked (apt install lintian)");
        return Ok(());
    }
    call(Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(package))
}

/// The files of a folder whose names end in `ending`.
fn files_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = files.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect())
}

/// Boots systemd on a copy-on-write image of this system and runs `packaging/trial/trial.sh` there.
fn try_out(target: &Path, package: &Path) -> Result<()> {
    debian::install(&["systemd", "adduser", "curl", "iproute2"])?;
    let folder = target.join("package-trial");
    remove(&folder)?;
    fs::create_dir_all(&folder).context("making the folder of the trial")?;
    fs::copy(package, folder.join("finwait.deb")).context("copying the package")?;
    let scripts = root().join("packaging/trial");
    for name in ["trial.sh", "trial.service"] {
        fs::copy(scripts.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let group = ControlGroup::new()?;
    let booted = Command::new("sh")
        .args(["-c", r#"echo $$ > "$1/cgroup.procs" && shift && exec unshare "$@""#, "sh"])
        .arg(&group.0)
        .args(["--mount", "--pid", "--net", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child", "sh"])
        .args([&scripts.join("boot.sh"), &folder])
        .status()
        .context("starting unshare")?;
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    if !booted.success() {
        bail!("the trial of the package failed ({booted}):\n{log}");
    }
    println!(
        "The package was installed, started by systemd, used, broken and purged. Log: {}",
        folder.join("log").display()
    );
    Ok(())
}

/// A control group for the systemd of the trial, which therefore sees none of this system's. Removed when
/// dropped.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new() -> Result<ControlGroup> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let place = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let place =
            place.filter(|words| words.get(2) == Some(&"cgroup2")).find_map(|words| words.get(1).copied());
        let place = place.context("no cgroup2 is mounted: systemd needs one")?;
        let folder = Path::new(place).join(format!("finwait-package-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(ControlGroup(folder))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Its processes have ended or are ending.
        for _ in 0..50 {
            remove_groups(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("{} could not be removed", self.0.display());
    }
}

/// Removes a control group and those below it, leaves first. Their files cannot be removed.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
