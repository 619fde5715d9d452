//! The agent's messages to systemd, on a real notification socket: `sd_notify(3)`.

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use common::{Agent, FINWAIT, Signal, public_folder};
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
