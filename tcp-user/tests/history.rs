//! The history on disk of a running agent: what closed is in it, and what happens to it when the agent is killed, the
//! disk is full, or a file is damaged.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Agent, FINWAIT, Signal, call, public_folder, until};
use finwait::api::HistoryFilesStatus;
use finwait::lab::Lab;
use finwait::view::Close;
use socket2::{Domain, Socket, Type};

/// Opens and closes connections over `lo` of the server; the client of each has its own port and closes first.
fn close_connections(lab: &Lab, client_ports: impl IntoIterator<Item = u16>) {
    let listener =
        lab.server.run(|| TcpListener::bind("127.0.0.1:0")).expect("namespace").expect("a free port");
    let server = listener.local_addr().expect("bound");
    for port in client_ports {
        let mut client = lab.server.run(|| connect(port, server)).expect("namespace");
        let (mut accepted, _) = listener.accept().expect("accepting");
        client.write_all(&[0; 300]).expect("sending");
        accepted.read_exact(&mut [0; 300]).expect("reading");
        drop(client);
        assert_eq!(accepted.read(&mut [0]).expect("the FIN"), 0);
    }
}

fn connect(port: u16, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("a free port");
    socket.connect(&server.into()).expect("connecting");
    socket.into()
}

fn start<'a>(lab: &'a Lab, name: &str, directory: &Path, more: &[&str]) -> Agent<'a> {
    let directory = directory.to_str().expect("text");
    Agent::start(
        lab,
        name,
        &[&["-i", "lo", "--max-flows", "4096", "--history-dir", directory], more].concat(),
    )
}

fn files_status(agent: &Agent) -> HistoryFilesStatus {
    agent.status().history_files.expect("it is on")
}

fn until_written(agent: &Agent, count: u64) {
    until("the closes are written", || files_status(agent).written == count);
}

/// What `finwait history` lists.
fn history(agent: &Agent, arguments: &[&str]) -> Vec<Close> {
    let output = agent.cli(&[&["history", "-o", "ndjson"], arguments].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {output:?}");
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("a close")).collect()
}

fn ports(closes: &[Close]) -> Vec<u16> {
    closes.iter().map(|close| close.connection.client.port).collect()
}

/// The only file of the history.
fn only_file(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "db")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn sql(directory: &Path, statement: &str, more: &[&str]) -> std::process::Output {
    let directory = directory.to_str().expect("text");
    let mut command = Command::new(FINWAIT);
    command.args(["history", "--history-dir", directory, "--sql", statement]).args(more);
    command.output().expect("running the CLI")
}

