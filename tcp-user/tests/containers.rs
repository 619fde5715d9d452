//! The agent on a host with containers, while connections of every kind open and close: from, to and between
//! containers, through a published port, by masquerade, of the host itself, and over a VLAN device. The audit
//! finds no difference without a reason.

mod common;
mod world;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::{Agent, FINWAIT, until};
use finwait::audit::Report;
use finwait::lab::Namespace;
use world::{at, cable, host, ip};

const CHAINS: &str = "table ip n {
chain d { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 172.17.0.2:80; }
chain m { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/24 oifname != br0 masquerade; }
chain h { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/24 ct status dnat masquerade; }
}";

/// The host, another host, and two containers.
struct Hosts {
    host: Namespace,
    other: Namespace,
    containers: [Namespace; 2],
}

impl Hosts {
    fn new() -> Hosts {
        let hosts = Hosts { host: host(), other: host(), containers: [host(), host()] };
        let Hosts { host, other, containers } = &hosts;
        cable((other, "eth0", "10.1.0.1/24"), (host, "eth0", "10.1.0.2/24"));
        second_network(other, host);
        ip(host, "link add br0 type bridge");
        ip(host, "address add 172.17.0.1/24 dev br0");
        ip(host, "link set br0 up");
        for (container, number) in containers.iter().zip([2, 3]) {
            let port = format!("veth{number}");
            cable((container, "eth0", &format!("172.17.0.{number}/24")), (host, &port, ""));
            ip(host, &format!("link set {port} master br0"));
            ip(container, "route add default via 172.17.0.1");
        }
        let mut nft = Command::new("nft");
        let output = host.run(|| nft.arg(CHAINS).output()).expect("namespace");
        let output = output.expect("nft (Debian: nftables)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        hosts
    }

    fn audit(&self, agent: &Agent<'_>) -> (Option<i32>, Report) {
        let mut command = Command::new(FINWAIT);
        command.args(["audit", "--interval", "500ms", "-o", "json", "--socket", &agent.socket]);
        let output = self.host.run(|| command.output()).expect("namespace").expect("running the CLI");
        (output.status.code(), serde_json::from_slice(&output.stdout).expect("a report"))
    }
}

/// Connects both hosts by a network of their own: a VLAN where the kernel has 8021q, otherwise a cable.
fn second_network(other: &Namespace, host: &Namespace) {
    let add_vlan = || Command::new("ip").args("link add link eth0 eth1 type vlan id 10".split(' ')).output();
    let has_vlans = host.run(add_vlan).expect("namespace").expect("ip").status.success();
    if !has_vlans {
        return cable((other, "eth1", "10.4.0.1/24"), (host, "eth1", "10.4.0.2/24"));
    }
    ip(other, "link add link eth0 eth1 type vlan id 10");
    for (namespace, address) in [(other, "10.4.0.1/24"), (host, "10.4.0.2/24")] {
        ip(namespace, &format!("address add {address} dev eth1"));
        ip(namespace, "link set eth1 up");
    }
}

/// Answers every connection until it is stopped: one question, one answer. Closes first if `first`.
fn serve(listener: &TcpListener, first: bool, stop: &AtomicBool) {
    listener.set_nonblocking(true).expect("a listener that does not block");
    while !stop.load(Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false).expect("a stream that blocks");
                stream.read_exact(&mut [0; 8]).expect("the question");
                stream.write_all(&[7; 4000]).expect("answering");
                if !first {
                    stream.read_to_end(&mut Vec::new()).expect("the client's FIN");
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("accepting: {error}"),
        }
    }
}

