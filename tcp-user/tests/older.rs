//! Connections that are older than the agent. They are listed with the states of their sockets and followed
//! to their end.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Agent, call, until};
use finwait::lab::{Family, Lab};
use finwait::view::{CloseKind, Confidence, Connection, Role, Roles, State};
use socket2::SockRef;

/// The state of a connection before the agent starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The server has closed its half.
    ServerHalf,
    /// The client has closed its half.
    ClientHalf,
    /// The server's process has closed its socket, and the client has not.
    Orphan,
    /// Both have closed, the server first.
    Both,
}

/// How an open connection continues after the agent has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Exchanges data, then closes the server, then the client.
    Close,
    /// Closes at once, without a segment before.
    CloseAtOnce,
    AbortByClient,
    AbortByServer,
}

const BEFORE: [(Before, After); 8] = [
    (Before::Nothing, After::Close),
    (Before::Nothing, After::CloseAtOnce),
    (Before::Nothing, After::AbortByClient),
    (Before::Nothing, After::AbortByServer),
    (Before::ServerHalf, After::Close),
    (Before::ClientHalf, After::Close),
    (Before::Orphan, After::CloseAtOnce),
    (Before::Both, After::Close),
];

impl Before {
    /// Returns the states of server and client in their kernels.
    fn states(self) -> (State, State) {
        match self {
            Before::Nothing => (State::Established, State::Established),
            Before::ServerHalf | Before::Orphan => (State::FinWait2, State::CloseWait),
            Before::ClientHalf => (State::CloseWait, State::FinWait2),
            Before::Both => (State::TimeWait, State::Closed),
        }
    }
}

/// A connection with its open ends, and how it continues.
struct Older {
    family: Family,
    before: Before,
    after: After,
    client: Option<TcpStream>,
    server: Option<TcpStream>,
    ends: (SocketAddr, SocketAddr),
}

impl Older {
    fn open(lab: &Lab, family: Family, before: Before, after: After) -> Older {
        // The port is below the client's ephemeral ports, so finwait guesses the right opener.
        let address = SocketAddr::new(lab.server.address(family), 0);
        let listener = lab
            .server
            .run(|| (7_000..).find_map(|port| TcpListener::bind(SocketAddr::new(address.ip(), port)).ok()));
        let listener = listener.expect("namespace").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let client = lab.client.run(|| TcpStream::connect(address)).expect("namespace").expect("connecting");
        let (server, _) = listener.accept().expect("accepting");
        let ends = (address, client.local_addr().expect("an end"));
        let mut older = Older { family, before, after, client: Some(client), server: Some(server), ends };
        older.client_says(b"question");
        older.server_says(b"answer");
        match before {
            Before::Nothing => {}
            Before::ServerHalf => {
                older.server.as_ref().expect("open").shutdown(Shutdown::Write).expect("FIN")
            }
            Before::ClientHalf => {
                older.client.as_ref().expect("open").shutdown(Shutdown::Write).expect("FIN")
            }
            Before::Orphan => older.server = None,
            Before::Both => older.close(),
        }
        older
    }

    fn client_says(&mut self, text: &[u8]) {
        say(self.client.as_mut(), self.server.as_mut(), text);
    }

    fn server_says(&mut self, text: &[u8]) {
        say(self.server.as_mut(), self.client.as_mut(), text);
    }

    /// Closes the server first. The client reads the server's FIN before it closes, unless it has closed its
    /// half already.
    fn close(&mut self) {
        if self.before == Before::ClientHalf {
            self.server = None;
            self.client = None;
            return;
        }
        self.server = None;
        let client = self.client.as_mut().expect("open");
        assert_eq!(client.read_to_end(&mut Vec::new()).expect("the server's FIN"), 0);
        self.client = None;
    }

