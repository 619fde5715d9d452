//! The agent's messages: to systemd, on a real notification socket (`sd_notify(3)`), and in its log.

mod common;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use common::{Agent, FINWAIT, Signal, call, public_folder, until};
use finwait::lab::Lab;

/// Reads messages until `last` arrives for the `count`th time, or panics if none comes within [`LIMIT`].
fn messages_until(socket: &UnixDatagram, last: &str, count: usize) -> Vec<String> {
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut messages: Vec<String> = Vec::new();
    let mut buffer = [0; 4096];
    while messages.iter().filter(|message| *message == last).count() < count {
        let read = socket.recv(&mut buffer);
        let read = read.unwrap_or_else(|error| panic!("{error}; so far {messages:?}"));
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        messages.extend(text.lines().map(str::to_owned));
    }
    messages
}

/// A deadline against hanging.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root"]
fn systemd_receives_ready_then_watchdog_then_stopping() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("notify");
    let path = folder.join("notify.sock");
    let systemd = UnixDatagram::bind(&path).expect("a notification socket");
    let socket = format!("{}/finwait.sock", folder.display());
    let mut command = Command::new(FINWAIT);
    command
        .args(["run", "--listen", "127.0.0.1:0", "--max-flows", "1024", "--socket", &socket])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000");
    let agent = Agent::start_by(&lab, &socket, &mut command);
    let alive = messages_until(&systemd, "WATCHDOG=1", 3);
    assert_eq!(alive, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);

    assert!(agent.stop(Signal::SIGTERM).success());
    messages_until(&systemd, "STOPPING=1", 1);
    systemd.set_nonblocking(true).expect("a mode");
    let after = systemd.recv(&mut [0; 64]).expect_err("nothing follows the last message");
    assert_eq!(after.kind(), ErrorKind::WouldBlock);
    std::fs::remove_dir_all(folder).expect("removing the folder");
}

#[test]
#[ignore = "needs root"]
fn the_log_names_settings_interfaces_and_the_end() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("log");
    let socket = format!("{}/finwait.sock", folder.display());
    let path = folder.join("log");
    let mut command = Command::new(FINWAIT);
    let interface = lab.server.interface;
    command.args(["run", "--listen", "127.0.0.1:0", "--max-flows", "1024", "--socket", &socket]);
    let file = File::create(&path).expect("a file for the log");
    let agent = Agent::start_logging(&lab, &socket, &mut command, file);
    let logged = |text: &str| fs::read_to_string(&path).expect("the log").contains(text);
    call(&lab.server, "ip", &["link", "add", "late0", "type", "veth", "peer", "name", "late1"]);
    for (change, message) in [
        (["set", "late0", "up"].as_slice(), "attached to late0: ingress "),
        (&["set", "late0", "down", "name", "later0"], "interface late0 is now named later0"),
        (&["del", "later0"], "interface later0 is gone"),
    ] {
        call(&lab.server, "ip", &[&["link"], change].concat());
        until(message, || logged(message));
    }
    assert!(agent.stop(Signal::SIGTERM).success());
    let log = fs::read_to_string(&path).expect("the log");
    for expected in [
        "flow table: 1024 IPv4 and 512 IPv6 connections, ",
        "rules: TIME-WAIT 1m at local and 1m at remote endpoints; idle timeouts: syn_sent ",
        &format!("attached to {interface}: ingress "),
        "watching 2 interfaces; metrics on http://127.0.0.1:",
        "received SIGTERM",
        "detached from 2 interfaces",
    ] {
        assert!(log.contains(expected), "{expected:?} in {log}");
    }
    fs::remove_dir_all(folder).expect("removing the folder");
}
