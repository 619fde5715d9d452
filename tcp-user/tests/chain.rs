//! Other programs on the same hook. Programs behind finwait's see every packet. On clsact, which kernels
//! without TCX use, the next agent removes the filters of a killed one.

mod common;
mod foreign;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use aya::programs::TcAttachType;
use common::{Agent, FINWAIT, Signal, call, until};
use finwait::kernel::has_tcx;
use finwait::lab::{Family, Lab};
use finwait::view::State;
use foreign::{Wall, attached};

fn lab() -> Lab {
    Lab::new().expect("making namespaces (root needed)")
}

/// Starts an agent on the server's interface by TC. It uses clsact on any kernel if `tcx` is false.
fn agent<'a>(lab: &'a Lab, name: &str, tcx: bool) -> Agent<'a> {
    let socket = format!("{}/{name}.sock", env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(FINWAIT);
    command.args(["run", "--listen", "127.0.0.1:0", "--max-flows", "1024", "--socket", &socket]);
    command.args(["--ingress", "tc", "-i", lab.server.interface]);
    if !tcx {
        // SAFETY: only system calls between fork and exec.
        unsafe { command.pre_exec(foreign::without_tcx) };
    }
    Agent::start_by(lab, &socket, &mut command)
}

fn listen(lab: &Lab) -> TcpListener {
    let address = lab.server.address(Family::Ipv4);
    lab.server.run(|| TcpListener::bind((address, 0))).expect("entering the namespace").expect("listening")
}

fn connect(lab: &Lab, to: SocketAddr) -> io::Result<TcpStream> {
    lab.client
        .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)))
        .expect("entering the namespace")
}

/// Checks that a program behind finwait's drops every packet, and that finwait's has seen each of them
/// before.
#[track_caller]
fn a_wall_behind_ours_holds(ours_by_tcx: bool, wall_by_tcx: bool) {
    let lab = lab();
    let agent = agent(&lab, &format!("wall-{ours_by_tcx}-{wall_by_tcx}"), ours_by_tcx);
    let listener = listen(&lab);
    let server = listener.local_addr().expect("its address");
    let open = connect(&lab, server).expect("nothing is in the way");
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        let wall = Wall::behind(&lab.server, hook, wall_by_tcx);
        let seen = agent.stats().packets_seen;
        let error = connect(&lab, server).expect_err("the wall behind ours drops everything");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{hook:?}");
        assert!(agent.stats().packets_seen > seen, "{hook:?}: ours came first and handed on");
        drop(wall);
        connect(&lab, server).expect("the wall is gone");
    }
    drop(open);
}

#[test]
#[ignore = "needs root"]
fn a_filter_after_our_filter_sees_every_packet() {
    a_wall_behind_ours_holds(false, false);
}

#[test]
#[ignore = "needs root"]
fn a_filter_after_our_tcx_program_sees_every_packet() {
    let lab = lab();
    let interface = lab.server.interface;
    // Without TCX, finwait's program is a filter too.
    let tcx = lab.server.run(|| has_tcx(interface)).expect("entering the namespace");
    a_wall_behind_ours_holds(tcx, false);
}

#[test]
#[ignore = "needs root"]
fn a_tcx_program_after_ours_sees_every_packet() {
    let lab = lab();
    let interface = lab.server.interface;
    let tcx = lab.server.run(|| has_tcx(interface)).expect("entering the namespace");
    a_wall_behind_ours_holds(tcx, tcx);
}

#[test]
#[ignore = "needs root"]
fn an_agent_on_clsact_removes_the_filters_of_a_killed_one() {
    let lab = lab();
    let server = &lab.server;
    let ours = |programs: &[String]| programs.iter().filter(|name| name.contains("finwait_")).count();
    // A filter of another program, attached before the agent starts.
    let stranger = ["filter", "add", "dev", server.interface, "ingress", "pref", "77", "handle", "7", "bpf"];
    call(server, "tc", &["qdisc", "add", "dev", server.interface, "clsact"]);
    call(server, "tc", &[&stranger[..], &["bytecode", "1,6 0 0 4294967295"]].concat());
    let before = attached(server, server.interface);

    let killed = agent(&lab, "clsact", false);
    let status = killed.status();
    let [watched] = status.interfaces.as_slice() else { panic!("one interface: {status:?}") };
    assert_eq!((watched.ingress.as_deref(), watched.egress.as_deref()), (Some("clsact"), Some("clsact")));
    assert_eq!(ours(&attached(server, server.interface)), 2);
    let listener = listen(&lab);
    let open = connect(&lab, listener.local_addr().expect("its address")).expect("connecting");
    until("the connection is listed", || {
        killed.connections().iter().any(|one| one.client.state == State::Established)
    });
    assert_eq!(killed.stop(Signal::SIGKILL).code(), None, "killed");
    assert_eq!(ours(&attached(server, server.interface)), 2, "a filter has no owner");

    let next = agent(&lab, "clsact", false);
    assert_eq!(ours(&attached(server, server.interface)), 2, "those left behind went, its own came");
    assert!(next.stop(Signal::SIGTERM).success());
    assert_eq!(attached(server, server.interface), before, "nothing of ours, and the stranger");
    drop(open);
}