/// Opens one connection after the other until it is stopped.
fn ask(to: SocketAddr, first: bool, stop: &AtomicBool, asked: &AtomicU64) {
    while !stop.load(Relaxed) {
        let mut stream = TcpStream::connect(to).expect("connecting");
        stream.write_all(b"question").expect("asking");
        stream.read_exact(&mut [0; 4000]).expect("the answer");
        if !first {
            stream.read_to_end(&mut Vec::new()).expect("the server's FIN");
        }
        drop(stream);
        asked.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root"]
fn the_audit_finds_no_difference_while_connections_come_and_go() {
    let hosts = Hosts::new();
    let Hosts { host, other, containers: [web, batch] } = &hosts;
    let interfaces = ["eth0", "eth1", "br0", "veth2", "veth3"].iter().flat_map(|name| ["-i", name]);
    let options = ["--audit-interval", "500ms", "--max-flows", "65536"];
    let arguments: Vec<_> = interfaces.chain(options).collect();
    let agent = Agent::start_in(host, "containers", &arguments);
    // Who connects from where to which address, and where the listener is.
    let routes: [(&Namespace, SocketAddr, &Namespace, SocketAddr); 7] = [
        (other, at("10.1.0.2", 8080), web, at("172.17.0.2", 80)),
        (batch, at("10.1.0.2", 8080), web, at("172.17.0.2", 80)),
        (batch, at("10.1.0.1", 81), other, at("10.1.0.1", 81)),
        (batch, at("172.17.0.2", 82), web, at("172.17.0.2", 82)),
        (web, at("172.17.0.1", 83), host, at("172.17.0.1", 83)),
        (host, at("10.4.0.1", 84), other, at("10.4.0.1", 84)),
        (other, at("10.4.0.2", 85), host, at("10.4.0.2", 85)),
    ];
    let asked = [const { AtomicU64::new(0) }; 7];
    let (stop_clients, stop_servers) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|servers| {
        let _stop = StopsAll(&stop_servers);
        for (number, (_, _, server, address)) in routes.iter().enumerate() {
            // The first two have one listener.
            if number == 1 {
                continue;
            }
            let listener = server.run(|| TcpListener::bind(address)).expect("namespace").expect("listening");
            let stop = &stop_servers;
            servers.spawn(move || serve(&listener, number % 2 == 1, stop));
        }
        thread::scope(|clients| {
            let _stop = StopsAll(&stop_clients);
            for (number, ((client, address, ..), asked)) in routes.iter().zip(&asked).enumerate() {
                let client_first = number == 1 || number % 2 == 0;
                let stop = &stop_clients;
                clients.spawn(move || {
                    client.run(|| ask(*address, client_first, stop, asked)).expect("namespace");
                });
            }
            let count = || asked.iter().map(|asked| asked.load(Relaxed)).sum::<u64>();
            until("connections pass everywhere", || asked.iter().all(|asked| asked.load(Relaxed) > 20));
            for _ in 0..10 {
                let before = count();
                let (code, report) = hosts.audit(&agent);
                assert_eq!(code, Some(0), "{report:#?}");
                assert!(report.counts.agree > 0, "{report:#?}");
                until("more connections pass", || count() > before + 20);
            }
        });
    });
    assert_eq!(agent.stats().audit_repairs.values().sum::<u64>(), 0);
    // Of the routes, the first four end and begin elsewhere, the others at the host.
    let [forwarded, own] =
        [&asked[..4], &asked[4..]].map(|asked| asked.iter().map(|asked| asked.load(Relaxed)).sum::<u64>());
    until("the opens are counted", || {
        let page = agent.scrape();
        let total = |family: &str| {
            let samples = page.lines().filter(|line| line.starts_with(&format!("finwait_{family}_total{{")));
            let values = samples.map(|line| line.rsplit(' ').next().expect("a value"));
            values.map(|value| value.parse::<u64>().expect("a count")).sum::<u64>()
        };
        // Translated connections have two legs.
        total("connections_opened") == own && total("forwarded_connections_opened") > forwarded
    });
}

/// Stops the threads when it is dropped, also by a failed assertion.
struct StopsAll<'a>(&'a AtomicBool);

impl Drop for StopsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
