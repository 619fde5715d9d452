//! One connection, observed from different positions. Every packet is counted once, both ends' states equal
//! their kernels', and unknown facts are reported as unknown.

mod common;
mod world;

use std::net::TcpStream;

use common::{Agent, until};
use finwait::lab::Namespace;
use finwait::view::{Confidence, Connection, Roles, State};
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
    outcome.expect("entering the namespace").expect_err("nobody answers");
    let connections = agent.connections();
    let [seen] = &connections[..] else { panic!("one connection: {connections:#?}") };
    assert_eq!([seen.client.state, seen.server.state], [State::SynSent, State::Listen], "{seen:#?}");
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

/// Two pairs of hosts with equal addresses behind one bridge host. Their tuples are equal, so finwait cannot
/// distinguish them. While the first connection is in use, packets of the second count as its copies and do
/// not change it.
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
    let [mut first, mut second] =
        pairs.each_ref().map(|(client, server)| Talk::open((client, 40_000), (server, at("10.1.0.2", 80))));
    assert_eq!((first.client, first.server), (second.client, second.server));
    let before = duplicates(&agent);
    second.say();
    let open = agrees(&agent, &first);
    assert_eq!(open.incarnation, 1, "{open:#?}");
    until("the second one's packets are counted as copies", || duplicates(&agent) > before);
    first.say();
    first.close();
    let closed = agrees(&agent, &first);
    assert_eq!([closed.client.state, closed.server.state], [State::TimeWait, State::Closed], "{closed:#?}");
    assert_eq!(second.states(), [State::Established; 2], "and of this nothing is told");
}
