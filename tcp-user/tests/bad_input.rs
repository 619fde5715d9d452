//! Errors of `finwait` for impossible requests. The message is one paragraph with the next step, the exit
//! code shows the kind of error, and nothing is left behind.

mod common;
mod foreign;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{Agent, FINWAIT, Signal, call, http_get, public_folder};
use finwait::lab::Lab;
use foreign::{Foreign, attached};
use socket2::{Domain, SockAddr, Socket, Type};

/// A lab, and a folder for the files that an agent leaves behind.
struct Scene {
    lab: Lab,
    folder: PathBuf,
}

impl Scene {
    fn new(name: &str) -> Scene {
        Scene { lab: Lab::new().expect("making namespaces (root needed)"), folder: public_folder(name) }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.display())
    }

    fn socket(&self) -> String {
        self.path("finwait.sock")
    }

    fn output(&self, command: &mut Command) -> Output {
        self.lab.server.run(|| command.output()).expect("entering the namespace").expect("starting it")
    }

    /// Runs `finwait run` on the scene's socket with these arguments.
    fn run(&self, arguments: &[&str]) -> Output {
        self.output(Command::new(FINWAIT).args(["run", "--socket", &self.socket()]).args(arguments))
    }

    /// Runs `finwait run` with these arguments as the user `nobody`.
    fn run_as_nobody(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", FINWAIT, "run"]);
        self.output(command.args(arguments))
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(attached(&self.lab.server, self.lab.server.interface), [""; 0]);
        assert!(!Path::new(&self.socket()).exists(), "the socket is gone");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Asserts that a command failed with this exit code. Its message is one paragraph on stderr that contains
/// all of `parts`.
#[track_caller]
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(output.stdout.is_empty(), "nothing on stdout");
    // The agent logs its settings before it attaches.
    let paragraph = message.find("finwait: ").map_or("", |start| message[start..].trim_end());
    assert!(paragraph.starts_with("finwait: ") && !paragraph.contains("\n\n"), "one paragraph: {message}");
    assert!(!message.contains("panicked") && !message.contains("backtrace"), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
#[ignore = "needs root"]
fn an_unknown_interface_is_named_with_the_existing_ones() {
    let scene = Scene::new("unknown");
    assert_refused(&scene.run(&["-i", "eth77"]), 5, &["eth77", "veth-server", "lo"]);
    scene.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root"]
fn an_unknown_user_is_named() {
    let scene = Scene::new("nouser");
    assert_refused(&scene.run(&["--user", "nemo"]), 4, &["nemo", "adduser", "--user"]);
    scene.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root"]
fn without_root_the_missing_capabilities_are_named() {
    let scene = Scene::new("nobody");
    fs::set_permissions(&scene.folder, fs::Permissions::from_mode(0o777)).expect("its mode");
    let refused = scene.run_as_nobody(&["--socket", &scene.socket()]);
    assert_refused(&refused, 4, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "missing", "root"]);
    scene.assert_nothing_is_left();
    let refused = scene.run_as_nobody(&["--socket", &scene.socket(), "--user", "root"]);
    assert_refused(&refused, 4, &["root", "--user"]);
}

#[test]
#[ignore = "needs root"]
fn a_kernel_without_bpf_is_reported_as_unsupported() {
    let scene = Scene::new("nobpf");
    let mut command = Command::new(FINWAIT);
    command.args(["run", "--socket", &scene.socket()]);
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(|| foreign::without_bpf(libc::ENOSYS)) };
    assert_refused(&scene.output(&mut command), 4, &["this kernel", "6.1"]);
    scene.assert_nothing_is_left();
}

/// Whether this process has the root directory of a chroot: the kernel lists no file system mounted there.
fn is_in_chroot() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    !mounts.lines().any(|mount| mount.split(' ').nth(4) == Some("/"))
}

#[test]
#[ignore = "needs root"]
fn root_of_a_user_namespace_is_refused() {
    if is_in_chroot() {
        // Not captured, so that the run shows it.
        let note = "not run: the kernel creates no user namespace in a chroot (user_namespaces(7))\n";
        std::io::stderr().write_all(note.as_bytes()).expect("writing a note");
        return;
    }
    let scene = Scene::new("userns");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", FINWAIT, "run", "--socket", &scene.socket()]);
    assert_refused(&scene.output(&mut command), 4, &["not permitted", "CAP_BPF", "root"]);
    scene.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root"]
fn an_attached_xdp_program_is_left_in_place() {
    let scene = Scene::new("taken");
    let server = &scene.lab.server;
    let foreign = Foreign::attach(server);
    let alone = ["xdp foreign"];
    assert_eq!(attached(server, server.interface), alone);
    let refused = scene.run(&["--listen", "127.0.0.1:0", "-i", server.interface, "--ingress", "xdp"]);
    assert_refused(&refused, 4, &[server.interface, "\"foreign\"", "--ingress tc"]);
    assert_eq!(attached(server, server.interface), alone, "still there, and nothing of ours");

    let agent = Agent::start(&scene.lab, "taken", &["-i", server.interface]);
    let beside = ["xdp foreign", "tcx ingress finwait_in", "tcx egress finwait_out"];
    assert_eq!(attached(server, server.interface), beside);
    assert!(agent.stop(Signal::SIGTERM).success());
    assert_eq!(attached(server, server.interface), alone, "still there, and nothing of ours");
    drop(foreign);
}

#[test]
#[ignore = "needs root"]
fn a_port_in_use_is_named() {
    let scene = Scene::new("port");
    let taken = scene.lab.server.run(|| std::net::TcpListener::bind("127.0.0.1:9817"));
    let _taken = taken.expect("entering the namespace").expect("binding");
    assert_refused(&scene.run(&[]), 5, &["127.0.0.1:9817", "in use", "--listen"]);
    scene.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root"]
fn only_a_stale_socket_is_replaced() {
    let scene = Scene::new("socket");
    let socket = scene.socket();
    fs::write(&socket, "a letter").expect("writing");
    assert_refused(&scene.run(&[]), 5, &[&socket, "not a socket", "--socket"]);
    assert_eq!(fs::read_to_string(&socket).expect("the file"), "a letter");
    fs::remove_file(&socket).expect("removing");

    let living = UnixListener::bind(&socket).expect("binding");
    assert_refused(&scene.run(&[]), 5, &["another agent", &socket]);
    assert!(Path::new(&socket).exists(), "a living socket stays");
    // A full queue means that no process accepts connections, but the socket still has an owner.
    let _queue: Vec<_> = std::iter::from_fn(|| connect(&socket).ok()).collect();
    assert_refused(&scene.run(&[]), 5, &["another agent", &socket]);
    drop(living);

    let mut command = Command::new(FINWAIT);
    command.args(["run", "--socket", &scene.path("a/b/finwait.sock")]);
    assert_refused(&scene.output(&mut command), 5, &["/a/b", "--socket"]);
    assert!(!Path::new(&scene.path("a")).exists(), "a path with a typo is no wish for folders");
    let refused = scene.run_as_nobody(&["--socket", &scene.path("closed.sock")]);
    assert_refused(&refused, 4, &["closed.sock", "--socket"]);
    let refused = scene.run_as_nobody(&["--socket", &scene.path("closed/finwait.sock")]);
    assert_refused(&refused, 4, &["/closed", "--socket"]);
}

fn connect(path: &str) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

#[test]
#[ignore = "needs root"]
fn an_agent_starts_after_another_was_killed() {
    let scene = Scene::new("killed");
    let server = &scene.lab.server;
    let socket = scene.socket();
    let command = || {
        let mut command = Command::new(FINWAIT);
        command.args(["run", "--listen", "127.0.0.1:0", "--max-flows", "1024", "--socket", &socket]);
        command
    };
    // Prepares a filter of an agent that was killed on a kernel without TCX, and a filter of another program.
    let stranger = ["filter", "add", "dev", server.interface, "ingress", "pref", "77", "handle", "7", "bpf"];
    call(server, "tc", &["qdisc", "add", "dev", server.interface, "clsact"]);
    call(server, "tc", &[&stranger[..], &["bytecode", "1,6 0 0 4294967295"]].concat());
    foreign::leave_stale_filter(server);
    let before = attached(server, server.interface);
    assert_eq!(before.iter().filter(|name| name.contains("finwait_in")).count(), 1, "{before:?}");

    let agent = Agent::start_by(&scene.lab, &socket, &mut command());
    let during = attached(server, server.interface);
    assert_eq!(during.len(), 3, "TCX twice, and the stranger: {during:?}");
    assert_eq!(agent.stop(Signal::SIGKILL).code(), None, "killed");
    let after = attached(server, server.interface);
    assert!(after.len() == 1 && after[0].contains("0x7"), "the stranger: {after:?}");
    assert!(Path::new(&socket).exists(), "a stale socket");

    // Replaces the stale socket, and attaches by XDP.
    let xdp = ["--ingress", "xdp", "-i", server.interface];
    let again = Agent::start_by(&scene.lab, &socket, command().args(xdp));
    assert!(attached(server, server.interface).contains(&"xdp finwait_xdp".to_owned()));
    assert_eq!(again.stop(Signal::SIGKILL).code(), None, "killed");
    assert_eq!(attached(server, server.interface), after);
}

#[test]
#[ignore = "needs root"]
fn a_mistake_in_the_configuration_file_is_located() {
    let scene = Scene::new("config");
    let path = scene.path("finwait.toml");
    let mistakes: [(&str, &[&str]); 5] = [
        ("msl = \"10s\"\nmax-flow = 300\n", &["line 2", "max-flow", "max-flows"]),
        ("\n\nmax-flows = \"many\"\n", &["line 3", "max-flows", "many"]),
        ("listen = \"localhost\"\n", &["line 1", "listen", "an address and a port"]),
        ("[timeout]\nclose_wait = \"10\"\n", &["line", "close_wait", "30s"]),
        ("msl = 10s\n", &["line 1", "msl"]),
    ];
    for (text, parts) in mistakes {
        fs::write(&path, text).expect("writing");
        let refused = scene.run(&["--config", &path]);
        assert_refused(&refused, 2, parts);
        assert_refused(&refused, 2, &[&path]);
    }
    assert_refused(&scene.run(&["--config", &scene.path("no.toml")]), 2, &["no.toml", "--config"]);
    scene.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root"]
fn options_override_the_environment_the_file_and_the_defaults() {
    let scene = Scene::new("order");
    let [option, environment, file] = ["option", "environment", "file"].map(|name| scene.path(name));
    let config = scene.path("finwait.toml");
    let text = format!(
        "socket = \"{file}\"\nmax-flows = 256\ningress = \"xdp\"\ninterface = \"veth-server\"\nuser = \"nobody\"\n"
    );
    fs::write(&config, text).expect("writing");
    let mut command = Command::new(FINWAIT);
    command
        .args(["run", "--socket", &option])
        .env("FINWAIT_SOCKET", &environment)
        .env("FINWAIT_MAX_FLOWS", "512")
        .env("FINWAIT_CONFIG", &config);
    let agent = Agent::start_by(&scene.lab, &option, &mut command);
    assert!(!Path::new(&environment).exists() && !Path::new(&file).exists(), "the option's socket");
    let status = agent.status();
    assert_eq!(status.table_capacity, 512 + 256, "the environment's, and half as many for IPv6");
    let [watched] = status.interfaces.as_slice() else { panic!("the file's: {status:?}") };
    assert_eq!((watched.interface.as_str(), watched.ingress.as_deref()), ("veth-server", Some("xdp-native")));
    let page = http_get(scene.lab.server.namespace(), "127.0.0.1:9817", "/metrics");
    assert!(page.contains("finwait_flow_table_capacity"), "the default's address: {page}");
    assert!(agent.stop(Signal::SIGTERM).success());
}

#[test]
#[ignore = "needs root"]
fn a_typo_in_a_filter_is_marked() {
    let scene = Scene::new("filter");
    for command in ["ls", "watch"] {
        let arguments = [command, "--socket", &scene.socket(), "state time-wait and dprot = :443"];
        let refused = scene.output(Command::new(FINWAIT).args(arguments));
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{message}");
        let lines: Vec<_> = message.lines().collect();
        let marked = lines.iter().position(|line| line.contains('^')).expect("a mark");
        let place = lines[marked].find('^').expect("a mark");
        assert!(lines[marked - 1][place..].starts_with("dprot"), "{message}");
        assert!(message.contains("did you mean `dport`"), "{message}");
    }
    let asked = scene.output(Command::new(FINWAIT).args(["ls", "--socket", &scene.socket()]));
    assert_refused(&asked, 3, &[&scene.socket(), "finwait run"]);
}

#[test]
#[ignore = "needs root"]
fn a_broken_capture_is_read_up_to_the_fault() {
    let scene = Scene::new("capture");
    let replay = |file: &str| scene.output(Command::new(FINWAIT).args(["replay", file]));
    assert_refused(&replay(&scene.path("no.pcap")), 5, &["no.pcap", "does not exist"]);
    let text = scene.path("notes.pcap");
    fs::write(&text, "GET / HTTP/1.0\r\n").expect("writing");
    assert_refused(&replay(&text), 5, &[&text, "is not a capture", "tcpdump -w"]);
    let cut = scene.path("cut.pcap");
    // A pcap header and half of the first record's header.
    let header = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1, 7, 0];
    let mut file = fs::File::create(&cut).expect("a file");
    file.write_all(&header.map(u32::to_ne_bytes).concat()).expect("writing");
    // Records before the fault are printed. Here only the heading is.
    let read = Output { stdout: Vec::new(), ..replay(&cut) };
    assert_refused(&read, 5, &[&cut, "byte 24", "cut short"]);
    let piped =
        Command::new(FINWAIT).args(["replay", "-"]).stdin(Stdio::null()).output().expect("starting it");
    assert_refused(&piped, 5, &["standard input", "is empty"]);
}
