//! What few packets have, between real hosts: connection attempts that a router ends by ICMP errors, and segments that
//! it divides into fragments.

mod common;
mod world;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::{Agent, until};
use finwait::lab::Namespace;
use finwait::view::{Confidence, State};
use tcp_common::CloseKind;
use world::{Talk, at, cable, host, ip};

/// The ICMP errors that nft sends, the port for which it does, and what ends the attempt by them.
const ERRORS: [(&str, &str, u16, &str); 11] = [
    ("ip", "net-unreachable", 1, "unreachable"),
    ("ip", "host-unreachable", 2, "unreachable"),
    ("ip", "prot-unreachable", 3, "refused"),
    ("ip", "port-unreachable", 4, "refused"),
    ("ip", "net-prohibited", 5, "refused"),
    ("ip", "host-prohibited", 6, "refused"),
    ("ip", "admin-prohibited", 7, "refused"),
    ("ip6", "no-route", 8, "unreachable"),
    ("ip6", "admin-prohibited", 9, "refused"),
    ("ip6", "addr-unreachable", 10, "unreachable"),
    ("ip6", "port-unreachable", 11, "refused"),
];

fn nft(namespace: &Namespace, rules: &str) {
    namespace.nft(rules).expect("nft (Debian: nftables)");
}

/// Tries to connect. The timeout makes the socket one that no system call holds, as in most programs: the kernel
/// then ends it by the error.
fn connect(host: &Namespace, to: SocketAddr) -> io::Error {
    host.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(20)))
        .expect("entering the namespace")
        .expect_err("nothing accepts it")
}

#[test]
#[ignore = "needs root"]
fn an_attempt_ends_when_the_kernel_gives_it_up() {
    let (client, router) = (host(), host());
    cable((&client, "eth0", "10.1.0.1/24"), (&router, "eth0", "10.1.0.2/24"));
    ip(&client, "address add fd01::1/64 dev eth0 nodad");
    ip(&router, "address add fd01::2/64 dev eth0 nodad");
    for (family, kind, port, _) in ERRORS {
        let icmp = if family == "ip" { "icmp" } else { "icmpv6" };
        nft(&router, &format!("add table {family} t"));
        nft(&router, &format!("add chain {family} t c {{ type filter hook input priority 0; }}"));
        nft(&router, &format!("add rule {family} t c tcp dport {port} reject with {icmp} type {kind}"));
    }
    let agent = Agent::start_in(&client, "rare-icmp", &["--audit-interval", "0"]);
    for (family, kind, port, _) in ERRORS {
        let error = connect(&client, at(if family == "ip" { "10.1.0.2" } else { "fd01::2" }, port));
        assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{family} {kind}: {error}");
    }
    let mut connections = Vec::new();
    until("every attempt is closed", || {
        connections = agent.connections();
        connections.len() == ERRORS.len() && connections.iter().all(|c| c.client.state == State::Closed)
    });
    // While a system call holds the socket an error is soft (`tcp_v4_err`). Then the SYN goes out again, and the next
    // error ends what is another attempt to an observer.
    let mut attempts: BTreeMap<&str, u64> = BTreeMap::new();
    for connection in &connections {
        let close = connection.close.as_ref().expect("it is closed");
        let (family, kind, _, expected) =
            ERRORS.into_iter().find(|error| error.2 == connection.server.port).expect("its port");
        assert_eq!(close.kind.map(CloseKind::name), Some(expected), "{family} {kind}: {connection:#?}");
        assert_eq!(
            (close.icmp.is_some(), close.aborter, close.closer),
            (true, None, None),
            "{connection:#?}"
        );
        *attempts.entry(expected).or_default() += u64::from(connection.incarnation);
    }
    let closed = agent.stats().closed;
    for (kind, by) in closed {
        let count: u64 = by.values().sum();
        assert_eq!(count, attempts.get(kind.as_str()).copied().unwrap_or_default(), "{kind}");
    }
}

/// Makes a client, a router and a server. Full segments of the client do not fit through the second link, and may be
/// divided.
fn hosts_with_a_narrow_link() -> [Namespace; 3] {
    let (client, router, server) = (host(), host(), host());
    cable((&client, "eth0", "10.1.0.1/24"), (&router, "left", "10.1.0.2/24"));
    cable((&server, "eth0", "10.2.0.1/24"), (&router, "right", "10.2.0.2/24"));
    ip(&router, "link set right mtu 600");
    ip(&client, "route add default via 10.1.0.2");
    ip(&server, "route add default via 10.2.0.2");
    client.sysctl("ipv4/ip_no_pmtu_disc", "1").expect("ip_no_pmtu_disc");
    [client, router, server]
}

#[test]
#[ignore = "needs root"]
fn segments_in_fragments_are_followed() {
    let [client, router, server] = hosts_with_a_narrow_link();
    // The router sees each datagram whole and in fragments.
    for place in [&server, &router] {
        let agent = Agent::start_in(place, "rare-fragments", &["--audit-interval", "0"]);
        let mut talk = Talk::open((&client, 0), (&server, at("10.2.0.1", 80)));
        talk.send(0, &[b'x'; 12_584]);
        talk.close();
        let mut seen = Vec::new();
        until("both ends are as their kernels have them", || {
            seen = agent.connections();
            seen.retain(|connection| connection.client.socket_address() == talk.client);
            let [one] = &seen[..] else { return false };
            let segments = [one.client.segments, one.server.segments];
            [one.client.state, one.server.state] == talk.states() && segments == talk.sent()
        });
        assert_eq!((seen[0].confidence, seen[0].client.bytes), (Confidence::Exact, 12_590), "{seen:#?}");
        until("no fragment waits", || {
            let stats = agent.stats();
            let ignored: u64 = stats.packets_ignored.values().sum();
            stats.fragments_pending == 0 && stats.packets_seen == stats.packets_tracked + ignored
        });
        assert!(agent.stats().packets_ignored["fragment"] >= 8, "the middle ones");
    }
}

#[test]
#[ignore = "needs root"]
fn a_segment_without_its_middle_fragment_is_not_counted() {
    // A router behind the one that divides drops them.
    let ([client, divider, router], server) = (hosts_with_a_narrow_link(), host());
    cable((&server, "eth0", "10.3.0.1/24"), (&router, "right", "10.3.0.2/24"));
    ip(&server, "route add default via 10.3.0.2");
    ip(&divider, "route add default via 10.2.0.1");
    nft(&router, "add table ip t");
    nft(&router, "add chain ip t c { type filter hook forward priority 0; }");
    nft(&router, "add rule ip t c ip frag-off & 0x1fff != 0 ip frag-off & 0x2000 != 0 drop");
    let agent = Agent::start_in(&server, "rare-hole", &["--audit-interval", "0"]);
    let mut talk = Talk::open((&client, 0), (&server, at("10.3.0.1", 80)));
    let bytes = || {
        let [one] = &agent.connections()[..] else { panic!("one connection") };
        (one.client.bytes, one.confidence)
    };
    let word = bytes();
    talk.write(0, &[b'x'; 1_300]);
    // The first and the last fragment wait for 2 s; those of the retransmissions, too.
    until("both were given up", || agent.stats().packets_ignored["fragment"] >= 2);
    assert_eq!(bytes(), word);
    nft(&router, "delete table ip t");
    talk.read(1, 1_300);
    until("the retransmission is counted", || bytes() == (word.0 + 1_300, Confidence::Exact));
}
