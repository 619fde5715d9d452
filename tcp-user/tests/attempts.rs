//! A connect() without an answer: the agents of both hosts count it, and that of the sender reports it to watchers.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};

use common::watch::Watch;
use common::{Agent, call, until};
use finwait::lab::{Family, Host, Lab};
use finwait::view::{Connection, EventRecord, Role, State, Transition};
use socket2::{Domain, Socket, Type};

/// The server drops SYNs to these ports. A socket listens on the second one.
const SILENT: u16 = 81;
const LISTENING: u16 = 82;

/// The transitions of connections to this port that a watch has printed.
fn transitions(watch: &Watch, port: u16) -> Vec<Transition> {
    let transition = |event| if let EventRecord::Transition(one) = event { Some(one) } else { None };
    watch.events().into_iter().filter_map(transition).filter(|one| one.server.port == port).collect()
}

/// Starts to connect and does not wait.
fn connect(from: &Host, to: SocketAddr) -> Socket {
    let socket =
        from.run(|| Socket::new(Domain::IPV4, Type::STREAM, None)).expect("namespace").expect("room");
    socket.set_nonblocking(true).expect("non-blocking");
    let _in_progress = socket.connect(&to.into());
    socket
}

fn of_port(agent: &Agent<'_>, port: u16) -> Option<Connection> {
    agent.connections().into_iter().find(|connection| connection.server.port == port)
}

fn unanswered(agent: &Agent<'_>, role: &str) -> u64 {
    let name = format!("finwait_connection_attempts_unanswered_total{{role=\"{role}\"}} ");
    let page = agent.scrape();
    let count = page.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric");
    count.parse().expect("a number")
}

#[test]
#[ignore = "needs root"]
fn an_unanswered_connect_shows_on_the_host_of_its_sender() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    for line in [
        "add table ip t".to_owned(),
        "add chain ip t in { type filter hook input priority 0 ; }".to_owned(),
        format!("add rule ip t in tcp dport {{ {SILENT}, {LISTENING} }} drop"),
    ] {
        call(&lab.server, "nft", &[&line]);
    }
    let server = lab.server.address(Family::Ipv4);
    let at = |port| SocketAddr::new(server, port);
    let _listener =
        lab.server.run(|| TcpListener::bind(at(LISTENING))).expect("namespace").expect("a free port");
    let sender = Agent::start_in(lab.client.namespace(), "attempts-client", &["-i", lab.client.interface]);
    let receiver = Agent::start(&lab, "attempts-server", &["-i", lab.server.interface]);
    let watches = [Watch::start(&sender, "attempts-client"), Watch::start(&receiver, "attempts-server")];
    let _sockets = [SILENT, LISTENING].map(|port| connect(&lab.client, at(port)));

    for port in [SILENT, LISTENING] {
        until("the sender's watch shows it", || !transitions(&watches[0], port).is_empty());
    }
    until("the sender's agent counts both", || unanswered(&sender, "client") == 2);
    until("the receiver's agent counts both", || unanswered(&receiver, "server") == 2);
    for port in [SILENT, LISTENING] {
        let [transition] = &transitions(&watches[0], port)[..] else {
            panic!("once: {:?}", transitions(&watches[0], port))
        };
        assert_eq!((transition.side, transition.client.local), (Role::Client, true), "{transition:?}");
        assert_eq!((transition.from, transition.to), (State::Closed, State::SynSent), "{transition:?}");
        let seen = of_port(&sender, port).expect("it is listed");
        assert_eq!(Some(transition.at), seen.opened_at, "the time of the first SYN");
        assert_eq!(transition.id, seen.id, "the same connection");
        let again = of_port(&sender, port).expect("it is listed");
        assert_eq!((again.id, again.opened_at), (seen.id, seen.opened_at), "the same at the next query");
        assert_eq!((seen.client.state, seen.server.state), (State::SynSent, State::Unknown), "{seen:?}");
    }
    let state = |port| of_port(&receiver, port).map(|seen| (seen.server.state, seen.server.confirmed));
    assert_eq!(state(SILENT), Some((State::Unknown, false)), "no socket");
    assert_eq!(state(LISTENING), Some((State::Listen, true)), "known from its socket");
    let filtered = receiver.cli(&["ls", "-o", "ndjson", "server state listen"]).stdout;
    assert_eq!(String::from_utf8(filtered).expect("text").lines().count(), 1, "by the filter, too");

    // What follows is shown, so the attempts before it were left out.
    let refused = lab.client.run(|| TcpStream::connect(at(9))).expect("namespace");
    assert!(refused.is_err(), "nothing listens there");
    until("the receiver's watch shows the refusal", || !transitions(&watches[1], 9).is_empty());
    assert_eq!([SILENT, LISTENING].map(|port| transitions(&watches[1], port)), [vec![], vec![]]);
    assert_eq!((unanswered(&sender, "client"), unanswered(&receiver, "server")), (2, 2), "once each");
}
