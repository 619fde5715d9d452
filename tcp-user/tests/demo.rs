//! `finwait demo` as a new user runs it: as root, without privileges, and interrupted by Ctrl-C.

mod common;
mod foreign;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use common::FINWAIT;

fn demo(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("starting it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// Asserts the number of rows in both tables, and that all of them are right.
#[track_caller]
fn assert_all_right(text: &str) {
    for family in ["IPv4, ", "IPv6, "] {
        assert!(text.contains(family), "{text}");
    }
    let rows = text.lines().filter(|line| line.trim_start().starts_with("ok ")).count();
    assert_eq!(rows, 2 * finwait::lab::SCENARIOS.len(), "{text}");
    assert!(!text.contains("NO ") && !text.contains("not seen"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn root_sees_live_closes() {
    let (output, text) = demo(Command::new(FINWAIT).arg("demo"));
    assert!(output.status.success(), "{output:?}");
    assert_all_right(&text);
    assert!(text.contains("xdp-native on ingress") && !text.to_lowercase().contains("recording"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_sees_a_recording() {
    let nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", FINWAIT, "demo"];
    let (output, text) = demo(Command::new("setpriv").args(nobody));
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("CAP_SYS_ADMIN is missing") && message.lines().count() == 1, "{message}");
    assert_all_right(&text);
    assert!(text.starts_with("This is a recording.") && text.contains("sudo finwait demo"), "{text}");
    assert_eq!(text.matches("RECORDING").count(), 2, "each table says so: {text}");
}

#[test]
#[ignore = "needs root"]
fn a_kernel_without_bpf_shows_a_recording() {
    let mut command = Command::new(FINWAIT);
    command.arg("demo");
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(|| foreign::without_bpf(libc::ENOSYS)) };
    let (output, text) = demo(&mut command);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("this kernel"), "{output:?}");
    assert_all_right(&text);
}

#[test]
#[ignore = "needs root"]
fn an_interrupted_demo_exits_with_130_and_a_message() {
    let mut command = Command::new(FINWAIT);
    command.arg("demo").stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("starting it");
    let process = format!("/proc/{}/status", child.id());
    // The handler is installed once the kernel's default action for the signal is replaced. SIGINT is bit 1
    // of the caught signals.
    common::until("it is ready for Ctrl-C", || {
        let status = std::fs::read_to_string(&process).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        u64::from_str_radix(caught.trim(), 16).is_ok_and(|caught| caught & 2 != 0)
    });
    common::send(&child, common::Signal::SIGINT);
    let output = child.wait_with_output().expect("waiting");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
}
