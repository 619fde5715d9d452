//! The privileges of a running agent, which suffice to follow interfaces and for nothing else.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use common::{Agent, FINWAIT, Signal, call, public_folder, until};
use finwait::lab::{Lab, Namespace};
use procfs::process::Process;

/// Makes the command `finwait run` on this socket, with metrics on a free port.
fn run(socket: &str) -> Command {
    let mut command = Command::new(FINWAIT);
    command.args(["run", "--listen", "127.0.0.1:0", "--max-flows", "1024", "--socket", socket]);
    command
}

/// The mask of CAP_NET_ADMIN, by its number in `linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;

/// Asserts that every thread of the agent has CAP_NET_ADMIN and no other privilege. Privileges belong to
/// threads.
fn assert_minimal_privileges(pid: u32, uid: u32, bounding: u64) {
    let tasks = Process::new(pid.cast_signed()).expect("the agent's process").tasks().expect("its threads");
    let threads: Vec<_> = tasks.map(|task| task.expect("a thread").status().expect("its status")).collect();
    assert!(threads.len() > 1, "the runtime has threads");
    for thread in threads {
        assert_eq!([thread.capeff, thread.capprm], [NET_ADMIN; 2], "{thread:?}");
        assert_eq!((thread.capinh, thread.capamb), (0, Some(0)), "{thread:?}");
        assert_eq!(thread.capbnd, Some(bounding), "{thread:?}");
        assert_eq!(thread.nonewprivs, Some(1));
        assert_eq!([thread.ruid, thread.euid, thread.suid, thread.fuid], [uid; 4]);
        assert!(uid == 0 || thread.groups.is_empty(), "no group of root's: {thread:?}");
    }
}

/// Makes a connection over `lo` of the server, through a new interface. The agent must see both.
fn follows_a_new_interface(lab: &Lab, agent: &Agent) {
    call(&lab.server, "ip", &["link", "add", "late0", "type", "veth", "peer", "name", "late1"]);
    call(&lab.server, "ip", &["link", "set", "late0", "up"]);
    until("the new interface is watched", || {
        let interfaces = agent.status().interfaces;
        interfaces.iter().any(|one| one.interface == "late0" && one.ingress.as_deref() == Some("tcx"))
    });
    lab.server
        .run(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
            let client =
                std::net::TcpStream::connect(listener.local_addr().expect("its port")).expect("connecting");
            drop((listener.accept().expect("accepting"), client));
        })
        .expect("entering the namespace");
    until("the connection is listed", || agent.stats().packets_tracked > 0);
}

#[test]
#[ignore = "needs root"]
fn root_keeps_only_what_later_interfaces_need() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("root");
    let socket = format!("{}/own/finwait.sock", folder.display());
    let agent = Agent::start_by(&lab, &socket, &mut run(&socket));
    assert_minimal_privileges(agent.process.id(), 0, NET_ADMIN);
    follows_a_new_interface(&lab, &agent);
    assert_eq!(mode(&folder.join("own")), 0o750);
    assert_eq!(mode(Path::new(&socket)), 0o660);
    assert!(agent.stop(Signal::SIGTERM).success());
    assert!(!Path::new(&socket).exists(), "the socket is gone");
}

#[test]
#[ignore = "needs root"]
fn the_agent_changes_to_the_given_user() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("user");
    let socket = format!("{}/own/finwait.sock", folder.display());
    let agent = Agent::start_by(&lab, &socket, run(&socket).args(["--user", "nobody"]));
    let unprivileged = id("nobody");
    assert_minimal_privileges(agent.process.id(), unprivileged.parse().expect("a number"), NET_ADMIN);
    follows_a_new_interface(&lab, &agent);
    let owner = |path: &Path| fs::metadata(path).expect("its metadata").uid().to_string();
    assert_eq!(
        (owner(Path::new(&socket)), owner(&folder.join("own"))),
        (unprivileged.clone(), unprivileged.clone())
    );
    // The user queries the agent without being root.
    let asked = Command::new("setpriv")
        .args(["--reuid", &unprivileged, "--clear-groups", FINWAIT, "status", "--socket"])
        .arg(&socket)
        .output()
        .expect("setpriv");
    assert!(asked.status.success(), "{asked:?}");
    assert!(agent.stop(Signal::SIGINT).success());
    assert!(!Path::new(&socket).exists(), "the socket is gone, though root made it");
}

/// The command `finwait` with these arguments, as a user of no group but its own.
fn as_user(user: &str, arguments: &[&str], socket: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups", FINWAIT]);
    command.args(arguments).args(["--socket", socket]);
    command
}