#[test]
#[ignore = "needs root"]
fn what_closed_is_listed_also_after_a_restart() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let folder = public_folder("history");
    let directory = folder.join("files");
    let agent = start(&lab, "history", &directory, &[]);
    close_connections(&lab, 40_000..40_003);
    until_written(&agent, 3);
    assert_eq!(ports(&history(&agent, &[])), [40_002, 40_001, 40_000], "the latest first");
    assert_eq!(ports(&history(&agent, &["--limit", "1"])), [40_002]);
    assert_eq!(ports(&history(&agent, &["--since", "1h", "sport = :40001"])), [40_001]);
    assert_eq!(ports(&history(&agent, &["--until", "1h"])), [0; 0]);
    assert_eq!(ports(&history(&agent, &["closer server or age > 1h"])), [0; 0], "ages are as of the close");
    let listed = &history(&agent, &["sport = :40000"])[0];
    let tracked = agent.cli(&["ls", "-a", "-o", "ndjson", "sport = :40000"]).stdout;
    let tracked: finwait::view::Connection =
        serde_json::from_slice(&tracked).expect("it is in the table still");
    assert_eq!((listed.connection.id, &listed.connection.close), (tracked.id, &tracked.close));
    assert_eq!(listed.connection.client.bytes, 300);

    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in fs::read_dir(&directory).expect("a directory") {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
    let table = agent.cli(&["history", "dport = 1 or sport = :40000"]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.starts_with("ClosedAt ") && table.contains("127.0.0.1:40000*"), "{table}");
    let csv = String::from_utf8(agent.cli(&["history", "-o", "csv"]).stdout).expect("text");
    assert!(csv.starts_with("closed_at,family,") && csv.lines().count() == 4, "{csv}");
    let json = agent.cli(&["history", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["closes"].as_array().map(Vec::len), Some(3), "{json}");

    let counted =
        sql(&directory, "SELECT count(*) AS n, sum(client_bytes) AS bytes FROM connections", &["-o", "csv"]);
    assert_eq!(String::from_utf8_lossy(&counted.stdout), "n,bytes\n3,900\n", "{counted:?}");
    let inserted = sql(&directory, "DELETE FROM connections", &[]);
    assert_eq!(inserted.status.code(), Some(2), "{inserted:?}");

    assert!(agent.stop(Signal::SIGTERM).success());
    let agent = start(&lab, "history", &directory, &[]);
    assert_eq!(ports(&history(&agent, &[])), [40_002, 40_001, 40_000]);
    close_connections(&lab, [40_003]);
    until_written(&agent, 1);
    assert_eq!(ports(&history(&agent, &[])).len(), 4);
    let refused = lab.server.run(|| TcpStream::connect("127.0.0.1:9")).expect("namespace");
    assert!(refused.is_err(), "no program listens there");
    until_written(&agent, 2);
    let refused = history(&agent, &["kind refused"]);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].connection.server.port, 9);
}

#[test]
#[ignore = "needs root"]
fn a_killed_agent_leaves_what_was_written() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let directory = public_folder("killed").join("files");
    let agent = start(&lab, "killed", &directory, &[]);
    close_connections(&lab, 40_000..40_020);
    until_written(&agent, 20);
    assert!(!agent.stop(Signal::SIGKILL).success());
    let counted = sql(&directory, "SELECT count(*) AS n FROM connections", &["-o", "csv"]);
    assert_eq!(String::from_utf8_lossy(&counted.stdout), "n\n20\n", "{counted:?}");
    let agent = start(&lab, "killed", &directory, &[]);
    assert_eq!(history(&agent, &[]).len(), 20);
    close_connections(&lab, [40_020]);
    until_written(&agent, 1);
    assert_eq!(history(&agent, &[]).len(), 21);
}

