//! A connect() that nobody answers: both hosts' agents know it, only that of its sender tells it to watchers.

mod common;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};

use common::{Agent, FINWAIT, call, until};
use finwait::lab::{Family, Host, Lab};
use finwait::view::{Connection, Role, State, Transition};
use socket2::{Domain, Socket, Type};

/// The server drops SYNs to these ports. A socket listens on the second one.
const SILENT: u16 = 81;
const LISTENING: u16 = 82;

/// A `finwait watch -o ndjson` that writes to a file.
struct Watch {
    process: Child,
    file: String,
}

impl Watch {
    fn start(agent: &Agent<'_>, name: &str) -> Watch {
        let file = format!("{}/{name}.watch", env!("CARGO_TARGET_TMPDIR"));
        let process = Command::new(FINWAIT)
            .args(["watch", "-o", "ndjson", "--socket", &agent.socket])
            .stdout(File::create(&file).expect("creating a file"))
            .spawn()
            .expect("starting watch");
        agent.wait_for_watchers(1);
        Watch { process, file }
    }

    /// The transitions to or from this port so far.
    fn of_port(&self, port: u16) -> Vec<Transition> {
        let text = fs::read_to_string(&self.file).expect("reading what watch printed");
        let lines = text.lines().filter(|line| line.contains("finwait.transition/1"));
        let transitions = lines.map(|line| serde_json::from_str::<Transition>(line).expect("a transition"));
        transitions.filter(|one| one.server.port == port).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
        until("the sender's watch shows it", || !watches[0].of_port(port).is_empty());
    }
    until("the sender's agent counts both", || unanswered(&sender, "client") == 2);
    until("the receiver's agent counts both", || unanswered(&receiver, "server") == 2);
    for port in [SILENT, LISTENING] {
        let [transition] = &watches[0].of_port(port)[..] else {
            panic!("once: {:?}", watches[0].of_port(port))
        };
        assert_eq!((transition.side, transition.client.local), (Role::Client, true), "{transition:?}");
        assert_eq!((transition.from, transition.to), (State::Closed, State::SynSent), "{transition:?}");
        let seen = of_port(&sender, port).expect("it is listed");
        assert_eq!(Some(transition.at), seen.opened_at, "the time of the first SYN");
        assert_eq!(transition.id, seen.id, "the same connection");
        assert_eq!(of_port(&sender, port), Some(seen.clone()), "the same record at the next query");
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
    until("the receiver's watch shows the refusal", || !watches[1].of_port(9).is_empty());
    assert_eq!([SILENT, LISTENING].map(|port| watches[1].of_port(port)), [vec![], vec![]]);
    assert_eq!((unanswered(&sender, "client"), unanswered(&receiver, "server")), (2, 2), "once each");
}
