//! The agent on a host that translates addresses (NAT), with the sockets on other hosts. One connection is one
//! record with both tuples, whatever the number of flows on the wire, and none is the host's own.

mod common;
mod world;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::watch::Watch;
use common::{Agent, FINWAIT, until};
use finwait::audit::{Reason, Report, Verdict};
use finwait::lab::Namespace;
use finwait::view::{Connection, EventRecord, Role, State};
use socket2::SockRef;
use world::{Talk, at, cable, host, ip};

/// A client on one host, a server on another, and between them the agent's host, which translates.
struct Nat {
    client: Namespace,
    agent: Namespace,
    server: Namespace,
}

/// Address of the agent's host on the client's side, and of both hosts on the server's side.
const PUBLISHED: &str = "10.1.0.2";
const BRIDGE: &str = "172.17.0.1";
const CONTAINER: &str = "172.17.0.2";

impl Nat {
    /// Makes the hosts, and a table of nft for IPv4 with these chains.
    fn new(chains: &[&str]) -> Nat {
        let nat = Nat { client: host(), agent: host(), server: host() };
        cable((&nat.client, "eth0", "10.1.0.1/24"), (&nat.agent, "eth0", "10.1.0.2/24"));
        cable((&nat.server, "eth0", "172.17.0.2/24"), (&nat.agent, "veth7", "172.17.0.1/24"));
        ip(&nat.server, "route add default via 172.17.0.1");
        nat.nft("ip", chains);
        nat
    }

    /// Makes a table of nft with these chains on the agent's host.
    fn nft(&self, family: &str, chains: &[&str]) {
        let table = format!("table {family} n {{\n{}\n}}", chains.join("\n"));
        self.agent.nft(&table).expect("nft (Debian: nftables)");
    }

    /// Starts an agent that watches both interfaces.
    fn start(&self, name: &str) -> Agent<'_> {
        self.start_with(name, &[])
    }

    fn start_with(&self, name: &str, options: &[&str]) -> Agent<'_> {
        let common = ["-i", "eth0", "-i", "veth7", "--audit-interval", "200ms", "--max-flows", "4096"];
        Agent::start_in(&self.agent, name, &[&common, options].concat())
    }

    fn audit(&self, agent: &Agent<'_>) -> (Option<i32>, Report) {
        let mut command = Command::new(FINWAIT);
        command.args(["audit", "--all", "-o", "json", "--socket", &agent.socket]);
        let output = self.agent.run(|| command.output()).expect("namespace").expect("running the CLI");
        (output.status.code(), serde_json::from_slice(&output.stdout).expect("a report"))
    }
}

fn listen(on: &Namespace, address: SocketAddr) -> TcpListener {
    on.run(|| TcpListener::bind(address)).expect("namespace").expect("listening")
}

/// An open connection.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    /// Connects to an address behind which the listener is, and exchanges a question and an answer.
    fn open(from: &Namespace, to: SocketAddr, listener: &TcpListener) -> Pair {
        let client = from.run(|| TcpStream::connect(to)).expect("namespace").expect("connecting");
        let (server, _) = listener.accept().expect("accepting");
        let mut pair = Pair { client, server };
        pair.say();
        pair
    }

    fn say(&mut self) {
        self.client.write_all(b"question").expect("asking");
        self.server.read_exact(&mut [0; 8]).expect("reading");
        self.server.write_all(b"answer").expect("answering");
        self.client.read_exact(&mut [0; 6]).expect("reading");
    }

    /// Closes the client first.
    fn close(mut self) {
        self.client.shutdown(Shutdown::Write).expect("shutting down");
        assert_eq!(self.server.read_to_end(&mut Vec::new()).expect("reading to the end"), 0);
        drop(self.server);
        assert_eq!(self.client.read_to_end(&mut Vec::new()).expect("reading to the end"), 0);
    }
}

