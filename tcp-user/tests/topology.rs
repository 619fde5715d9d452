//! One connection, observed from different positions. Every packet is counted once, both ends' states equal
//! their kernels', and unknown facts are reported as unknown.

mod common;
mod world;

use std::collections::HashSet;
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use common::{Agent, FINWAIT, until};
use finwait::audit::{Report, Verdict};
use finwait::lab::Namespace;
use finwait::view::{Confidence, Connection, Roles, State};
use socket2::{Domain, Socket, Type};
use world::{Talk, at, cable, host, ip};

/// Finds the connection of this talk.
fn find(agent: &Agent<'_>, talk: &Talk<'_>) -> Option<Connection> {
    let mut connections = agent.connections();
    connections.retain(|connection| connection.client.socket_address() == talk.client);
    assert!(connections.len() < 2, "{connections:#?}");
    connections.pop()
}

/// Waits until both states equal their kernels' and every segment is counted once.
fn agrees(agent: &Agent<'_>, talk: &Talk<'_>) -> Connection {
    let mut seen = None;
    until("both ends are as their kernels have them, every segment counted once", || {
        seen = find(agent, talk);
        let now = seen.as_ref().map(|seen| {
            let ends = [&seen.client, &seen.server];
            (ends.map(|end| end.state), ends.map(|end| end.segments))
        });
        let right = now == Some((talk.states(), talk.sent()));
        if !right {
            println!("{now:?}, kernels {:?} {:?}", talk.states(), talk.sent());
        }
        right
    });
    seen.expect("it was just there")
}

fn locals(connection: &Connection) -> [bool; 2] {
    [connection.client.local, connection.server.local]
}

fn duplicates(agent: &Agent<'_>) -> u64 {
    agent.stats().packets_ignored.get("duplicate").copied().unwrap_or_default()
}

/// Checks a connection while it is open and after it is closed.
fn through_its_life(agent: &Agent<'_>, talk: &mut Talk<'_>, local: [bool; 2], confidence: Confidence) {
    let open = agrees(agent, talk);
    assert_eq!((locals(&open), open.confidence), (local, confidence), "{open:#?}");
    talk.say();
    talk.close();
    let closed = agrees(agent, talk);
    assert_eq!([closed.client.state, closed.server.state], [State::TimeWait, State::Closed], "{closed:#?}");
    assert_eq!((locals(&closed), closed.confidence), (local, confidence), "{closed:#?}");
    assert_eq!(closed.incarnation, 1);
}

#[test]
#[ignore = "needs root"]
fn a_bridge_and_its_ports_count_each_packet_once() {
    let (guest, other, bridge) = (host(), host(), host());
    ip(&bridge, "link add br0 type bridge");
    cable((&guest, "eth0", "10.1.0.1/24"), (&bridge, "port1", ""));
    cable((&other, "eth0", "10.1.0.2/24"), (&bridge, "port2", ""));
    for words in [
        "link set port1 master br0",
        "link set port2 master br0",
        "address add 10.1.0.9/24 dev br0",
        "link set br0 up",
    ] {
        ip(&bridge, words);
    }
    let agent = Agent::start_in(&bridge, "topology-bridge", &[]);
    // The bridge host's own connection is seen at the bridge and at the port.
    let mut talk = Talk::open((&guest, 0), (&bridge, at("10.1.0.9", 80)));
    through_its_life(&agent, &mut talk, [false, true], Confidence::Exact);
    let seen_twice = duplicates(&agent);
    assert!(seen_twice > 0, "the bridge and its port see the same packets");
    // A forwarded connection is seen at both ports, and neither end is local.
    let mut talk = Talk::open((&guest, 0), (&other, at("10.1.0.2", 80)));
    through_its_life(&agent, &mut talk, [false, false], Confidence::Exact);
    assert!(duplicates(&agent) > seen_twice);
}

#[test]
#[ignore = "needs root"]
fn lo_counts_each_packet_once() {
    let alone = host();
    let agent = Agent::start_in(&alone, "topology-lo", &[]);
    let mut talk = Talk::open((&alone, 0), (&alone, at("127.0.0.1", 80)));
    until("it is there", || find(&agent, &talk).is_some());
    let open = find(&agent, &talk).expect("it was just there");
    assert_eq!((locals(&open), open.confidence), ([true, true], Confidence::Exact), "{open:#?}");
    talk.say();
    talk.close();
    until("both ends are as the kernel has them", || {
        let seen = find(&agent, &talk).expect("it was there");
        [seen.client.state, seen.server.state] == talk.states()
            && seen.client.segments + seen.server.segments == talk.sent()[0]
    });
    assert!(duplicates(&agent) > 0, "lo shows each packet going out and coming in");
}

