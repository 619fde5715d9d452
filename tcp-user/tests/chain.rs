//! Other programs on the same hook. Programs behind finwait's see every packet. On egress, finwait is behind
//! TCX programs, unless one of them ends the chain. On clsact, which kernels without TCX use, the next agent
//! removes the filters of a killed one.

mod common;
mod foreign;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use aya::programs::TcAttachType;
use aya::programs::links::LinkOrder;
use common::{Agent, FINWAIT, Signal, call, until};
use finwait::api::EgressPlace;
use finwait::kernel::has_tcx;
use finwait::lab::{Family, Lab};
use finwait::view::{Confidence, State};
use foreign::{ForeignTc, attached};

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

/// Checks that a program attached behind finwait's drops every packet, and that finwait's see packets on
/// ingress.
#[track_caller]
fn a_wall_behind_ours_holds(ours_by_tcx: bool, wall_by_tcx: bool) {
    let lab = lab();
    let agent = agent(&lab, &format!("wall-{ours_by_tcx}-{wall_by_tcx}"), ours_by_tcx);
    let listener = listen(&lab);
    let server = listener.local_addr().expect("its address");
    let open = connect(&lab, server).expect("nothing is in the way");
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        let wall = ForeignTc::wall(&lab.server, hook, wall_by_tcx);
        let seen = agent.stats().packets_seen;
        let error = connect(&lab, server).expect_err("the wall behind ours drops everything");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{hook:?}");
        assert!(agent.stats().packets_seen > seen, "{hook:?}: ours is first on ingress and hands on");
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

/// The place of the agent's egress program.
fn place(agent: &Agent<'_>) -> Option<EgressPlace> {
    let status = agent.status();
    let [watched] = status.interfaces.as_slice() else { panic!("one interface: {status:?}") };
    assert_eq!(watched.error, None);
    watched.egress_place
}

/// Whether the hooks of the server's interface have TCX. Filters of clsact stay where they are: `status`
/// has no place then.
fn has_places(lab: &Lab) -> bool {
    let tcx = lab.server.run(|| has_tcx(lab.server.interface)).expect("entering the namespace");
    if !tcx {
        let agent = agent(lab, "no-places", true);
        let _other = ForeignTc::wall(&lab.server, TcAttachType::Egress, false);
        assert_eq!(place(&agent), None);
    }
    tcx
}

/// When the translating programs come, and where they want to be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Translators {
    BeforeTheAgent,
    InLastPlace,
    InFirstPlace,
}

/// The agent watches the server, whose address other programs translate on both hooks.
#[track_caller]
fn a_translated_connection_is_one(when: Translators) {
    let lab = lab();
    if !has_places(&lab) {
        return;
    }
    let IpAddr::V4(real) = lab.server.address(Family::Ipv4) else { panic!("IPv4") };
    let [a, b, c, _] = real.octets();
    let shown = Ipv4Addr::new(a, b, c, 99);
    let server = &lab.server;
    call(server, "ip", &["address", "add", &format!("{shown}/24"), "dev", server.interface]);
    let translators = || {
        let place = || if when == Translators::InFirstPlace { LinkOrder::first() } else { LinkOrder::last() };
        [(TcAttachType::Ingress, [shown, real]), (TcAttachType::Egress, [real, shown])]
            .map(|(hook, addresses)| ForeignTc::translator(server, hook, addresses, place()))
    };
    let name = format!("translated-{when:?}");
    let (agent, translators) = if when == Translators::BeforeTheAgent {
        let translators = translators();
        (agent(&lab, &name, true), translators)
    } else {
        let agent = agent(&lab, &name, true);
        assert_eq!(place(&agent), None, "no other program");
        (agent, translators())
    };
    until("the agent is behind the translator", || place(&agent) == Some(EgressPlace::Last));
    let listener = server.run(|| TcpListener::bind((real, 0))).expect("entering").expect("listening");
    let port = listener.local_addr().expect("its address").port();
    let client = connect(&lab, SocketAddr::from((shown, port))).expect("connecting");
    let (accepted, _) = listener.accept().expect("accepting");
    assert_eq!(accepted.local_addr().expect("its address").ip(), IpAddr::V4(real));
    let of_port = || {
        let mut connections = agent.connections();
        connections.retain(|one| one.server.port == port);
        connections
    };
    until("both directions are seen", || of_port().iter().any(|one| one.server.state == State::Established));
    let connections = of_port();
    let [one] = connections.as_slice() else { panic!("one connection: {connections:?}") };
    assert_eq!(one.server.address, IpAddr::V4(shown), "the address on the wire");
    assert_eq!(one.confidence, Confidence::Exact);
    drop((client, accepted));
    until("both ends have closed", || {
        of_port().iter().all(|one| [State::TimeWait, State::Closed].contains(&one.client.state))
    });
    drop(translators);
    until("no other program is left", || place(&agent).is_none());
}

#[test]
#[ignore = "needs root"]
fn a_connection_translated_by_later_programs_is_one() {
    a_translated_connection_is_one(Translators::InLastPlace);
}

#[test]
#[ignore = "needs root"]
fn a_connection_translated_by_programs_that_go_first_is_one() {
    a_translated_connection_is_one(Translators::InFirstPlace);
}

#[test]
#[ignore = "needs root"]
fn a_connection_translated_by_earlier_programs_is_one() {
    a_translated_connection_is_one(Translators::BeforeTheAgent);
}

#[test]
#[ignore = "needs root"]
fn a_program_that_ends_the_chain_is_overtaken() {
    let lab = lab();
    if !has_places(&lab) {
        return;
    }
    let end = ForeignTc::end_of_chain(&lab.server, TcAttachType::Egress);
    let agent = agent(&lab, "ended", true);
    let listener = listen(&lab);
    let address = listener.local_addr().expect("its address");
    until("the agent is before the program that ends the chain", || {
        // Packets, none of which reaches the last place.
        drop(connect(&lab, address).expect("connecting"));
        place(&agent) == Some(EgressPlace::First)
    });
    let client = connect(&lab, address).expect("connecting");
    let port = client.local_addr().expect("its address").port();
    until("both directions are seen", || {
        let connections = agent.connections();
        connections.iter().any(|one| one.client.port == port && one.server.state == State::Established)
    });
    drop(end);
    until("the agent is alone", || place(&agent).is_none());
    assert!(agent.stop(Signal::SIGTERM).success());
    assert_eq!(attached(&lab.server, lab.server.interface), [""; 0], "nothing stays");
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