/// The connections that a filter selects.
fn listed(agent: &Agent<'_>, filter: &str) -> Vec<Connection> {
    let output = agent.cli(&["ls", "--all", "-o", "ndjson", filter]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a connection")).collect()
}

fn states(connection: &Connection) -> [State; 2] {
    connection.ends().map(|end| end.state)
}

/// The values of a family of counters, summed.
fn total(page: &str, family: &str) -> u64 {
    let samples = page.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    samples.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count")).sum()
}

/// The connections that the host has opened or accepted itself, and the opened legs of others.
fn opened(agent: &Agent<'_>) -> [u64; 2] {
    totals(agent, "opened")
}

/// Those of [`opened`] that are closed.
fn closed(agent: &Agent<'_>) -> [u64; 2] {
    totals(agent, "closed")
}

fn totals(agent: &Agent<'_>, event: &str) -> [u64; 2] {
    let page = agent.scrape();
    ["connections", "forwarded_connections"]
        .map(|what| total(&page, &format!("finwait_{what}_{event}_total")))
}

/// A published port of a container.
const PUBLISH: &str =
    "chain d { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 172.17.0.2:80; }";
/// Source address of the host for what leaves the container's network.
const MASQUERADE: &str = "chain m { type nat hook postrouting priority srcnat; \
                          ip saddr 172.17.0.0/24 ip daddr != 172.17.0.1 masquerade; }";

#[test]
#[ignore = "needs root"]
fn a_published_port_belongs_to_the_container() {
    let nat = Nat::new(&[PUBLISH]);
    let agent = nat.start_with("nat-published", &["--msl", "3s"]);
    let listener = listen(&nat.server, at(CONTAINER, 80));
    for _ in 0..10 {
        Pair::open(&nat.client, at(PUBLISHED, 8080), &listener).close();
    }
    until("all connections are closed", || {
        let connections = listed(&agent, "port = :8080");
        connections.len() == 10
            && connections.iter().all(|connection| states(connection) == [State::TimeWait, State::Closed])
    });
    for filter in ["dport = :8080", "dport = :80", "dst 10.1.0.2:8080", "server 172.17.0.2", "src 10.1.0.1"] {
        assert_eq!(listed(&agent, filter).len(), 10, "{filter}");
    }
    assert!(listed(&agent, "local state time-wait").is_empty());
    for connection in listed(&agent, "") {
        let reply = connection.nat.expect("translated").reply;
        assert_eq!(connection.server.socket_address(), at(PUBLISHED, 8080));
        assert_eq!(SocketAddr::from(reply.server), at(CONTAINER, 80));
        assert_eq!(SocketAddr::from(reply.client), connection.client.socket_address());
        assert!(connection.ends().iter().all(|end| !end.local && end.bytes > 0), "{connection:?}");
    }
    let table = String::from_utf8(agent.cli(&["ls", "--all"]).stdout).expect("text");
    assert_eq!(table.matches("10.1.0.2:8080=>172.17.0.2:80").count(), 10, "{table}");
    assert_eq!(nat.audit(&agent).0, Some(0));
    // The host opened and accepted none; two legs of each pass it.
    assert_eq!(opened(&agent), [0, 20]);
    until("the closes are counted", || closed(&agent) == [0, 20]);
}

/// Checks that an idle translated connection stays open while the agent looks for sockets, and goes on.
fn idle_and_talk_again(
    nat: &Nat,
    agent: &Agent<'_>,
    mut pair: Pair,
    top: [SocketAddr; 2],
    reply: [SocketAddr; 2],
) {
    let is_right = || {
        let [connection] = &*listed(agent, "") else { return false };
        let bottom = connection.nat.map(|nat| [nat.reply.client.into(), nat.reply.server.into()]);
        connection.ends().map(|end| end.socket_address()) == top
            && bottom == Some(reply)
            && states(connection) == [State::Established; 2]
            && connection.incarnation == 1
            && connection.ends().iter().all(|end| !end.local)
    };
    until("the connection is known with both tuples", is_right);
    let looks = agent.stats().audit_looks;
    until("the agent has looked for sockets", || agent.stats().audit_looks > looks + 6);
    assert!(is_right(), "{:#?}", listed(agent, ""));
    let (code, report) = nat.audit(agent);
    assert_eq!(code, Some(0), "{report:#?}");
    let [finding] = &*report.findings else { panic!("{report:#?}") };
    assert_eq!((finding.verdict, finding.reason), (Verdict::OnlyOurs, Some(Reason::Translated)));

    let bytes = || listed(agent, "")[0].client.bytes;
    let before = bytes();
    pair.say();
    until("the new bytes are counted", || bytes() == before + 8);
    assert!(is_right(), "{:#?}", listed(agent, ""));
    let stats = agent.stats();
    assert_eq!(stats.audit_repairs.values().sum::<u64>(), 0);
    assert_eq!(opened(agent), [0, 2]);
}

#[test]
#[ignore = "needs root"]
fn an_idle_connection_to_a_published_port_stays_open() {
    let nat = Nat::new(&[PUBLISH]);
    let agent = nat.start("nat-idle-dnat");
    let listener = listen(&nat.server, at(CONTAINER, 80));
    let pair = Pair::open(&nat.client, at(PUBLISHED, 8080), &listener);
    let client = pair.client.local_addr().expect("an address");
    idle_and_talk_again(&nat, &agent, pair, [client, at(PUBLISHED, 8080)], [client, at(CONTAINER, 80)]);
}

#[test]
#[ignore = "needs root"]
fn an_idle_masqueraded_connection_stays_open() {
    masqueraded("nat-idle-masquerade", false);
}

#[test]
#[ignore = "needs root"]
fn a_masqueraded_connection_older_than_the_agent_is_recognised() {
    masqueraded("nat-older-masquerade", true);
}

fn masqueraded(name: &str, is_older: bool) {
    let nat = Nat::new(&[MASQUERADE]);
    let server = at("10.1.0.1", 8086);
    let listener = listen(&nat.client, server);
    let open = || Pair::open(&nat.server, server, &listener);
    let older = is_older.then(open);
    let agent = nat.start(name);
    let mut pair = older.unwrap_or_else(open);
    if is_older {
        pair.say();
    }
    let client = pair.client.local_addr().expect("an address");
    let masqueraded = pair.server.peer_addr().expect("an address");
    assert_eq!((client.ip(), masqueraded.ip()), (at(CONTAINER, 0).ip(), at(PUBLISHED, 0).ip()));
    idle_and_talk_again(&nat, &agent, pair, [client, server], [masqueraded, server]);
}

#[test]
#[ignore = "needs root"]
fn an_ipv6_connection_to_a_published_port_stays_open() {
    let nat = Nat::new(&[]);
    let links =
        [(&nat.client, "fd01::1", "eth0"), (&nat.agent, "fd01::2", "eth0"), (&nat.agent, "fd02::1", "veth7")];
    for (host, address, interface) in links.into_iter().chain([(&nat.server, "fd02::2", "eth0")]) {
        ip(host, &format!("address add {address}/64 dev {interface} nodad"));
    }
    ip(&nat.server, "-6 route add default via fd02::1");
    let forwarding = || std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    nat.agent.run(forwarding).expect("namespace").expect("forwarding");
    nat.nft(
        "ip6",
        &["chain d { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to [fd02::2]:80; }"],
    );
    let agent = nat.start("nat-idle-ipv6");
    let listener = listen(&nat.server, at("fd02::2", 80));
    let pair = Pair::open(&nat.client, at("fd01::2", 8080), &listener);
    let client = pair.client.local_addr().expect("an address");
    let client = SocketAddr::new(client.ip(), client.port());
    idle_and_talk_again(&nat, &agent, pair, [client, at("fd01::2", 8080)], [client, at("fd02::2", 80)]);
}

#[test]
#[ignore = "needs root"]
fn a_container_that_connects_to_its_own_published_port_is_one_connection() {
    let hairpin = "chain m { type nat hook postrouting priority srcnat; \
                   ip saddr 172.17.0.2 ip daddr 172.17.0.2 masquerade; }";
    let nat = Nat::new(&[PUBLISH, hairpin]);
    let agent = nat.start("nat-hairpin");
    let listener = listen(&nat.server, at(CONTAINER, 80));
    let pair = Pair::open(&nat.server, at(PUBLISHED, 8080), &listener);
    let client = pair.client.local_addr().expect("an address");
    let masqueraded = pair.server.peer_addr().expect("an address");
    assert_eq!(masqueraded.ip(), at(BRIDGE, 0).ip());
    idle_and_talk_again(&nat, &agent, pair, [client, at(PUBLISHED, 8080)], [masqueraded, at(CONTAINER, 80)]);
}

#[test]
#[ignore = "needs root"]
fn a_connection_of_the_host_itself_is_local_and_agrees_with_its_socket() {
    let nat = Nat::new(&[
        "chain o { type nat hook output priority -100; tcp dport 8080 dnat to 172.17.0.2:80; }",
        "chain r { type nat hook prerouting priority dstnat; tcp dport 7 redirect to :9007; }",
    ]);
    let agent = nat.start("nat-local");
    let container = listen(&nat.server, at(CONTAINER, 80));
    let own = listen(&nat.agent, at(PUBLISHED, 9007));
    // From the host to a published port, to the host by a redirected port, and without NAT.
    let _pairs = [
        Pair::open(&nat.agent, at("10.1.0.1", 8080), &container),
        Pair::open(&nat.client, at(PUBLISHED, 7), &own),
        Pair::open(&nat.client, at(PUBLISHED, 9007), &own),
    ];
    until("the opens are counted", || opened(&agent) == [3, 0]);
    let local = |filter: &str| {
        let [connection] = &*listed(&agent, filter) else { panic!("{:#?}", listed(&agent, "")) };
        (connection.ends().map(|end| end.local), connection.nat.is_some())
    };
    assert_eq!(local("port = :8080"), ([true, false], true));
    assert_eq!(local("dport = :80"), local("server 10.1.0.1:8080"));
    assert_eq!(local("port = :7"), ([false, true], true));
    assert_eq!(local("port = :9007 and not port = :7"), ([false, true], false));
    let looks = agent.stats().audit_looks;
    until("the agent has looked for sockets", || agent.stats().audit_looks > looks + 6);
    let (code, report) = nat.audit(&agent);
    assert_eq!(code, Some(0), "{report:#?}");
    assert_eq!(report.counts.agree, 3, "{report:#?}");
    assert_eq!(agent.stats().audit_repairs.values().sum::<u64>(), 0);
}

#[test]
#[ignore = "needs root"]
fn an_unanswered_connection_of_a_container_is_not_the_hosts() {
    let nat = Nat::new(&[MASQUERADE]);
    // No host has this address.
    ip(&nat.client, "address add 10.1.0.9/32 dev lo");
    ip(&nat.client, "rule add from 10.1.0.9 blackhole");
    let agent = nat.start_with("nat-unanswered", &["--timeout", "syn_sent=1s"]);
    let connect = || TcpStream::connect_timeout(&at("10.1.0.9", 80), Duration::from_millis(300));
    assert!(nat.server.run(connect).expect("namespace").is_err());
    until("both legs are closed", || closed(&agent).iter().sum::<u64>() == 2);
    assert_eq!(closed(&agent), [0, 2]);
}

#[test]
#[ignore = "needs root"]
fn the_next_connection_of_a_translated_tuple_may_be_the_hosts() {
    let nat = Nat::new(&[MASQUERADE]);
    let forget_soon = || std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1");
    nat.agent.run(forget_soon).expect("namespace").expect("the timeout");
    let agent = nat.start("nat-next");
    let server = (&nat.client, at("10.1.0.1", 8086));
    // Masquerade keeps the port.
    Talk::open((&nat.server, 4_000), server).close();
    until("the close is counted", || closed(&agent) == [0, 2]);
    until("conntrack has forgotten it", || {
        let mut command = Command::new(FINWAIT);
        command.args(["audit", "--conntrack", "-o", "json", "--socket", &agent.socket]);
        let output = nat.agent.run(|| command.output()).expect("namespace").expect("running the CLI");
        let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
        report.conntrack.expect("entries").entries == 0
    });
    let _talk = Talk::open((&nat.agent, 4_000), server);
    until("the open is the host's", || opened(&agent) == [1, 2]);
    let [connection] = &*listed(&agent, "state established") else { panic!("{:#?}", listed(&agent, "")) };
    assert_eq!((connection.incarnation, connection.client.local), (2, true), "{connection:#?}");
    let (code, report) = nat.audit(&agent);
    assert_eq!((code, report.counts.agree), (Some(0), 1), "{report:#?}");
}

/// Conntrack forgets a refused connection with the RST.
#[test]
#[ignore = "needs root"]
fn a_refused_connection_is_of_the_host_that_made_it() {
    let nat = Nat::new(&[PUBLISH, MASQUERADE]);
    let agent = nat.start("nat-refused");
    let refused = |from: &Namespace, address, port| {
        let error =
            from.run(|| TcpStream::connect(at(address, port))).expect("namespace").expect_err("closed");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    };
    // From outside to a published port, and from the container to outside.
    refused(&nat.client, PUBLISHED, 8080);
    refused(&nat.server, "10.1.0.1", 9);
    until("both legs of each are closed", || closed(&agent) == [0, 4]);
    // Of this host, and by it.
    refused(&nat.agent, "10.1.0.1", 9);
    refused(&nat.client, PUBLISHED, 9);
    until("its own are closed", || closed(&agent) == [2, 4]);
}

#[test]
#[ignore = "needs root"]
fn each_event_of_a_translated_connection_is_printed_once() {
    let nat = Nat::new(&[PUBLISH]);
    let agent = nat.start("nat-watch");
    let watch = Watch::start(&agent, "nat-watch");
    let listener = listen(&nat.server, at(CONTAINER, 80));
    // An abort: the close follows at once.
    let pair = Pair::open(&nat.client, at(PUBLISHED, 8080), &listener);
    until("both legs are known", || listed(&agent, "").iter().any(|connection| connection.nat.is_some()));
    let [Connection { id, .. }] = *listed(&agent, "") else { panic!("{:#?}", listed(&agent, "")) };
    SockRef::from(&pair.client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(pair.client);
    until("both legs are closed", || closed(&agent) == [0, 2]);
    let is_reset = |event: &EventRecord| match event {
        EventRecord::Transition(transition) => transition.cause == "rst",
        EventRecord::Close(_) => true,
        EventRecord::Reopened(_)
        | EventRecord::RstIgnored(_)
        | EventRecord::TimeWaitEnd(_)
        | EventRecord::Lost(_) => false,
    };
    let events = || watch.events().into_iter().filter(is_reset).collect::<Vec<_>>();
    until("the close is printed", || events().iter().any(|event| matches!(event, EventRecord::Close(_))));
    let (mut sides, mut closes) = (Vec::new(), Vec::new());
    for event in events() {
        assert_eq!(event.id(), Some(id), "both legs are one connection");
        match event {
            EventRecord::Transition(transition) => {
                assert_eq!(transition.server.socket_address(), at(PUBLISHED, 8080));
                sides.push(transition.side);
            }
            EventRecord::Close(close) => closes.push(close.connection),
            other => panic!("{other:#?}"),
        }
    }
    sides.sort_by_key(|&side| side == Role::Server);
    assert_eq!(sides, [Role::Client, Role::Server]);
    let [close] = &*closes else { panic!("{closes:#?}") };
    assert_eq!(close.server.socket_address(), at(PUBLISHED, 8080));
    assert_eq!(close.nat.map(|nat| SocketAddr::from(nat.reply.server)), Some(at(CONTAINER, 80)));
}

#[test]
#[ignore = "needs root"]
fn ends_in_other_namespaces_are_on_the_host() {
    let nat = Nat::new(&[PUBLISH]);
    // A host behind a gateway, and a container behind a bridge.
    ip(&nat.client, "address add 10.3.0.1/32 dev lo");
    ip(&nat.agent, "route add 10.3.0.1 via 10.1.0.1");
    ip(&nat.client, "route add 172.17.0.0/24 via 10.1.0.2");
    for words in ["link add br0 type bridge", "link set br0 up", "address del 172.17.0.1/24 dev veth7"] {
        ip(&nat.agent, words);
    }
    ip(&nat.agent, "link set veth7 master br0");
    ip(&nat.agent, "address add 172.17.0.1/24 dev br0");
    let agent = nat.start("nat-on-host");
    let listener = listen(&nat.server, at(CONTAINER, 80));
    let _near = Pair::open(&nat.client, at(PUBLISHED, 8080), &listener);
    let far = listen(&nat.client, at("10.3.0.1", 81));
    let _far = Pair::open(&nat.server, at("10.3.0.1", 81), &far);
    let own = listen(&nat.agent, at(PUBLISHED, 82));
    let _own = Pair::open(&nat.client, at(PUBLISHED, 82), &own);
    let on_host = |filter: &str| {
        let [connection] = &*listed(&agent, filter) else { panic!("{:#?}", listed(&agent, "")) };
        connection.ends().map(|end| (end.local, end.on_host))
    };
    until("all are known", || listed(&agent, "state established").len() == 3);
    assert_eq!(on_host("port = :8080"), [(false, true), (false, true)]);
    assert_eq!(on_host("port = :81"), [(false, true), (false, false)]);
    assert_eq!(on_host("port = :82"), [(false, true), (true, true)]);
}
