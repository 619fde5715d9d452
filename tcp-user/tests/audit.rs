//! `finwait audit` beside a real kernel: every close agrees, and what does not is found, explained and repaired.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output};
use std::time::Duration;

use common::{Agent, FINWAIT, spawn, until};
use finwait::audit::{Finding, Reason, Report, Verdict};
use finwait::lab::{Family, Host, Lab, Namespace, Scenario};
use tcp_common::State;

const LONG_AGO: Duration = Duration::from_millis(300);

fn lab() -> Lab {
    Lab::new().expect("making namespaces (root needed)")
}

/// `finwait audit` as typed on the agent's host.
fn audit(lab: &Lab, agent: &Agent<'_>, arguments: &[&str]) -> Output {
    let mut command = Command::new(FINWAIT);
    command.args(["audit", "--socket", &agent.socket]).args(arguments);
    lab.server.run(|| command.output()).expect("entering the namespace").expect("running the CLI")
}

/// Its exit code and its document.
fn report(lab: &Lab, agent: &Agent<'_>, arguments: &[&str]) -> (i32, Report) {
    let output = audit(lab, agent, &[arguments, &["-o", "json"]].concat());
    let code = output.status.code().expect("an exit code");
    assert!(code < 2, "{}", String::from_utf8_lossy(&output.stderr));
    (code, serde_json::from_slice(&output.stdout).expect("a report"))
}

/// A connection from the client's host to a listener that an agent's host has, after a question and an answer.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn open(from: &Host, to: &Host, address: IpAddr) -> Pair {
        let listener = to.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("listening");
        Pair::open_to(from, &listener, listener.local_addr().expect("its address"))
    }

    fn open_to(from: &Host, listener: &TcpListener, address: SocketAddr) -> Pair {
        let client = from.run(|| TcpStream::connect(address)).expect("namespace").expect("connecting");
        let (server, _) = listener.accept().expect("accepting");
        let mut pair = Pair { client, server };
        pair.client.write_all(b"question").expect("asking");
        pair.server.read_exact(&mut [0; 8]).expect("reading");
        pair
    }

    fn ends(&self) -> (SocketAddr, SocketAddr) {
        let ends = (self.server.local_addr().expect("an end"), self.server.peer_addr().expect("an end"));
        (canonical(ends.0), canonical(ends.1))
    }

    /// The server closes first, so that TIME-WAIT is on the agent's host.
    fn close_server_first(mut self) {
        drop(self.server);
        self.client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn of(report: &Report, (local, remote): (SocketAddr, SocketAddr)) -> Option<&Finding> {
    report.findings.iter().find(|finding| finding.local == local.into() && finding.remote == remote.into())
}

fn sysctl(host: &Host, name: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv4/{name}");
    host.run(|| std::fs::write(&path, value)).expect("entering the namespace").expect(&path);
}

fn run(host: &Host, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let mut child = spawn(host, Command::new(words[0]).args(&words[1..]));
    assert!(child.wait().expect("waiting").success(), "{line}");
}

#[test]
fn every_close_agrees_in_both_families() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-closes", &["-i", lab.server.interface, "--max-flows", "4096"]);
    let mut played = Vec::new();
    for family in Family::ALL.into_iter().filter(|&family| lab.supports(family)) {
        let plays = Scenario::perform_all(&lab, family);
        played.extend(plays.into_iter().map(|play| play.expect("a scenario")));
    }
    let (code, report) = report(&lab, &agent, &["--all"]);
    assert_eq!(code, 0, "{report:#?}");
    for play in &played {
        let finding = of(&report, (play.server, play.client)).expect(play.scenario.name);
        assert_eq!(finding.verdict, Verdict::Agree, "{}: {finding:#?}", play.scenario.name);
    }
    assert!(report.counts.agree >= played.len() as u64 && report.counts.differ == 0, "{:?}", report.counts);
    let text = String::from_utf8(audit(&lab, &agent, &[]).stdout).expect("text");
    assert!(text.contains("0 differ"), "{text}");
}

#[test]
fn ipv4_on_an_ipv6_listener_agrees() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-mapped", &["-i", lab.server.interface]);
    let listener = lab.server.run(|| TcpListener::bind("[::]:0")).expect("namespace").expect("listening");
    let port = listener.local_addr().expect("its address").port();
    let address = SocketAddr::new(lab.server.address(Family::Ipv4), port);
    let pair = Pair::open_to(&lab.client, &listener, address);
    let (code, report) = report(&lab, &agent, &["--all"]);
    let finding = of(&report, pair.ends()).expect("the connection");
    assert_eq!((code, finding.verdict), (0, Verdict::Agree), "{finding:#?}");
    assert!(finding.kernel.as_ref().is_some_and(|socket| socket.inode != 0 && socket.silent_ms.is_some()));
}