/// A small file system in memory, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> SmallDisk {
        fs::create_dir(&path).expect("a directory");
        let disk = SmallDisk(path);
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(&disk.0).status();
        assert!(status.expect("mount").success());
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_costs_connections_and_nothing_else() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let disk = SmallDisk::mount(public_folder("full").join("disk"));
    let agent = start(&lab, "full", &disk.0.join("files"), &[]);
    close_connections(&lab, [40_000]);
    until_written(&agent, 1);
    let filling = disk.0.join("filling");
    let _ = fs::write(&filling, vec![0; 512 << 10]).expect_err("it does not fit");
    let mut port = 40_001;
    until("a close is dropped", || {
        close_connections(&lab, [port]);
        port += 1;
        files_status(&agent).dropped > 0
    });
    let status = files_status(&agent);
    assert!(status.error.as_ref().is_some_and(|error| error.contains("full")), "{status:?}");
    let page = agent.scrape();
    let dropped = page
        .lines()
        .find(|line| line.starts_with(r#"finwait_history_connections_total{outcome="disk_full"}"#));
    assert!(dropped.is_some_and(|line| !line.ends_with(" 0")), "{dropped:?}");
    let before = ports(&history(&agent, &[]));
    assert!(before.ends_with(&[40_000]), "what was written is there: {before:?}");

    fs::remove_file(filling).expect("room");
    until("closes are written again", || {
        close_connections(&lab, [port]);
        port += 1;
        files_status(&agent).error.is_none()
    });
    let after = ports(&history(&agent, &[]));
    assert!(after.len() > before.len() && after.ends_with(&before), "{before:?}, {after:?}");
    let status = files_status(&agent);
    until("all are written or dropped", || {
        let status = files_status(&agent);
        status.written + status.dropped == u64::from(port - 40_000)
    });
    assert_eq!(agent.stats().events_lost, 0, "{status:?}");
}

#[test]
#[ignore = "needs root"]
fn a_damaged_file_is_set_aside_and_named() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let directory = public_folder("damaged").join("files");
    let agent = start(&lab, "damaged", &directory, &[]);
    close_connections(&lab, [40_000]);
    until_written(&agent, 1);
    assert!(agent.stop(Signal::SIGTERM).success());
    let file = only_file(&directory);
    let text = "not a database\n".repeat(1000);
    fs::write(&file, &text).expect("writing");

    let agent = start(&lab, "damaged", &directory, &[]);
    let output = agent.cli(&["history"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(
        error.contains("the history is incomplete") && error.contains(file.to_str().expect("text")),
        "{error}"
    );
    until("the file is set aside", || files_status(&agent).set_aside == 1);
    let aside = file.with_extension("db.damaged");
    assert_eq!(fs::read_to_string(aside).expect("it is kept"), text);
    assert_eq!(history(&agent, &[]).len(), 0);
    close_connections(&lab, [40_001]);
    until_written(&agent, 1);
    assert_eq!(ports(&history(&agent, &[])), [40_001]);
}

#[test]
#[ignore = "needs root"]
fn the_directory_belongs_to_the_user_of_the_agent() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let folder = public_folder("owner");
    let directory = folder.join("files");
    let agent = start(&lab, "owner", &directory, &["--user", "nobody"]);
    close_connections(&lab, [40_000]);
    until_written(&agent, 1);
    let nobody = call(&lab.server, "id", &["-u", "nobody"]);
    for path in [&directory, &only_file(&directory)] {
        assert_eq!(fs::metadata(path).expect("it is there").uid().to_string(), nobody.trim());
    }
    // What root's SQLite leaves beside the file must not lock the agent out.
    assert!(agent.stop(Signal::SIGTERM).success());
    let counted = sql(&directory, "SELECT count(*) AS n FROM connections", &["-o", "csv"]);
    assert_eq!(String::from_utf8_lossy(&counted.stdout), "n\n1\n", "{counted:?}");
    let agent = start(&lab, "owner", &directory, &["--user", "nobody"]);
    close_connections(&lab, [40_001]);
    until_written(&agent, 1);
    // Another user gets no rights from --sql.
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "daemon",
        "--regid",
        "daemon",
        "--clear-groups",
        FINWAIT,
        "history",
        "--history-dir",
    ]);
    let output = command.arg(&directory).args(["--sql", "SELECT 1"]).output().expect("setpriv");
    assert_eq!(output.status.code(), Some(4), "{output:?}");

    // A directory that the agent cannot write to is an error of its start.
    let shut = folder.join("shut");
    fs::create_dir(&shut).expect("a directory");
    let mut command = Command::new(FINWAIT);
    command.args(["run", "-i", "lo", "--user", "nobody", "--listen", "127.0.0.1:0", "--socket"]);
    command.arg(folder.join("shut.sock")).arg("--history-dir").arg(&shut);
    let output = lab.server.run(|| command.output()).expect("namespace").expect("running the agent");
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(
        !output.status.success() && error.contains("choose another directory with --history-dir"),
        "{error}"
    );
}

#[test]
#[ignore = "needs root"]
fn an_agent_without_files_says_so() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "none", &["-i", "lo", "--max-flows", "1024"]);
    let output = agent.cli(&["history"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && error.contains("start it with --history-dir"), "{error}");
    assert_eq!(agent.status().history_files, None);
}
