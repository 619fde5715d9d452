//! The privileges of a running agent, which suffice to follow interfaces and for nothing else.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use common::{Agent, FINWAIT, Signal, call, public_folder, until};
use finwait::lab::Lab;
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
    let nobody = id("nobody");
    assert_minimal_privileges(agent.process.id(), nobody.parse().expect("a number"), NET_ADMIN);
    follows_a_new_interface(&lab, &agent);
    let owner = |path: &Path| fs::metadata(path).expect("its metadata").uid().to_string();
    assert_eq!((owner(Path::new(&socket)), owner(&folder.join("own"))), (nobody.clone(), nobody.clone()));
    // The user queries the agent without being root.
    let asked = Command::new("setpriv")
        .args(["--reuid", &nobody, "--clear-groups", FINWAIT, "status", "--socket"])
        .arg(&socket)
        .output()
        .expect("setpriv");
    assert!(asked.status.success(), "{asked:?}");
    assert!(agent.stop(Signal::SIGINT).success());
    assert!(!Path::new(&socket).exists(), "the socket is gone, though root made it");
}

#[test]
#[ignore = "needs root"]
fn an_unprivileged_user_needs_only_three_capabilities() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let folder = public_folder("three");
    let nobody = id("nobody");
    std::os::unix::fs::chown(&folder, Some(nobody.parse().expect("a number")), None).expect("its owner");
    let socket = format!("{}/finwait.sock", folder.display());
    let start = |capabilities: &str| {
        let capabilities = capabilities.replace(' ', ",+");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &nobody, "--clear-groups"]);
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
        nobody.parse().expect("a number"),
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
