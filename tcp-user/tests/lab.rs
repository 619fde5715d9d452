//! Compares the lab with the kernel, with the wire, and with the machine fed by the wire. Needs CAP_SYS_ADMIN
//! and CAP_NET_ADMIN, and fails without them.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is the answer")]

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finwait::lab::{CLIENT_INTERFACE, Family, Lab, Played, Role, SCENARIOS, Scenario};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tcp_common::flow::Closer;
use tcp_common::wire::{FirstHeader, Packet, parse};
use tcp_common::{End, Endpoint, Flags, Flow, Rules, State};

#[test]
#[ignore = "needs root"]
fn every_ipv4_scenario_ends_in_its_kernel_states() {
    every_scenario_ends_in_its_kernel_states(Family::Ipv4);
}

#[test]
#[ignore = "needs root"]
fn every_ipv6_scenario_ends_in_its_kernel_states() {
    every_scenario_ends_in_its_kernel_states(Family::Ipv6);
}

fn every_scenario_ends_in_its_kernel_states(family: Family) {
    let lab = lab();
    let tap = Tap::new(&lab);
    let played = perform_all(&lab, family);

    let packets = tap.packets();
    for Played { scenario, client, server, .. } in &played {
        let promised = (scenario.client, scenario.server);
        assert_eq!(lab.states(*client, *server).unwrap(), promised, "{} by lookup", scenario.name);
        let listed = (
            listed_state(&lab, Role::Client, *client, *server),
            listed_state(&lab, Role::Server, *server, *client),
        );
        assert_eq!(listed, promised, "{} in the list of all", scenario.name);
        let packets = of_flow(&packets, *client, *server);
        check_shape(scenario, &packets);
        check_machine(scenario, &packets);
    }
}

#[test]
#[ignore = "needs root"]
fn a_scenario_can_be_performed_twice_at_once() {
    let lab = lab();
    let scenario = Scenario::named("live").unwrap();
    let first = scenario.perform(&lab, Family::Ipv4).unwrap();
    let second = scenario.perform(&lab, Family::Ipv4).unwrap();
    assert_ne!(first.server.port(), 0);
    assert_ne!((first.client, first.server), (second.client, second.server));
    let open = (State::Established, State::Established);
    assert_eq!(lab.states(first.client, first.server).unwrap(), open);
    assert_eq!(lab.states(second.client, second.server).unwrap(), open);
}

#[test]
#[ignore = "needs root"]
fn dropping_a_scenario_closes_its_sockets() {
    let lab = lab();
    let live = Scenario::named("live").unwrap().perform(&lab, Family::Ipv4).unwrap();
    let (client, server) = (live.client, live.server);
    drop(live);
    eventually("both ends to leave ESTABLISHED", || {
        let (client, server) = lab.states(client, server).unwrap();
        client != State::Established && server != State::Established
    });
}

#[test]
#[ignore = "needs root"]
fn the_kernel_reports_the_remaining_time_wait() {
    let lab = lab();
    let begun = Instant::now();
    let Played { client, server, .. } =
        Scenario::named("lost_last_ack").unwrap().perform(&lab, Family::Ipv4).unwrap();
    let socket = lab.client.socket(client, server).unwrap().expect("TIME-WAIT is a socket");
    assert_eq!((socket.state, socket.inode), (State::TimeWait, 0));
    let left = socket.expires_ms.expect("TIME-WAIT has a timer");
    // TIME-WAIT began after `begun`. A timer of the kernel may be a few jiffies late.
    let passed = u32::try_from(begun.elapsed().as_millis()).unwrap() + 100;
    assert!((60_000_u32.saturating_sub(passed)..=60_100).contains(&left), "{left} ms of 60 s are left");
}

#[test]
#[ignore = "needs root"]
fn a_request_socket_is_syn_received() {
    let lab = lab();
    for (family, domain) in [(Family::Ipv4, Domain::IPV4), (Family::Ipv6, Domain::IPV6)] {
        let listener = tcp_socket(&lab, Role::Server, domain);
        listener.bind(&SocketAddr::new(lab.server.address(family), 0).into()).unwrap();
        listener.listen(1).unwrap();
        let client = tcp_socket(&lab, Role::Client, domain);
        let drop_all = SockFilter::new(6, 0, 0, 0);
        client.attach_filter(&[drop_all]).unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&listener.local_addr().unwrap()).expect_err("the answer is lost");

        let (from, to) = (address(&client), address(&listener));
        eventually("SYN-RECEIVED", || lab.server.state(to, from).unwrap() == State::SynReceived);
        assert_eq!(listed_state(&lab, Role::Server, to, from), State::SynReceived);
        assert_eq!(lab.client.state(from, to).unwrap(), State::SynSent);
        let listening = lab.server.sockets().unwrap();
        assert!(listening.iter().any(|socket| socket.local == to && socket.state == State::Listen));
    }
}

