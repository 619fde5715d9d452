//! Both README commands on a machine that has nothing: a new minimal Debian 12 in a folder, entered by
//! chroot(2).
//!
//! It finds a package, program or variable that the project needs but does not install or document.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{call, is_root, root, target_dir};
use crate::debian;

/// What a new user installs before the README's commands.
const PREREQUISITES: &str = "build-essential rustc-web cargo-web";

/// Installs a minimal Debian 12, clones the last commit into it, and runs the README's two commands there.
///
/// # Errors
/// Fails without root, if the system cannot be installed, or if a command fails in it.
pub(crate) fn fresh(keep: bool) -> Result<()> {
    ensure!(is_root(), "a new system needs root: mounts, chroot, and the tests that load kernel programs");
    debian::install(&["debian-archive-keyring", "debootstrap", "git"])?;
    let system = std::path::absolute(target_dir()).context("finding the target folder")?.join("fresh");
    remove(&system)?;
    fs::create_dir_all(&system).with_context(|| format!("creating {}", system.display()))?;
    call(Command::new("debootstrap").args(["--variant=minbase", "bookworm"]).arg(&system))?;
    call(
        Command::new("git")
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(root())
            .arg(system.join("finwait")),
    )?;
    println!("what is not committed is not tested");
    let commands = readme_commands()?;
    println!("a new Debian 12 with {PREREQUISITES} runs: {}", commands.join(", then "));
    call(
        // The mounts of the script end with its mount namespace.
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh"])
            .arg(root().join("xtask/src/fresh.sh"))
            .arg(&system)
            .arg(PREREQUISITES)
            .args(&commands),
    )?;
    println!("both README commands pass on a new minimal Debian 12");
    if !keep {
        remove(&system)?;
    }
    Ok(())
}

/// The commands of the README's first shell block, without their comments.
fn readme_commands() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("README.md")).context("reading README.md")?;
    let block = text.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.context("README.md has no shell block")?;
    let commands = block.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
    let commands: Vec<_> = commands.filter(|command| !command.is_empty()).collect();
    ensure!(commands.len() == 2, "the README's first shell block has {} commands, not 2", commands.len());
    Ok(commands)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_begins_with_the_demo_and_the_tests() {
        assert_eq!(readme_commands().expect("two commands"), ["cargo xtask demo", "cargo xtask test"]);
    }
}