/// Connects a client and a server to the router.
fn routed(router: &Namespace) -> (Namespace, Namespace) {
    let (client, server) = (host(), host());
    cable((&client, "eth0", "10.1.0.1/24"), (router, "west", "10.1.0.9/24"));
    cable((&server, "eth0", "10.2.0.2/24"), (router, "east", "10.2.0.9/24"));
    ip(&client, "route add default via 10.1.0.9");
    ip(&server, "route add default via 10.2.0.9");
    (client, server)
}

#[test]
#[ignore = "needs root"]
fn a_router_counts_each_packet_once() {
    let router = host();
    let (client, server) = routed(&router);
    let agent = Agent::start_in(&router, "topology-router", &[]);
    let mut talk = Talk::open((&client, 0), (&server, at("10.2.0.2", 80)));
    through_its_life(&agent, &mut talk, [false, false], Confidence::Exact);
    assert!(duplicates(&agent) > 0, "coming in and going out");
}

#[test]
#[ignore = "needs root"]
fn an_unanswered_forwarded_syn_is_listed_as_syn_sent() {
    let router = host();
    let (client, server) = routed(&router);
    ip(&router, "route add 10.3.0.0/24 via 10.2.0.2");
    ip(&server, "route add blackhole 10.3.0.0/24");
    let agent = Agent::start_in(&router, "topology-unanswered", &[]);
    let there = at("10.3.0.1", 80);
    let outcome = client.run(|| {
        // A SYN, one retransmission, then the kernel gives up. Kernels before 6.5 know no linear timeouts.
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1").expect("the sysctl");
        let _ = std::fs::write("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "0");
        TcpStream::connect(there)
    });
    outcome.expect("entering the namespace").expect_err("no answer comes");
    let connections = agent.connections();
    let [seen] = &connections[..] else { panic!("one connection: {connections:#?}") };
    assert_eq!([seen.client.state, seen.server.state], [State::SynSent, State::Unknown], "{seen:#?}");
    assert_eq!((locals(seen), seen.client.segments), ([false, false], 2), "the SYN and its copy: {seen:#?}");
}

#[test]
#[ignore = "needs root"]
fn a_connection_older_than_the_agent_is_followed_midstream() {
    let router = host();
    let (client, server) = routed(&router);
    let mut talk = Talk::open((&client, 0), (&server, at("10.2.0.2", 80)));
    let agent = Agent::start_in(&router, "topology-midstream", &[]);
    assert_eq!(find(&agent, &talk).map(|found| found.client), None, "nothing has been seen of it");
    talk.say();
    until("it is picked up", || find(&agent, &talk).is_some_and(|seen| seen.server.segments > 0));
    let open = find(&agent, &talk).expect("it was just there");
    assert_eq!([open.client.state, open.server.state], [State::Established; 2], "{open:#?}");
    assert_eq!((open.confidence, open.opened_at), (Confidence::Midstream, None), "{open:#?}");
    talk.close();
    until("both ends are as their kernels have them", || {
        find(&agent, &talk).is_some_and(|seen| [seen.client.state, seen.server.state] == talk.states())
    });
    let closed = find(&agent, &talk).expect("it was just there");
    assert_eq!((closed.confidence, locals(&closed)), (Confidence::Midstream, [false, false]), "{closed:#?}");
    // Whether the server sends its ACK without its FIN depends on timing.
    assert!(["fin_3seg", "fin_4seg"].contains(&closed.close_word()), "{closed:#?}");
}

/// Connects a client to the server by two links: one for each direction.
fn two_ways(server: &Namespace) -> Namespace {
    let client = host();
    cable((&client, "there", "10.1.0.1/32"), (server, "in", "10.2.0.2/32"));
    cable((&client, "back", ""), (server, "out", ""));
    ip(&client, "route add 10.2.0.2 dev there src 10.1.0.1");
    ip(server, "route add 10.1.0.1 dev out src 10.2.0.2");
    client
}

#[test]
#[ignore = "needs root"]
fn a_connection_over_two_interfaces_is_one_connection() {
    let server = host();
    let client = two_ways(&server);
    let agent = Agent::start_in(&server, "topology-asymmetric", &[]);
    let mut talk = Talk::open((&client, 0), (&server, at("10.2.0.2", 80)));
    through_its_life(&agent, &mut talk, [false, true], Confidence::Exact);
}

#[test]
#[ignore = "needs root"]
fn a_connection_seen_in_one_direction_is_one_way() {
    let server = host();
    let client = two_ways(&server);
    let agent = Agent::start_in(&server, "topology-one-way", &["-i", "in", "--audit-interval", "0"]);
    let mut talk = Talk::open((&client, 0), (&server, at("10.2.0.2", 80)));
    until("it is there", || find(&agent, &talk).is_some_and(|seen| seen.client.segments > 2));
    let open = find(&agent, &talk).expect("it was just there");
    assert_eq!((open.confidence, open.server.segments), (Confidence::OneWay, 0), "{open:#?}");
    assert_eq!([open.client.state, open.server.state], [State::Established; 2], "{open:#?}");
    assert!(!open.server.confirmed, "nothing of the server was seen: {open:#?}");
    talk.close();
    until("every segment of the client is counted", || {
        find(&agent, &talk).is_some_and(|seen| seen.client.segments == talk.sent()[0])
    });
    let closed = find(&agent, &talk).expect("it was just there");
    assert_eq!(closed.confidence, Confidence::OneWay, "{closed:#?}");
    assert!(!closed.server.confirmed, "{closed:#?}");
    let close = closed.close.as_ref().expect("the client has closed");
    assert_eq!(
        (close.closer, close.complete),
        (Some(Roles::Client), false),
        "the server's FIN is not made up"
    );
}

/// Two pairs of hosts with equal addresses behind one bridge host. Their tuples are equal, so finwait tracks
/// the first connection. While it is in use, packets of the second are of another network and do not change
/// it.
#[test]
#[ignore = "needs root"]
fn equal_tuples_on_two_interfaces_are_not_mixed() {
    let switch = host();
    let pairs = [("br1", "a1", "b1"), ("br2", "a2", "b2")].map(|(bridge, one, two)| {
        let (client, server) = (host(), host());
        ip(&switch, &format!("link add {bridge} type bridge"));
        cable((&client, "eth0", "10.1.0.1/24"), (&switch, one, ""));
        cable((&server, "eth0", "10.1.0.2/24"), (&switch, two, ""));
        for words in [format!("link set {one} master {bridge}"), format!("link set {two} master {bridge}")] {
            ip(&switch, &words);
        }
        ip(&switch, &format!("link set {bridge} up"));
        (client, server)
    });
    let agent = Agent::start_in(&switch, "topology-twins", &[]);
    let is_over = AtomicBool::new(false);
    let [mut first, second] = thread::scope(|scope| {
        let mut talks =
            pairs.iter().map(|(client, server)| Talk::open((client, 40_000), (server, at("10.1.0.2", 80))));
        let mut first = talks.next().expect("a pair");
        let is_over = &is_over;
        let first = scope.spawn(move || {
            while !is_over.load(Relaxed) {
                first.say();
            }
            first
        });
        // The namespaces share the secret of their initial sequence numbers, which for equal tuples differ by
        // the clock alone: 64 ns a number. The numbers of real twins are far from each other.
        thread::sleep(Duration::from_millis(100));
        let mut second = talks.next().expect("a pair");
        second.say();
        is_over.store(true, Relaxed);
        [first.join().expect("the first connection goes on"), second]
    });
    assert_eq!((first.client, first.server), (second.client, second.server));
    let open = agrees(&agent, &first);
    assert_eq!(open.incarnation, 1, "{open:#?}");
    let of_other_network = agent.stats().packets_ignored.get("other_network").copied();
    assert!(of_other_network > Some(0), "the packets of the second are counted: {of_other_network:?}");
    let named = agent.status().other_network.expect("status names the pair");
    let mut ends = named.ends;
    ends.sort_unstable();
    assert_eq!(ends, [first.client, first.server]);
    assert!(matches!(named.connection.interface.as_deref(), Some("br1" | "a1" | "b1")), "{named:?}");
    assert!(matches!(named.packet.interface.as_deref(), Some("br2" | "a2" | "b2")), "{named:?}");
    first.say();
    first.close();
    let closed = agrees(&agent, &first);
    assert_eq!([closed.client.state, closed.server.state], [State::TimeWait, State::Closed], "{closed:#?}");
    assert_eq!(second.states(), [State::Established; 2], "and of this nothing is reported");
}

/// Moves the route to the peer's address to one of two links, on both hosts.
fn route_over(hosts: [&Namespace; 2], link: usize) {
    for (own, namespace) in hosts.into_iter().enumerate() {
        let peer = 2 - own;
        ip(
            namespace,
            &format!("route replace 10.9.0.{peer}/32 via 10.{}.0.{peer} src 10.9.0.{}", 1 + link, 1 + own),
        );
    }
}

/// Two hosts with an address each that is reached over either of two links.
fn two_links() -> (Namespace, Namespace) {
    let (client, server) = (host(), host());
    for link in ["1", "2"] {
        let name = format!("link{link}");
        let [one, other] = ["1", "2"].map(|end| format!("10.{link}.0.{end}/24"));
        cable((&client, &name, &one), (&server, &name, &other));
    }
    ip(&client, "address add 10.9.0.1/32 dev lo");
    ip(&server, "address add 10.9.0.2/32 dev lo");
    (client, server)
}

#[test]
#[ignore = "needs root"]
fn a_route_that_moves_loses_and_doubles_nothing() {
    let (client, server) = two_links();
    let hosts = [&client, &server];
    route_over(hosts, 0);
    let agent = Agent::start_in(&server, "topology-route", &[]);
    // Moved in the middle, at each turn, and right before the close.
    for moves in [&[1][..], &[1, 0, 1, 0, 1, 0], &[]] {
        route_over(hosts, 0);
        let mut talk = Talk::open((&client, 0), (&server, at("10.9.0.2", 80)));
        for &link in moves {
            route_over(hosts, link);
            talk.say();
        }
        let open = agrees(&agent, &talk);
        assert_eq!((locals(&open), open.confidence), ([false, true], Confidence::Exact), "{open:#?}");
        route_over(hosts, 1);
        talk.close();
        let closed = agrees(&agent, &talk);
        assert_eq!(
            [closed.client.state, closed.server.state],
            [State::TimeWait, State::Closed],
            "{closed:#?}"
        );
        let close = closed.close.as_ref().expect("it is closed");
        assert_eq!(
            (close.closer, closed.confidence),
            (Some(Roles::Client), Confidence::Exact),
            "{closed:#?}"
        );
        assert_eq!(closed.incarnation, 1);
    }
}

#[test]
#[ignore = "needs root"]
fn link_local_twins_on_two_cables_are_two_connections() {
    let (client, server) = (host(), host());
    for name in ["link1", "link2"] {
        cable((&client, name, ""), (&server, name, ""));
        for (namespace, address) in [(&client, "fe80::1"), (&server, "fe80::2")] {
            ip(namespace, &format!("address add {address}/64 dev {name} nodad"));
        }
    }
    let agent = Agent::start_in(&client, "topology-twins-v6", &[]);
    let scope = |namespace: &Namespace, name: &str| {
        let index = namespace.run(|| nix::net::if_::if_nametoindex(name)).expect("entering the namespace");
        index.expect("the interface")
    };
    let streams: Vec<_> = ["link1", "link2"]
        .into_iter()
        .map(|name| {
            let address = |end: u16, port, index| {
                SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, end),
                    port,
                    0,
                    index,
                ))
            };
            let here = address(1, 40_000, scope(&client, name));
            let there = address(2, 179, scope(&server, name));
            let listener =
                server.run(|| TcpListener::bind(there)).expect("entering the namespace").expect("listening");
            let connect = || {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
                socket.bind(&here.into())?;
                socket.connect(&address(2, 179, scope(&client, name)).into())?;
                Ok::<_, std::io::Error>(TcpStream::from(socket))
            };
            let stream = client.run(connect).expect("entering the namespace").expect("connecting");
            (stream, listener.accept().expect("accepting").0)
        })
        .collect();
    let states = || {
        let mut connections = agent.connections();
        connections.retain(|connection| connection.server.port == 179);
        connections.sort_by_key(|connection| connection.interface.clone());
        let states = |connection: &Connection| (connection.client.state, connection.server.state);
        connections.iter().map(states).collect::<Vec<_>>()
    };
    let open = (State::Established, State::Established);
    until("both are open", || states() == [open; 2]);
    let ids: HashSet<String> = agent.connections().into_iter().map(|twin| twin.id.to_string()).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let listed = |filter: &str| {
        let output = agent.cli(&["ls", filter]);
        String::from_utf8(output.stdout).expect("text").lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["link1", "link2"] {
        let rows = listed(&format!("src fe80::1%{name}"));
        let [row] = &rows[..] else { panic!("one of the twins: {rows:?}") };
        let address = |end, mark, port| format!("[fe80::{end}%{name}]:{port}{mark}");
        let ends = [address(1, "*", 40_000), address(2, "", 179)];
        assert!(ends.iter().all(|end| row.split_whitespace().any(|cell| cell == end)), "{ends:?}: {row}");
    }
    assert_eq!(listed("dst fe80::2").len(), 2, "on any link");
    streams[1].0.shutdown(Shutdown::Write).expect("shutting down");
    until("the second one is half closed", || states() == [open, (State::FinWait2, State::CloseWait)]);
    let mut audit = Command::new(FINWAIT);
    audit.args(["audit", "--all", "-o", "json", "--socket", &agent.socket, "port = :179"]);
    let output = client.run(|| audit.output()).expect("entering the namespace").expect("running the CLI");
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    let mut compared: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            let state = finding.kernel.as_ref().map(|socket| socket.state);
            (finding.scope.as_deref(), finding.verdict, state)
        })
        .collect();
    compared.sort_by_key(|&(scope, ..)| scope);
    let expected = [
        (Some("link1"), Verdict::Agree, Some(State::Established)),
        (Some("link2"), Verdict::Agree, Some(State::FinWait2)),
    ];
    assert_eq!((output.status.code(), compared), (Some(0), expected.to_vec()));
}