#[test]
#[ignore = "needs root"]
fn ipv4_on_an_ipv6_socket_is_listed_as_ipv4() {
    let lab = lab();
    let listener = tcp_socket(&lab, Role::Server, Domain::IPV6);
    listener.set_only_v6(false).unwrap();
    listener.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(1).unwrap();
    let to = SocketAddr::new(lab.server.address(Family::Ipv4), address(&listener).port());
    let client = tcp_socket(&lab, Role::Client, Domain::IPV4);
    client.connect(&to.into()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let from = address(&client);

    assert_eq!(listed_state(&lab, Role::Server, to, from), State::Established);
    assert_eq!(lab.server.state(to, from).unwrap(), State::Established);
    let socket = lab.server.socket(to, from).unwrap().unwrap();
    assert_eq!(socket.cookie, accepted.cookie().unwrap());
    assert_ne!(socket.inode, 0);
}

#[test]
#[ignore = "needs root"]
fn the_namespace_of_the_caller_is_unchanged() {
    let namespace_of_this_thread = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = namespace_of_this_thread();
    let lab = lab();
    assert_eq!(namespace_of_this_thread(), before);
    assert_ne!(lab.client.run(namespace_of_this_thread).unwrap(), before);
    assert!(!std::path::Path::new("/sys/class/net").join(CLIENT_INTERFACE).exists());

    let panicked = std::panic::catch_unwind(|| lab.client.run(|| panic!("on purpose")));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(namespace_of_this_thread(), before);
}

#[test]
#[ignore = "needs root"]
fn a_dropped_host_removes_its_namespace_and_the_link() {
    let Lab { client, server, .. } = lab();
    let has_cable = || {
        let interfaces = client.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        interfaces.unwrap().contains(CLIENT_INTERFACE)
    };
    assert!(has_cable());
    drop(server);
    eventually("the cable to go with the server", || !has_cable());
}

#[test]
#[ignore = "needs root"]
fn names_are_unique_and_found() {
    for scenario in SCENARIOS {
        assert!(std::ptr::eq(Scenario::named(scenario.name).unwrap(), scenario), "{}", scenario.name);
    }
    assert!(Scenario::named("no such thing").is_none());
}

/// A capture of every frame that crosses the client's interface.
struct Tap(Socket);

impl Tap {
    fn new(lab: &Lab) -> Tap {
        const ETH_P_ALL: u16 = 3;
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let tap = lab.client.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(protocol))).unwrap().unwrap();
        tap.set_recv_buffer_size(8 << 20).unwrap();
        tap.set_nonblocking(true).unwrap();
        Tap(tap)
    }

    /// Returns the captured segments, in order.
    fn packets(mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut frame = vec![0; 65_536];
        while let Ok(length) = self.0.read(&mut frame) {
            packets.extend(parse(&frame[..length], FirstHeader::Ethernet, None));
        }
        packets
    }
}

/// Returns the segments of one connection. The client has the lower address, so it is end A of the key.
fn of_flow(packets: &[Packet], client: SocketAddr, server: SocketAddr) -> Vec<&Packet> {
    let endpoint = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => Endpoint::v4(ip.octets(), address.port()),
        IpAddr::V6(ip) => Endpoint::v6(ip.octets(), address.port()),
    };
    let ends = [endpoint(client), endpoint(server)];
    packets
        .iter()
        .filter(|packet| [packet.key.endpoint(End::A), packet.key.endpoint(End::B)] == ends)
        .collect()
}