#[test]
fn a_full_time_wait_table_is_a_difference() {
    let lab = lab();
    sysctl(&lab.server, "tcp_max_tw_buckets", "0");
    let agent = Agent::start(&lab, "audit-buckets", &["-i", lab.server.interface]);
    let pair = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    let (ends, live) = (pair.ends(), Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4)));
    pair.close_server_first();
    let (code, report) = report(&lab, &agent, &[]);
    assert_eq!((code, report.counts.differ), (1, 1), "{report:#?}");
    let finding = of(&report, ends).expect("the difference");
    assert_eq!((finding.verdict, finding.reason), (Verdict::Differ, Some(Reason::Forgotten)));
    assert_eq!(finding.ours.as_ref().map(|ours| ours.state), Some(State::TimeWait));
    assert_eq!(finding.kernel, None);
    let text = audit(&lab, &agent, &[]);
    assert_eq!(text.status.code(), Some(1));
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("DIFFER") && text.contains("TIME-WAIT") && text.contains("no socket"), "{text}");
    // A filter leaves it out, and with it the exit code.
    let others = format!("not port = :{}", ends.1.port());
    assert_eq!(self::report(&lab, &agent, &[&others]).0, 0);
    drop(live);
}

#[test]
fn older_and_unwatched_sockets_are_only_the_kernels() {
    let lab = lab();
    let older = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    std::thread::sleep(LONG_AGO);
    let agent = Agent::start(&lab, "audit-older", &["-i", lab.server.interface]);
    let unwatched = Pair::open(&lab.server, &lab.server, "127.0.0.1".parse().expect("loopback"));
    let (code, report) = report(&lab, &agent, &[]);
    assert_eq!(code, 0, "{report:#?}");
    let reason = |pair: &Pair| {
        let finding = of(&report, pair.ends()).expect("a finding");
        (finding.verdict, finding.reason)
    };
    assert_eq!(reason(&older), (Verdict::OnlyKernel, Some(Reason::Early)));
    assert_eq!(reason(&unwatched), (Verdict::OnlyKernel, Some(Reason::Unwatched)));
}

#[test]
fn a_forwarded_connection_is_only_ours() {
    let lab = lab();
    let far = Far::behind(&lab);
    let agent = Agent::start(&lab, "audit-forwarded", &["-i", lab.server.interface, "-i", "far"]);
    let listener =
        far.namespace.run(|| TcpListener::bind("10.9.1.3:0")).expect("namespace").expect("listening");
    let pair = Pair::open_to(&lab.client, &listener, listener.local_addr().expect("its address"));
    let (code, report) = report(&lab, &agent, &[]);
    assert_eq!(code, 0, "{report:#?}");
    let (server, client) = pair.ends();
    let finding = of(&report, (client, server)).expect("the forwarded connection");
    assert_eq!((finding.verdict, finding.reason), (Verdict::OnlyOurs, Some(Reason::Forwarded)));
}

#[test]
fn elsewhere_it_says_so() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-elsewhere", &["-i", lab.server.interface]);
    let output = agent.cli(&["audit"]);
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("another network namespace") && text.contains("nsenter"), "{text}");
    let output = Command::new(FINWAIT).args(["audit", "--socket", "/nowhere"]).output().expect("running");
    assert_eq!(output.status.code(), Some(3));
    let output = agent.cli(&["audit", "--interval", "2h"]);
    assert_eq!(output.status.code(), Some(2));
}

/// A third host, which the server's routes to.
struct Far {
    namespace: Namespace,
    keeper: Child,
}

impl Far {
    fn behind(lab: &Lab) -> Far {
        let namespace = Namespace::new().expect("a namespace");
        // `ip` finds a namespace by a process in it.
        let keeper =
            namespace.run(|| Command::new("sleep").arg("600").spawn()).expect("namespace").expect("sleep");
        let id = keeper.id();
        let far = Far { namespace, keeper };
        sysctl(&lab.server, "ip_forward", "1");
        run(&lab.server, &format!("ip link add far type veth peer name near netns {id}"));
        run(&lab.server, "ip address add 10.9.1.2/24 dev far");
        run(&lab.server, "ip link set far up");
        run(&lab.client, "ip route add 10.9.1.0/24 via 10.9.0.2");
        for line in [
            "ip address add 10.9.1.3/24 dev near",
            "ip link set near up",
            "ip route add default via 10.9.1.2",
        ] {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().expect("a program"));
            command.args(words);
            let status = far.namespace.run(|| command.status()).expect("namespace").expect(line);
            assert!(status.success(), "{line}");
        }
        // A port where nobody listens answers as soon as packets pass.
        until("packets pass", || {
            let near = SocketAddr::from(([10, 9, 1, 3], 1));
            let answer = lab.client.run(|| TcpStream::connect_timeout(&near, LONG_AGO)).expect("namespace");
            answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        far
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