    fn go_on(&mut self) {
        match (self.after, self.before) {
            (_, Before::Both) => return,
            (After::Close, Before::Nothing) => {
                self.client_says(b"another question");
                self.server_says(b"another answer");
            }
            (After::Close, Before::ServerHalf) => self.client_says(b"the rest"),
            (After::Close, Before::ClientHalf) => self.server_says(b"the rest"),
            (After::AbortByClient, _) => return abort(self.client.take()),
            (After::AbortByServer, _) => return abort(self.server.take()),
            (After::Close | After::CloseAtOnce, _) => {}
        }
        self.close();
    }

    fn in_list<'a>(&self, connections: &'a [Connection]) -> &'a Connection {
        let ends = |connection: &Connection| {
            (connection.server.socket_address(), connection.client.socket_address())
        };
        let mut found = connections.iter().filter(|connection| ends(connection) == self.ends);
        let connection = found.next().unwrap_or_else(|| panic!("{self:?} is not listed"));
        assert_eq!(found.next(), None, "once");
        connection
    }

    fn kernel(&self, lab: &Lab) -> (State, State) {
        let (client, server) = lab.states(self.ends.1, self.ends.0).expect("asking the kernels");
        (server, client)
    }

    /// Whether kind, closer and aborter of the close record are right.
    fn close_is_right(&self, connection: &Connection) -> bool {
        let close = connection.close.as_ref().map(|close| (close.kind, close.closer, close.aborter));
        let four_or_three = [CloseKind::Fin4Seg, CloseKind::Fin3Seg];
        match (self.before, self.after, close) {
            // The ACK that distinguishes three segments from four passed before the agent started.
            (Before::Both, _, Some((None, Some(Roles::Server), None))) => {
                connection.close.as_ref().is_some_and(|close| close.started_at.is_none())
            }
            (_, After::AbortByClient, Some((Some(CloseKind::RstAbort), None, Some(Role::Client)))) => true,
            (_, After::AbortByServer, Some((Some(CloseKind::RstAbort), None, Some(Role::Server)))) => true,
            (
                Before::Nothing,
                After::Close | After::CloseAtOnce,
                Some((Some(kind), Some(Roles::Server), None)),
            ) => four_or_three.contains(&kind),
            (Before::ServerHalf, _, Some((Some(CloseKind::HalfClose), Some(Roles::Server), None)))
            | (Before::Orphan, _, Some((Some(CloseKind::Fin4Seg), Some(Roles::Server), None)))
            | (Before::ClientHalf, _, Some((Some(CloseKind::HalfClose), Some(Roles::Client), None))) => true,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Older {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?} {:?}, then {:?}, {:?}", self.family, self.before, self.after, self.ends)
    }
}

fn say(from: Option<&mut TcpStream>, to: Option<&mut TcpStream>, text: &[u8]) {
    from.expect("open").write_all(text).expect("writing");
    let mut heard = vec![0; text.len()];
    to.expect("open").read_exact(&mut heard).expect("reading");
    assert_eq!(heard, text);
}

