//! Others on the same hook: programs behind ours see every packet all the same; and on clsact, where kernels
//! without TCX keep filters, nothing of ours outlives the agent but what the next one removes.

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

/// An agent on the server's interface by TC; by clsact if `tcx` is false, on any kernel.
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

/// A wall behind ours must hold, and what it stopped must have passed by us before.
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
fn a_filter_behind_ours_sees_what_our_filter_has_seen() {
    a_wall_behind_ours_holds(false, false);
}

#[test]
#[ignore = "needs root"]
fn a_filter_behind_ours_sees_what_our_tcx_program_has_seen() {
    let lab = lab();
    let interface = lab.server.interface;
    // Where there is no TCX our program is a filter again.
    let tcx = lab.server.run(|| has_tcx(interface)).expect("entering the namespace");
    a_wall_behind_ours_holds(tcx, false);
}

#[test]
#[ignore = "needs root"]
fn a_tcx_program_behind_ours_sees_every_packet() {
    let lab = lab();
    let interface = lab.server.interface;
    let tcx = lab.server.run(|| has_tcx(interface)).expect("entering the namespace");
    a_wall_behind_ours_holds(tcx, tcx);
}

#[test]
#[ignore = "needs root"]
fn on_clsact_nothing_stays_but_what_the_next_agent_removes() {
    let lab = lab();
    let server = &lab.server;
    let ours = |programs: &[String]| programs.iter().filter(|name| name.contains("finwait_")).count();
    // Somebody else's filter, which was there before.
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