#[test]
#[ignore = "needs root"]
fn an_address_that_goes_is_no_longer_local() {
    let (client, server) = (host(), host());
    cable((&client, "eth0", "10.1.0.1/24"), (&server, "eth0", "10.1.0.2/24"));
    ip(&server, "address add 10.3.0.2/32 dev lo");
    ip(&client, "route add 10.3.0.2/32 via 10.1.0.2");
    let agent = Agent::start_in(&server, "topology-address", &[]);
    let talk = Talk::open((&client, 0), (&server, at("10.3.0.2", 80)));
    let local = || find(&agent, &talk).map(|connection| locals(&connection));
    until("the server is local", || local() == Some([false, true]));
    ip(&server, "address del 10.3.0.2/32 dev lo");
    until("it is remote", || local() == Some([false, false]));
    ip(&server, "address add 10.3.0.2/32 dev lo");
    until("it is local again", || local() == Some([false, true]));
}

#[test]
#[ignore = "needs root"]
fn a_limit_of_open_files_is_named_and_leaves_room_for_clients() {
    let alone = host();
    for number in 0..40 {
        ip(&alone, &format!("link add a{number} type veth peer name b{number}"));
        ip(&alone, &format!("link set a{number} up"));
        ip(&alone, &format!("link set b{number} up"));
    }
    let limited = |limit: u64| {
        let name = format!("topology-files-{limit}");
        let mut command = Command::new("prlimit");
        let socket = format!("{}/{name}.sock", env!("CARGO_TARGET_TMPDIR"));
        command.args([&format!("--nofile={limit}:{limit}"), FINWAIT, "run", "--max-flows", "1024"]);
        command.args(["--socket", &socket]);
        Agent::start_by_in(&alone, &socket, &mut command)
    };
    let status = limited(4096).status();
    assert!(status.interfaces.iter().all(|interface| interface.error.is_none()), "{status:#?}");
    assert_eq!(status.interfaces.len(), 81);
    let agent = limited(160);
    let status = agent.status();
    let (watched, left_out): (Vec<_>, Vec<_>) =
        status.interfaces.iter().partition(|interface| interface.error.is_none());
    assert!(!watched.is_empty() && !left_out.is_empty(), "{status:#?}");
    for interface in left_out {
        let error = interface.error.as_deref().unwrap_or_default();
        assert!(error.contains("160 open files"), "{error}");
    }
    assert!(agent.cli(&["ls"]).status.code().is_some_and(|code| code < 2), "clients are answered");
}