/// Aborts a connection: close() sends a RST.
fn abort(stream: Option<TcpStream>) {
    let stream = stream.expect("open");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

fn agree(lab: &Lab, agent: &Agent<'_>) -> bool {
    let socket = agent.socket.as_str();
    let arguments = ["audit", "--socket", socket, "-o", "json"];
    let mut command = std::process::Command::new(common::FINWAIT);
    let output = lab.server.run(|| command.args(arguments).output());
    output.expect("namespace").expect("running the CLI").status.success()
}

#[test]
#[ignore = "needs root"]
fn older_connections_are_adopted_and_followed_to_their_end() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let families: Vec<_> = lab.families().collect();
    let mut all: Vec<Older> = families
        .iter()
        .flat_map(|&family| BEFORE.map(|(before, after)| (family, before, after)))
        .map(|(family, before, after)| Older::open(&lab, family, before, after))
        .collect();
    for older in &all {
        until("the kernels have got there", || older.kernel(&lab) == older.before.states());
    }
    let agent = Agent::start(&lab, "older", &["-i", lab.server.interface, "--max-flows", "4096"]);
    let adopted = || agent.stats().audit_repairs["adopted"];
    until("all are adopted", || adopted() == all.len() as u64);

    let time_waits = all.iter().filter(|older| older.before == Before::Both).count();
    assert_eq!(agent.stats().time_wait["entered"], time_waits as u64, "imported TIME-WAITs count as entered");
    let connections = agent.connections();
    assert_eq!(connections.len(), all.len());
    for older in &all {
        let Connection { server, client, confidence, opened_at, time_wait, .. } = older.in_list(&connections);
        assert_eq!((server.state, client.state), older.before.states(), "{older:?}");
        assert_eq!((server.local, client.local), (true, false), "{older:?}");
        assert_eq!((server.confirmed, *confidence, *opened_at), (true, Confidence::Midstream, None));
        let (local, remote) = older.ends;
        let socket = lab.server.socket(local, remote).expect("asking").expect("a socket");
        if older.before == Before::Both {
            let (ours, kernels) = (time_wait.as_ref().expect("TIME-WAIT").expires_in_ms, socket.expires_ms);
            assert!(ours.abs_diff(kernels.expect("a timer").into()) < 2_000, "{ours} {kernels:?}");
        }
    }
    assert!(agree(&lab, &agent));

    all.iter_mut().for_each(Older::go_on);
    until("all are as the kernels say", || {
        let connections = agent.connections();
        all.iter().all(|older| {
            let Connection { server, client, .. } = older.in_list(&connections);
            (server.state, client.state) == older.kernel(&lab)
        })
    });
    let connections = agent.connections();
    for older in &all {
        let connection = older.in_list(&connections);
        assert!(older.close_is_right(connection), "{older:?}: {:?}", connection.close);
        assert_eq!(connection.incarnation, 1, "{older:?}");
    }
    assert!(agree(&lab, &agent));
    // The machine expected every segment of these connections.
    let unmoved: Vec<_> = agent.stats().unmoved.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(unmoved, []);
    assert_eq!(adopted(), all.len() as u64, "once");
    assert!(agent.scrape().contains(&format!("finwait_connections_adopted_total {}\n", all.len())));
}

/// The agent is ready, and answers, once it has imported older connections. They are as idle as their sockets.
#[test]
#[ignore = "needs root"]
fn the_first_answer_has_the_older_connections() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let idle = [Before::Nothing, Before::ClientHalf, Before::Both]
        .map(|before| Older::open(&lab, Family::Ipv4, before, After::Close));
    let is_over = || idle[2].kernel(&lab) == Before::Both.states();
    until("the kernels have got there", is_over);
    let agent = Agent::start(&lab, "older-first", &["-i", lab.server.interface]);
    let connections = agent.connections();
    assert_eq!(connections.len(), idle.len(), "in the first answer");
    let started_at = agent.status().started_at;
    for older in &idle {
        let seen = older.in_list(&connections);
        assert!(seen.last_seen_at < started_at, "{started_at}: {seen:?}, {older:?}");
    }
    let filtered = agent.cli(&["ls", "local state close-wait and idle > 1ms"]);
    assert_eq!(filtered.status.code(), Some(0), "{filtered:?}");
}

