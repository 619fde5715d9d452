//! Running things: tests, the demonstration, the benchmark.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{call, cargo, exists, is_root, root, target_dir};
use crate::{build_ebpf, debian};

/// The tests that need a kernel to load programs into, and root.
const KERNEL_TESTS: &[&str] = &[
    "kernel_parse",
    "kernel_scenarios",
    "kernel_differential",
    "kernel_replay",
    "query",
    "kernel_two_cpus",
    "kernel_table",
    "kernel_churn",
    "kernel_diagnostics",
    "lab",
    "chain",
    "agent",
    "privileges",
    "audit",
    "older",
    "traffic",
    "prometheus",
    "bad_input",
    "dry_run",
    "notify",
    "demo",
    "topology",
];

/// The Debian packages whose programs those tests run.
const KERNEL_TEST_PACKAGES: &[&str] = &["curl", "iproute2", "nftables", "nginx", "prometheus", "wrk"];

/// Format, lints, and every test there is.
pub(crate) fn test() -> Result<()> {
    build_ebpf::sources_match()?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    let mut arguments = vec!["test", "--workspace"];
    let others = tests_without_root()?;
    if is_root() {
        debian::install(KERNEL_TEST_PACKAGES)?;
        arguments.extend(["--", "--test-threads", "1"]);
    } else {
        println!(
            "not root: the kernel tests ({}) are left out, they load programs and make network namespaces",
            KERNEL_TESTS.join(", ")
        );
        arguments.extend(["--lib", "--bins"]);
        arguments.extend(others.iter().flat_map(|name| ["--test", name.as_str()]));
    }
    cargo(&arguments)?;
    if is_root() { gate() } else { Ok(()) }
}

/// Whether a packet of an established connection keeps to its short way: `bench --gate`, as the tests have built it.
pub(crate) fn gate() -> Result<()> {
    cargo(&["run", "--quiet", "--package", "bench", "--", "--gate"])
}

/// Every test, a file or a folder with a `main.rs`, but the [`KERNEL_TESTS`]: a new one is run unless it is named there.
fn tests_without_root() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in ["tcp-common/tests", "tcp-user/tests", "fuzz/tests"] {
        for entry in root().join(folder).read_dir().with_context(|| format!("reading {folder}"))? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_test =
                path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
            if is_test && !KERNEL_TESTS.contains(&name) {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
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

/// The capture in the binary: new when the scenarios of the lab have changed.
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

/// What packets and the agent cost, with what `arguments` say of it.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    if arguments == ["--gate"] {
        return gate();
    }
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

/// The socket storm, with what `arguments` say of it.
pub(crate) fn storm(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "--conntrack") {
        debian::install(&["nftables"])?;
    }
    release("storm")?;
    call(Command::new(format!("{}/release/storm", target_dir())).args(arguments))
}

/// Builds finwait and the program of one of `crates/` in the release profile.
fn release(package: &str) -> Result<()> {
    cargo(&["build", "--quiet", "--release", "--package", "tcp-user", "--package", package, "--bins"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_root_only_the_kernel_tests_are_left_out() {
        let names = tests_without_root().expect("the test folders");
        for name in ["corpus", "metrics", "properties", "replay", "scenarios"] {
            assert!(names.iter().any(|other| other == name), "{name} needs no root: {names:?}");
        }
        for name in KERNEL_TESTS {
            assert!(!names.iter().any(|other| other == name), "{name} needs root");
            assert!(root().join(format!("tcp-user/tests/{name}.rs")).is_file(), "{name} is a test");
        }
    }
}