/// Compares the segments of a close with the expected ones. `c` is the client, `s` the server, and a number
/// the bytes of payload. The text begins at the first FIN or RST, or contains all segments if there is none.
fn check_shape(scenario: &Scenario, packets: &[&Packet]) {
    let segments: Vec<String> = packets.iter().map(|packet| spell(packet)).collect();
    let begin = segments.iter().position(|segment| segment.contains(['F', 'R'])).unwrap_or(0);
    let all = segments[begin..].join(" ");
    // Without pure ACKs, whose delay depends on the machine's load.
    let without_acks = || {
        let telling = segments[begin..].iter().filter(|segment| !["cA", "sA"].contains(&segment.as_str()));
        telling.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let as_expected = match scenario.name {
        "live" => without_acks() == "cS sSA cA8 sA6",
        "fin_4seg_client" => all == "cFA sA sFA cA",
        "fin_4seg_server" => all == "sFA cA cFA sA",
        "fin_3seg_client" => all == "cFA sFA cA",
        "fin_3seg_server" => all == "sFA cFA sA",
        "data_on_fin" => all == "cFA8 sA sFA cA",
        "half_close" => without_acks() == "cFA sA8 sA8 sFA",
        "simultaneous" => all.starts_with("cFA sFA ") || all.starts_with("sFA cFA "),
        "lost_last_ack" => all.starts_with("cFA sA sFA cA sFA cA"),
        "close_wait_leak" => all == "cFA sA",
        "rst_abort" => without_acks() == "cRA",
        "rst_unread_data" => without_acks() == "cFA sRA",
        "rst_data_after_close" => all == "cFA sA sA14 cR",
        "refused" => all == "sRA",
        "syn_unanswered" => all.replace(' ', "").replace("cS", "").is_empty(),
        "syn_abort" => all == "cR",
        "time_wait_reuse" => without_acks() == "sFA cFA cS sSA cA8 sA6",
        other => panic!("{other}: what does it look like on the wire?"),
    };
    assert!(as_expected, "{} is {all:?}", scenario.name);
}

fn spell(packet: &Packet) -> String {
    let mut text = String::from(if packet.sender == End::A { 'c' } else { 's' });
    let letters = [(Flags::FIN, 'F'), (Flags::SYN, 'S'), (Flags::RST, 'R'), (Flags::ACK, 'A')];
    text.extend(
        letters.iter().filter(|(flag, _)| packet.segment.flags.0 & flag != 0).map(|(_, letter)| letter),
    );
    if packet.segment.payload_len > 0 {
        text += &packet.segment.payload_len.to_string();
    }
    text
}

/// Feeds the machine with the captured segments and compares its close record with the scenario's row.
fn check_machine(scenario: &Scenario, packets: &[&Packet]) {
    let mut flow = Flow::EMPTY;
    for (now_ms, packet) in (3_600_000..).zip(packets) {
        flow.on_segment(now_ms * 1_000_000, packet.sender, &packet.segment, &Rules::RFC);
    }
    let side = |end| if end == End::A { Role::Client } else { Role::Server };
    let closer = match flow.closer() {
        Closer::None => "none",
        Closer::One(end) => side(end).name(),
        Closer::Both => "both",
    };
    assert_eq!(
        (flow.close_kind().name(), closer, flow.aborter().map(side), flow.incarnation()),
        (scenario.kind, scenario.closer, scenario.aborter, scenario.incarnation),
        "{}: {:?}",
        scenario.name,
        packets.iter().map(|packet| spell(packet)).collect::<Vec<_>>(),
    );
    // For the observer, a server without an answer is in LISTEN. Its kernel has no socket for the connection.
    let states = [End::A, End::B].map(|end| match flow.state(end) {
        State::Listen => State::Closed,
        state => state,
    });
    assert_eq!(states, [scenario.client, scenario.server], "{}", scenario.name);
}

fn lab() -> Lab {
    Lab::new().unwrap_or_else(|error| panic!("no lab, so nothing is proved here: {error}: {error:?}"))
}

fn perform_all(lab: &Lab, family: Family) -> Vec<Played> {
    Scenario::perform_all(lab, family)
        .into_iter()
        .zip(SCENARIOS)
        .map(|(played, scenario)| {
            played.unwrap_or_else(|error| panic!("{}: {error}: {error:?}", scenario.name))
        })
        .collect()
}

fn listed_state(lab: &Lab, side: Role, local: SocketAddr, remote: SocketAddr) -> State {
    let sockets = lab.host(side).sockets().unwrap();
    let mut matching = sockets.iter().filter(|socket| socket.local == local && socket.remote == remote);
    let state = matching.next().map_or(State::Closed, |socket| socket.state);
    assert!(matching.next().is_none(), "{local} {remote} is listed twice");
    state
}

fn tcp_socket(lab: &Lab, side: Role, domain: Domain) -> Socket {
    lab.host(side).run(|| Socket::new(domain, Type::STREAM, None)).unwrap().unwrap()
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A deadline against hanging.
const LIMIT: Duration = Duration::from_secs(60);
