//! The lab against the kernel and the wire. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and fails without them.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is the answer")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use finwait::lab::{CLIENT_INTERFACE, Family, Lab, Namespace, Played, SCENARIOS, Scenario, Side};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tcp_common::State;

#[test]
fn every_scenario_ends_in_the_kernel_as_it_says_ipv4() {
    every_scenario_ends_in_the_kernel_as_it_says(Family::Ipv4);
}

#[test]
fn every_scenario_ends_in_the_kernel_as_it_says_ipv6() {
    every_scenario_ends_in_the_kernel_as_it_says(Family::Ipv6);
}

fn every_scenario_ends_in_the_kernel_as_it_says(family: Family) {
    let lab = lab();
    let wire = Wire::tap(&lab);
    let begun = Instant::now();
    let played = perform_all(&lab, family);
    assert!(begun.elapsed() < Duration::from_secs(6), "all at once took {:?}", begun.elapsed());

    for Played { scenario, client, server, .. } in &played {
        let promised = (scenario.client, scenario.server);
        assert_eq!(lab.states(*client, *server).unwrap(), promised, "{} by lookup", scenario.name);
        let listed = (
            listed_state(&lab, Side::Client, *client, *server),
            listed_state(&lab, Side::Server, *server, *client),
        );
        assert_eq!(listed, promised, "{} in the list of all", scenario.name);
    }
    wire.check(&played);
}

#[test]
fn a_scenario_can_be_performed_again_while_its_predecessor_is_kept() {
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
fn a_dropped_guard_lets_the_states_go() {
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
fn the_kernel_tells_what_is_left_of_time_wait() {
    let lab = lab();
    let Played { client, server, .. } =
        Scenario::named("lost_last_ack").unwrap().perform(&lab, Family::Ipv4).unwrap();
    let socket = lab.client.socket(client, server).unwrap().expect("TIME-WAIT is a socket");
    assert_eq!((socket.state, socket.inode), (State::TimeWait, 0));
    let left = socket.expires_ms.expect("TIME-WAIT has a timer");
    assert!((55_000..=60_100).contains(&left), "{left} ms of 60 s are left");
}

#[test]
fn a_request_socket_is_syn_received() {
    let lab = lab();
    for (family, domain) in [(Family::Ipv4, Domain::IPV4), (Family::Ipv6, Domain::IPV6)] {
        let listener = tcp_socket(&lab, Side::Server, domain);
        listener.bind(&SocketAddr::new(lab.server.address(family), 0).into()).unwrap();
        listener.listen(1).unwrap();
        let client = tcp_socket(&lab, Side::Client, domain);
        let drop_all = SockFilter::new(6, 0, 0, 0);
        client.attach_filter(&[drop_all]).unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&listener.local_addr().unwrap()).expect_err("the answer is lost");

        let (from, to) = (address(&client), address(&listener));
        eventually("SYN-RECEIVED", || lab.server.state(to, from).unwrap() == State::SynReceived);
        assert_eq!(listed_state(&lab, Side::Server, to, from), State::SynReceived);
        assert_eq!(lab.client.state(from, to).unwrap(), State::SynSent);
        let listening = lab.server.sockets().unwrap();
        assert!(listening.iter().any(|socket| socket.local == to && socket.state == State::Listen));
    }
}

#[test]
fn ipv4_on_an_ipv6_socket_is_listed_as_ipv4() {
    let lab = lab();
    let listener = tcp_socket(&lab, Side::Server, Domain::IPV6);
    listener.set_only_v6(false).unwrap();
    listener.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(1).unwrap();
    let to = SocketAddr::new(lab.server.address(Family::Ipv4), address(&listener).port());
    let client = tcp_socket(&lab, Side::Client, Domain::IPV4);
    client.connect(&to.into()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let from = address(&client);

    assert_eq!(listed_state(&lab, Side::Server, to, from), State::Established);
    assert_eq!(lab.server.state(to, from).unwrap(), State::Established);
    let socket = lab.server.socket(to, from).unwrap().unwrap();
    assert_eq!(socket.cookie, accepted.cookie().unwrap());
    assert_ne!(socket.inode, 0);
}

#[test]
fn the_callers_own_namespace_is_untouched() {
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
fn a_dropped_namespace_is_gone() {
    let namespace = Namespace::new().unwrap();
    let descriptor = namespace.as_fd().try_clone_to_owned().unwrap();
    let inode = |fd: &dyn std::os::fd::AsRawFd| {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::read_link(link).unwrap().to_string_lossy().into_owned()
    };
    assert!(inode(&descriptor).starts_with("net:["), "held by a descriptor of nsfs");
    let name = inode(&descriptor);
    drop((namespace, descriptor));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name), "{name} is mounted somewhere");
}

#[test]
fn names_are_unique_and_found() {
    for scenario in SCENARIOS {
        assert!(std::ptr::eq(Scenario::named(scenario.name).unwrap(), scenario), "{}", scenario.name);
    }
    assert!(Scenario::named("no such thing").is_none());
}

/// Every segment that crossed the client's interface, in order.
struct Wire {
    tap: Socket,
}

impl Wire {
    fn tap(lab: &Lab) -> Wire {
        const ETH_P_ALL: u16 = 3;
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let tap = lab.client.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(protocol))).unwrap().unwrap();
        tap.set_recv_buffer_size(8 << 20).unwrap();
        tap.set_nonblocking(true).unwrap();
        Wire { tap }
    }

    /// What each close looks like, `c` from the client, `s` from the server: the part from the first FIN or RST on,
    /// the whole where there is none. A number is the octets of payload.
    fn check(&self, played: &[Played]) {
        let segments = self.segments();
        for Played { scenario, client, server, .. } in played {
            let lines: Vec<String> =
                segments.iter().filter_map(|segment| segment.line(*client, *server)).collect();
            let begin = lines.iter().position(|line| line.contains('F') || line.contains('R')).unwrap_or(0);
            let close = lines[begin..].join(" ");
            let expected: &[&str] = match scenario.name {
                "fin_4seg_client" => &["cFA sA sFA cA"],
                "fin_4seg_server" => &["sFA cA cFA sA"],
                "fin_3seg_client" => &["cFA sFA cA"],
                "fin_3seg_server" => &["sFA cFA sA"],
                "data_on_fin" => &["cFA8 sA sFA cA"],
                "half_close" => &["cFA sA8 cA sA8 cA sFA cA"],
                "lost_last_ack" => &["cFA sA sFA cA sFA cA"],
                "close_wait_leak" => &["cFA sA"],
                "rst_abort" => &["cRA"],
                "rst_unread_data" => &["cFA sA sRA", "cFA sRA"],
                "rst_nobody_reads" => &["cFA sA sA14 cR"],
                "refused" => &["sRA"],
                "syn_unanswered" => &["cS", "cS cS"],
                "syn_abort" => &["cR"],
                "time_wait_reuse" => &["sFA cA cFA sA cS sSA cA cA8 sA sA6 cA"],
                "live" => &["cS sSA cA cA8 sA sA6 cA"],
                "simultaneous" => {
                    assert!(close.starts_with("cFA sFA ") || close.starts_with("sFA cFA "), "{close}");
                    continue;
                }
                other => panic!("{other}: what does it look like on the wire?"),
            };
            assert!(expected.contains(&close.as_str()), "{} is {close:?}", scenario.name);
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut frame = vec![std::mem::MaybeUninit::uninit(); 65_536];
        while let Ok(length) = self.tap.recv(&mut frame) {
            let mut bytes = vec![0; length];
            for (to, from) in bytes.iter_mut().zip(&frame) {
                // SAFETY: `recv` has written the first `length` octets.
                *to = unsafe { from.assume_init() };
            }
            segments.extend(Segment::parse(&bytes));
        }
        segments
    }
}

struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    payload: usize,
}

impl Segment {
    fn parse(frame: &[u8]) -> Option<Segment> {
        let packet = frame.get(14..)?;
        let (from, to, tcp) = match frame.get(12..14)? {
            [0x08, 0x00] if packet[9] == 6 => (
                IpAddr::from(*packet[12..].first_chunk::<4>()?),
                IpAddr::from(*packet[16..].first_chunk::<4>()?),
                &packet[20..usize::from(u16::from_be_bytes([packet[2], packet[3]]))],
            ),
            [0x86, 0xdd] if packet[6] == 6 => (
                IpAddr::from(*packet[8..].first_chunk::<16>()?),
                IpAddr::from(*packet[24..].first_chunk::<16>()?),
                &packet[40..],
            ),
            _ => return None,
        };
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        Some(Segment {
            from: SocketAddr::new(from, port(0)),
            to: SocketAddr::new(to, port(2)),
            flags: tcp[13],
            payload: tcp.len() - usize::from(tcp[12] >> 4) * 4,
        })
    }

    fn line(&self, client: SocketAddr, server: SocketAddr) -> Option<String> {
        let sender = HashMap::from([((client, server), 'c'), ((server, client), 's')]);
        let mut line = String::from(*sender.get(&(self.from, self.to))?);
        line.extend(
            [(1, 'F'), (2, 'S'), (4, 'R'), (16, 'A')]
                .iter()
                .filter_map(|(bit, letter)| (self.flags & bit != 0).then_some(*letter)),
        );
        if self.payload > 0 {
            line += &self.payload.to_string();
        }
        Some(line)
    }
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

fn listed_state(lab: &Lab, side: Side, local: SocketAddr, remote: SocketAddr) -> State {
    let sockets = lab.host(side).sockets().unwrap();
    let mut matching = sockets.iter().filter(|socket| socket.local == local && socket.remote == remote);
    let state = matching.next().map_or(State::Closed, |socket| socket.state);
    assert!(matching.next().is_none(), "{local} {remote} is listed twice");
    state
}

fn tcp_socket(lab: &Lab, side: Side, domain: Domain) -> Socket {
    lab.host(side).run(|| Socket::new(domain, Type::STREAM, None)).unwrap().unwrap()
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
