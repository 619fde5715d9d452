//! The agent on a host with containers, while wrk queries nginx in every way: from, to and between containers,
//! through a published port, by masquerade, of the host itself, and over a VLAN device. The audit finds no
//! difference without a reason.

mod common;
mod world;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::nginx::Nginx;
use common::oracle::counter;
use common::{Agent, FINWAIT, fresh_folder, spawn, until, until_within};
use finwait::audit::{Finding, Reason, Report, Verdict};
use finwait::lab::Namespace;
use world::{cable, host, ip};

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

/// How clients reach a server.
struct Route<'a> {
    client: &'a Namespace,
    /// What the client connects to.
    server: &'a str,
    /// Number of seconds for which it was used.
    seconds: AtomicU64,
}

impl Route<'_> {
    /// Queries the server, in turn with a connection for each request, which nginx closes, and with connections
    /// that wrk closes, until it is stopped. `script` is one of wrk.
    fn query(&self, script: &Path, stop: &AtomicBool) {
        let url = format!("http://{}/small", self.server);
        for headers in [&["--header", "Connection: close"][..], &[]].iter().cycle() {
            if stop.load(Relaxed) {
                return;
            }
            let mut wrk = Command::new("wrk");
            wrk.args(["--threads", "1", "--connections", "4", "--duration", "1s"]).args(*headers);
            wrk.arg("--script").arg(script).arg(&url);
            let status = spawn(self.client, wrk.stdout(Stdio::null())).wait().expect("waiting for wrk");
            assert!(status.success(), "wrk {url}: {status}");
            self.seconds.fetch_add(1, Relaxed);
        }
    }
}

/// For how long wrk queries nginx by each route before the audits, in seconds.
fn seconds() -> u64 {
    let given = std::env::var("FINWAIT_CONTAINERS_SECONDS");
    given.map_or(4, |seconds| seconds.parse().expect("FINWAIT_CONTAINERS_SECONDS is a number of seconds"))
}

#[test]
#[ignore = "needs root"]
fn the_audit_finds_no_difference_while_connections_come_and_go() {
    let hosts = Hosts::new();
    let Hosts { host, other, containers: [web, batch] } = &hosts;
    let interfaces = ["eth0", "eth1", "br0", "veth2", "veth3"].iter().flat_map(|name| ["-i", name]);
    let arguments: Vec<_> = interfaces.chain(["--audit-interval", "500ms"]).collect();
    let agent = Agent::start_in(host, "containers", &arguments);
    let _servers = [("host", host), ("other", other), ("web", web)]
        .map(|(name, namespace)| Nginx::start(namespace, &fresh_folder(&format!("containers-{name}"))));
    let routes = [
        (other, "10.1.0.2:8080"),
        (batch, "10.1.0.2:8080"),
        (batch, "10.1.0.1"),
        (batch, "172.17.0.2"),
        (web, "172.17.0.1"),
        // Not the port to which the host translates: its own connections would need other ports than those that have
        // its address by masquerade.
        (host, "172.17.0.2:81"),
        (host, "10.4.0.1"),
        (other, "10.4.0.2"),
    ]
    .map(|(client, server)| Route { client, server, seconds: AtomicU64::new(0) });
    // Two processors and an agent that was not optimised are enough for 1,600 requests a second.
    let script = fresh_folder("containers-wrk").join("delay.lua");
    fs::write(&script, "function delay() return 20 end").expect("writing a script for wrk");
    let stop = AtomicBool::new(false);
    thread::scope(|clients| {
        let _stop = StopsAll(&stop);
        for route in &routes {
            clients.spawn(|| route.query(&script, &stop));
        }
        let seconds = seconds();
        // Each run of wrk also starts and ends.
        let limit = Duration::from_secs(60 + 5 * seconds);
        until_within(limit, "wrk has run everywhere", || {
            routes.iter().all(|route| route.seconds.load(Relaxed) >= seconds)
        });
        for _ in 0..10 {
            let (code, report) = hosts.audit(&agent);
            let is_fault = |finding: &&Finding| {
                finding.verdict == Verdict::Differ || finding.reason == Some(Reason::Missed)
            };
            let faults: Vec<_> = report.findings.iter().filter(is_fault).collect();
            println!("{:?}", report.counts);
            assert_eq!(code, Some(0), "{faults:#?}");
            assert!(report.counts.agree > 0, "{:?}", report.counts);
        }
    });
    let stats = agent.stats();
    assert_eq!(stats.audit_repairs.values().sum::<u64>(), 0);
    // The scrape is a connection of the host, too.
    let [active, passive] = ["ActiveOpens", "PassiveOpens"].map(|name| counter(host, "Tcp", name));
    until("the opens are counted", || {
        let opened = agent.stats().opened;
        let sum = |role: &str| opened[role].values().sum::<u64>();
        (sum("client"), sum("server")) == (active, passive)
    });
}

/// Stops the clients when it is dropped, also by a failed assertion.
struct StopsAll<'a>(&'a AtomicBool);

impl Drop for StopsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