#[test]
#[ignore = "needs root"]
fn who_may_not_query_learns_which_group_may() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("group");
    let socket = format!("{}/own/finwait.sock", folder.display());
    let agent = Agent::start_by(&lab, &socket, run(&socket).args(["--user", "daemon"]));
    let unprivileged = id("nobody");
    let refusal = |stranger: &str| {
        let output = as_user(stranger, &["ls"], &socket).output().expect("setpriv");
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), message.lines().count()), (Some(4), 1), "{message}");
        message
    };
    assert!(refusal(&unprivileged).contains(r#"join group "daemon", or run this command as root"#));
    // Searchable, so that the socket itself refuses.
    fs::set_permissions(folder.join("own"), fs::Permissions::from_mode(0o755)).expect("its mode");
    assert!(refusal(&unprivileged).contains(r#"join group "daemon""#));
    let permitted = as_user(&id("daemon"), &["status"], &socket).output().expect("setpriv");
    assert!(permitted.status.success(), "{permitted:?}");
    drop(agent);
    let gone = as_user(&id("daemon"), &["ls"], &socket).output().expect("setpriv");
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
}

#[test]
#[ignore = "needs root"]
fn owners_that_cannot_be_seen_are_missing_with_a_word() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("owners");
    let socket = format!("{}/own/finwait.sock", folder.display());
    let agent = Agent::start_by(&lab, &socket, run(&socket).args(["--user", "daemon"]));
    let connect = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("an address"));
        (client.expect("connecting"), listener.accept().expect("accepting"))
    };
    let _open = lab.server.run(connect).expect("entering the namespace");
    until("the connection is listed", || !agent.connections().is_empty());
    let said = |namespace: &Namespace, command: &mut Command| {
        let output =
            namespace.run(|| command.output()).expect("entering the namespace").expect("starting it");
        let text = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), text.lines().filter(|line| line.contains("owners not shown")).count())
    };
    let as_root = |arguments: &[&str]| {
        let mut command = Command::new(FINWAIT);
        command.args(arguments).args(["--socket", &socket]);
        command
    };
    let (server, client) = (lab.server.namespace(), lab.client.namespace());
    let daemon = id("daemon");
    assert_eq!(said(server, &mut as_user(&daemon, &["ls", "-o", "wide"], &socket)), (Some(0), 1));
    assert_eq!(said(server, &mut as_user(&daemon, &["ls", "process", "privileges"], &socket)), (Some(1), 1));
    assert_eq!(said(server, &mut as_user(&daemon, &["ls"], &socket)), (Some(0), 0), "none are wanted");
    assert_eq!(said(server, &mut as_root(&["ls", "-o", "wide"])), (Some(0), 0), "all are shown");
    assert_eq!(said(client, &mut as_root(&["ls", "-p"])), (Some(0), 1), "another namespace");
}

#[test]
#[ignore = "needs root"]
fn an_unprivileged_user_needs_only_three_capabilities() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("three");
    let unprivileged = id("nobody");
    std::os::unix::fs::chown(&folder, Some(unprivileged.parse().expect("a number")), None)
        .expect("its owner");
    let socket = format!("{}/finwait.sock", folder.display());
    let start = |capabilities: &str| {
        let capabilities = capabilities.replace(' ', ",+");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &unprivileged, "--clear-groups"]);
        for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{set}=-all,+{capabilities}"));
        }
        let inner = run(&socket);
        command.arg(inner.get_program()).args(inner.get_args());
        command
    };
    for (two, missing) in [
        ("net_admin perfmon", "CAP_BPF missing"),
        ("bpf perfmon", "CAP_NET_ADMIN missing"),
        ("bpf net_admin", "CAP_PERFMON missing"),
    ] {
        let output =
            lab.server.run(|| start(two).output()).expect("entering the namespace").expect("setpriv");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{two}: {message}");
        assert!(message.contains(missing) && message.lines().count() == 1, "{two}: {message}");
        assert!(!Path::new(&socket).exists(), "nothing is left");
    }
    let agent = Agent::start_by(&lab, &socket, &mut start("bpf net_admin perfmon"));
    // Only root can reduce the bounding set, but no_new_privs makes the remaining set useless.
    assert_minimal_privileges(
        agent.process.id(),
        unprivileged.parse().expect("a number"),
        NET_ADMIN | 1 << 39 | 1 << 38,
    );
    follows_a_new_interface(&lab, &agent);
    assert!(agent.stop(Signal::SIGTERM).success());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("its metadata").mode() & 0o777
}

fn id(user: &str) -> String {
    let output = Command::new("id").args(["-u", user]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