/// A FIN without an ACK is retransmitted. Known from the socket or from a copy, it counts as one FIN.
#[test]
#[ignore = "needs root"]
fn a_retransmitted_fin_counts_as_one_fin() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let mut older = Older::open(&lab, Family::Ipv4, Before::Nothing, After::CloseAtOnce);
    let port = older.ends.0.port();
    for line in [
        "add table ip t".into(),
        "add chain ip t in { type filter hook input priority 0 ; }".into(),
        format!("add rule ip t in tcp sport {port} drop"),
    ] {
        call(&lab.client, "nft", &[&line]);
    }
    older.server = None;
    let agent = Agent::start(&lab, "older-lost", &["-i", lab.server.interface]);
    let state = |agent: &Agent<'_>| older.in_list(&agent.connections()).server.state;
    until("it is listed", || !agent.connections().is_empty());
    assert_eq!(state(&agent), State::FinWait1);
    call(&lab.client, "nft", &["delete table ip t"]);
    until("the FIN comes through", || older.kernel(&lab) == (State::FinWait2, State::CloseWait));
    until("as is seen", || state(&agent) == State::FinWait2);
    older.client = None;
    until("it is over", || {
        let connections = agent.connections();
        let Connection { server, client, close, .. } = older.in_list(&connections);
        let close = close.as_ref().map(|close| (close.kind, close.closer));
        (server.state, client.state) == (State::TimeWait, State::Closed)
            && close == Some((Some(CloseKind::Fin4Seg), Some(Roles::Server)))
    });
    assert!(agree(&lab, &agent));
}

/// Two local sockets belong to one connection, which is adopted once.
#[test]
#[ignore = "needs root"]
fn a_connection_with_two_local_ends_is_adopted_once() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let listener =
        lab.server.run(|| TcpListener::bind("127.0.0.1:7000")).expect("namespace").expect("a port");
    let mut client =
        lab.server.run(|| TcpStream::connect("127.0.0.1:7000")).expect("namespace").expect("connecting");
    let (server, _) = listener.accept().expect("accepting");
    server.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(client.read(&mut [0; 1]).expect("the FIN"), 0);
    let agent = Agent::start(&lab, "older-lo", &["-i", "lo"]);
    let ends = || -> Vec<_> {
        let both = |Connection { client, server, .. }: Connection| (server, client);
        agent.connections().into_iter().map(both).collect()
    };
    until("it is adopted", || !ends().is_empty());
    let is = |wanted: (State, State)| matches!(&ends()[..], [(server, client)] if server.local && client.local && (server.state, client.state) == wanted);
    assert!(is((State::FinWait2, State::CloseWait)), "{:?}", ends());
    assert!(agree(&lab, &agent));
    drop(client);
    until("it is closed", || is((State::TimeWait, State::Closed)));
    assert!(agree(&lab, &agent));
}

/// The addresses of its packets are unknown until a packet passes.
#[test]
#[ignore = "needs root"]
fn a_translated_connection_is_listed_once_after_its_next_segment() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    for line in [
        "add table ip t",
        "add chain ip t nat { type nat hook prerouting priority -100 ; }",
        "add rule ip t nat tcp dport 7 redirect to :9007",
    ] {
        call(&lab.server, "nft", &[line]);
    }
    let listener =
        lab.server.run(|| TcpListener::bind("10.9.0.2:9007")).expect("namespace").expect("listening");
    let mut client =
        lab.client.run(|| TcpStream::connect("10.9.0.2:7")).expect("namespace").expect("connecting");
    let (mut server, _) = listener.accept().expect("accepting");
    say(Some(&mut client), Some(&mut server), b"question");
    let agent = Agent::start(&lab, "older-nat", &["-i", lab.server.interface, "--audit-interval", "300ms"]);
    let ports =
        || -> Vec<u16> { agent.connections().iter().map(|connection| connection.server.port).collect() };
    until("it is listed by its socket's name", || ports() == [9007]);
    until("it is listed by its packets' name", || {
        say(Some(&mut server), Some(&mut client), b"answer");
        ports() == [7]
    });
}

#[test]
#[ignore = "needs root"]
fn a_connection_of_an_unwatched_interface_is_not_adopted() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let older = Older::open(&lab, Family::Ipv4, Before::Nothing, After::Close);
    let agent = Agent::start(&lab, "older-off", &["-i", "lo", "--audit-interval", "200ms"]);
    until("the agent has looked again and again", || agent.stats().audit_looks > 5);
    assert_eq!(agent.connections(), []);
    assert_eq!(agent.stats().audit_repairs["adopted"], 0);
    drop(older);
}
