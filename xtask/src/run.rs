//! Running things: tests, the demonstration, the benchmark.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{call, cargo, exists, is_root, root, target_dir};
use crate::{build_ebpf, debian};

/// The Debian packages whose programs the tests marked `#[ignore = "needs root"]` run.
const ROOT_TEST_PACKAGES: &[&str] = &["curl", "iproute2", "nftables", "nginx", "prometheus", "wrk"];

/// Runs every test; without root, those that need no root. With `install` as root, installs the packages they
/// need first.
///
/// No test decides by a time, so nothing here depends on the processor.
///
/// # Errors
/// Fails if a test fails, or if the committed kernel object is older than its sources.
pub(crate) fn test(install: bool, arguments: &[String]) -> Result<()> {
    build_ebpf::sources_match()?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--workspace", "--"]);
    if is_root() {
        if install {
            debian::install(ROOT_TEST_PACKAGES)?;
        } else {
            name_missing_packages();
        }
        // One at a time: tests load kernel programs and count what these see.
        command.args(["--include-ignored", "--test-threads", "1"]);
    } else {
        println!(
            "not root: the tests that load kernel programs or make network namespaces are listed as ignored"
        );
    }
    call(command.args(arguments))
}

fn name_missing_packages() {
    let missing = debian::missing(ROOT_TEST_PACKAGES);
    if !missing.is_empty() {
        println!("not installed: {}; the tests that run their programs will fail", missing.join(" "));
    }
}

/// Builds finwait and runs its demonstration.
pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    cargo(&["build", "--quiet", "--release", "--package", "tcp-user"])?;
    let binary = format!("{}/release/finwait", target_dir());
    let mut command = if is_root() || !exists("sudo") {
        Command::new(binary)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(binary);
        sudo
    };
    call(command.arg("demo").args(arguments))
}

/// Rewrites the capture in the binary. Needed after the lab's scenarios have changed.
pub(crate) fn record_demo() -> Result<()> {
    debian::install(&["tcpdump"])?;
    let capture = format!("{}/recording.pcap", target_dir());
    let _ = std::fs::remove_file(&capture);
    cargo(&["run", "--quiet", "--package", "chores", "--bin", "record_demo", &capture])?;
    call(Command::new("gzip").args(["-9", "--no-name", "--force", &capture]))?;
    let kept = root().join("tcp-user/src/demo/recording.pcap.gz");
    std::fs::copy(format!("{capture}.gz"), &kept).context("keeping the recording")?;
    println!("wrote {}; commit it", kept.display());
    Ok(())
}

/// Runs the benchmark with these arguments.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    debian::install(&["nftables", "nginx", "wrk"])?;
    let build = format!("{}/release", target_dir());
    release("bench")?;
    call(
        Command::new(format!("{build}/bench"))
            .args([
                "--json",
                &format!("{}/bench.json", target_dir()),
                "--finwait",
                &format!("{build}/finwait"),
            ])
            .args(arguments),
    )
}

/// Runs the socket storm with these arguments.
pub(crate) fn storm(arguments: &[String]) -> Result<()> {
    debian::install(&["iproute2", "nftables"])?;
    release("storm")?;
    call(Command::new(format!("{}/release/storm", target_dir())).args(arguments))
}

/// Builds finwait and the program of one of `crates/` in the release profile.
fn release(package: &str) -> Result<()> {
    cargo(&["build", "--quiet", "--release", "--package", "tcp-user", "--package", package, "--bins"])
}
