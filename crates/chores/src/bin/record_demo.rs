//! Records the closes of `finwait demo` on the link of a lab into the given file: see
//! `cargo xtask record-demo`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use finwait::lab::{Family, Lab, Scenario};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn main() -> Result<()> {
    let file = PathBuf::from(std::env::args_os().nth(1).context("name a file")?);
    let lab = Lab::new()?;
    let mut tcpdump = Command::new("tcpdump");
    tcpdump
        .args(["--immediate-mode", "-U", "-Z", "root", "-i", lab.server.interface, "-w"])
        .arg(&file)
        .arg("tcp");
    let mut tcpdump = lab.server.run(|| tcpdump.spawn())?.context("starting tcpdump")?;
    // tcpdump writes the header after it has opened the interface.
    while !file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        ensure!(tcpdump.try_wait()?.is_none(), "tcpdump ended early");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut played = Vec::new();
    for &family in Family::ALL {
        for play in Scenario::perform_all(&lab, family) {
            played.push(play?);
        }
    }
    // tcpdump may not have written the last segments yet.
    std::thread::sleep(Duration::from_secs(1));
    kill(Pid::from_raw(i32::try_from(tcpdump.id())?), Signal::SIGINT).context("interrupting tcpdump")?;
    ensure!(tcpdump.wait()?.success(), "tcpdump failed");
    Ok(())
}
