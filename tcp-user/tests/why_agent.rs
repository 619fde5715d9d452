//! `finwait why`: connections of a running agent, open and ended, explained from what it remembers.

mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use common::{Agent, FINWAIT, until};
use finwait::api::Status;
use finwait::lab::Lab;
use finwait::view::State;
use finwait::why::Explanation;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

/// A connection from this port, which may be one in TIME-WAIT at the other end.
fn connect(lab: &Lab, port: u16) -> TcpStream {
    let connect = || {
        let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        socket::bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(127, 0, 0, 1, port))?;
        socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(127, 0, 0, 1, SERVER.port()))?;
        nix::Result::Ok(TcpStream::from(fd))
    };
    lab.server.run(connect).expect("namespace").expect("connecting")
}

fn why(agent: &Agent, flow: &str) -> Explanation {
    let output = agent.cli(&["why", flow, "-o", "json"]);
    assert!(output.status.success(), "{flow}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("an explanation")
}

/// Sender, flags, sequence and acknowledgment number, and payload of each segment, as a ladder has them.
fn segments(explanation: &Explanation) -> Vec<String> {
    let segments = explanation.steps.iter().filter_map(|step| step.segment.as_ref());
    segments
        .map(|segment| {
            let ack = segment.ack.map_or("-".to_owned(), |ack| ack.to_string());
            format!(
                "{} {} {} {ack} {}",
                segment.sender,
                segment.flag_names().join(","),
                segment.seq,
                segment.bytes
            )
        })
        .collect()
}

#[test]
#[ignore = "needs root"]
fn connections_are_explained_while_they_are_tracked_and_after() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "why", &["-i", "lo"]);
    let listener = lab.server.run(|| TcpListener::bind(SERVER)).expect("namespace").expect("a free port");

    let mut client = connect(&lab, 40_000);
    let (server, _) = listener.accept().expect("accepting");
    client.write_all(&[0; 300]).expect("sending");
    until("the handshake is remembered", || {
        let output = agent.cli(&["why", ":40000", "-o", "json"]);
        output.status.success() && segments(&serde_json::from_slice(&output.stdout).expect("JSON")).len() == 3
    });
    let open = why(&agent, ":40000");
    assert_eq!(segments(&open), ["client SYN 0 - 0", "server SYN,ACK 0 1 0", "client ACK 1 1 0"]);
    assert_eq!((open.carried.client_segments, open.carried.client_bytes), (1, 300));
    assert_eq!(open.verdict, "The connection is open.");
    let mut command = Command::new(FINWAIT);
    let beside = lab.server.run(|| command.args(["why", ":40000", "--socket", &agent.socket]).output());
    let text = String::from_utf8(beside.expect("namespace").expect("running the CLI").stdout).expect("text");
    let owner = format!("/{}\n", std::process::id());
    assert!(text.contains("process   ") && text.contains(&owner), "{text}");

    // The server closes first. Unread data would make it a RST.
    std::io::copy(&mut std::io::Read::take(&server, 300), &mut std::io::sink()).expect("reading");
    drop(server);
    let waits = |state: State| agent.cli(&["ls", "-c", "server state", state.name()]).stdout == b"1\n";
    until("the client has acknowledged the FIN", || waits(State::FinWait2));
    assert_eq!(why(&agent, "127.0.0.1:40000").client_waits, "its own application to close");
    drop(client);
    until("the server holds TIME-WAIT", || waits(State::TimeWait));
    let closed = why(&agent, ":40000");
    assert_eq!(
        segments(&closed)[3..],
        ["server FIN,ACK 1 301 0", "client ACK 301 2 0", "client FIN,ACK 301 2 0", "server ACK 2 302 0"]
    );
    assert!(closed.verdict.starts_with("The server closed first, in four segments, so it holds TIME-WAIT"));

    // The same addresses and ports take the first connection out of the table.
    let second = connect(&lab, 40_000);
    until("the second one is known", || why(&agent, ":40000").connection.id != closed.connection.id);
    assert_eq!(segments(&why(&agent, ":40000"))[0], "client SYN 0 - 0");
    let first = why(&agent, &closed.connection.id.to_string());
    assert_eq!(segments(&first), segments(&closed));
    assert_eq!(first.connection.end(finwait::view::Role::Server).state, State::Closed);
    assert!(
        first.verdict.contains("TIME-WAIT ended when the same addresses and ports were opened again"),
        "{}",
        first.verdict
    );
    let listed = agent.cli(&["ls", "--closed", "-o", "ndjson"]);
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.contains(&closed.connection.id.to_string()), "{listed}");
    assert_eq!(listed.lines().count(), 1, "the second one is open: {listed}");

    let status: Status =
        serde_json::from_slice(&agent.cli(&["status", "-o", "json"]).stdout).expect("a status");
    let history = status.history.expect("it is on by default");
    assert!(history.segments >= 8 && history.connections == 1 && history.since.is_some(), "{history:?}");
    drop(second);
}

#[test]
#[ignore = "needs root"]
fn a_name_that_fits_none_or_several_is_said() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "names", &["-i", "lo", "--history-memory", "0"]);
    let listener = lab.server.run(|| TcpListener::bind(SERVER)).expect("namespace").expect("a free port");
    let _clients = [connect(&lab, 40_000), connect(&lab, 40_001)];
    let _servers = [listener.accept(), listener.accept()];
    until("both are known", || agent.cli(&["ls", "-c", "state established"]).stdout == b"2\n");
    let fails = |flow: &[&str], status: i32, message: &str| {
        let output = agent.cli(&[&["why"], flow].concat());
        assert_eq!(output.status.code(), Some(status), "{flow:?}: {output:?}");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(error.contains(message), "{flow:?}: {error}");
    };
    fails(&[":7"], 2, "2 connections match (listed above)");
    fails(&[":9"], 1, "no connection matches");
    fails(&["closer", "nobody"], 2, "nobody");
    fails(&["process", "nginx"], 2, "name it by its id");
    fails(&[], 2, "FLOW");
    let explanation = why(&agent, ":40001");
    assert_eq!(segments(&explanation), ["client SYN 0 - 0"], "taken from the flow, nothing is remembered");
    assert_eq!(explanation.carried.client_segments, 1);
}
