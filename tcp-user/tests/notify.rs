//! What the agent tells systemd, on a real notification socket: `sd_notify(3)`.

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Agent, FINWAIT, public_folder};
use finwait::lab::Lab;

/// The messages that have come, or come within `limit`.
fn messages(socket: &UnixDatagram, limit: Duration) -> Vec<String> {
    let mut messages = Vec::new();
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 4096];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("a limit");
        match socket.recv(&mut buffer) {
            Ok(count) => {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                messages.extend(text.lines().map(str::to_owned));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    messages
}

#[test]
fn systemd_is_told_of_readiness_of_life_and_of_the_end() {
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
    let alive = messages(&systemd, Duration::from_secs(6));
    assert_eq!(alive.first().map(String::as_str), Some("READY=1"), "{alive:?}");
    let pings = alive.iter().filter(|message| *message == "WATCHDOG=1").count();
    assert!(pings >= 3, "at least one in each 2 s: {alive:?}");
    assert_eq!(pings, alive.len() - 1, "nothing else: {alive:?}");

    assert!(agent.stop("TERM").success());
    let end = messages(&systemd, Duration::from_millis(200));
    assert_eq!(end.last().map(String::as_str), Some("STOPPING=1"), "{end:?}");
    std::fs::remove_dir_all(folder).expect("removing the folder");
}
