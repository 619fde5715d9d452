//! `finwait doctor`: every finding, provoked between real hosts.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Output};

use common::{Agent, FINWAIT, until};
use finwait::doctor::FindingKind;
use finwait::lab::{Family, Host, Lab};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage};
use serde_json::Value;

fn doctor(lab: &Lab, agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(FINWAIT);
    command.arg("doctor").args(arguments).args(["--socket", &agent.socket]);
    lab.server.run(|| command.output()).expect("namespace").expect("running the CLI")
}

/// The findings of these kinds when a few connections already count.
fn findings(lab: &Lab, agent: &Agent, kind: &str) -> Vec<Value> {
    let output = doctor(lab, agent, &["--lasting", "0s", "--count", "3", "-o", "json"]);
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let all = diagnosis["findings"].as_array().expect("findings").clone();
    assert_eq!(output.status.code(), Some(if all.is_empty() { 0 } else { 1 }), "{output:?}");
    all.into_iter().filter(|finding| finding["kind"] == kind).collect()
}

/// The only finding of a kind, as soon as there is one.
fn finding(lab: &Lab, agent: &Agent, kind: &str) -> Value {
    let mut found = Vec::new();
    until(kind, || {
        found = findings(lab, agent, kind);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn summary(finding: &Value) -> &str {
    finding["summary"].as_str().expect("a sentence")
}

fn listen(host: &Host, backlog: i32) -> (OwnedFd, SocketAddr) {
    let address = host.address(Family::Ipv4);
    let listen = || {
        let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))?;
        socket::listen(&fd, Backlog::new(backlog)?)?;
        let bound: SockaddrStorage = socket::getsockname(fd.as_raw_fd())?;
        nix::Result::Ok((fd, bound.as_sockaddr_in().expect("IPv4").port()))
    };
    let (fd, port) = host.run(listen).expect("namespace").expect("listening");
    (fd, SocketAddr::new(address, port))
}

/// Begins to connect and does not wait.
fn begin(host: &Host, to: SocketAddr) -> OwnedFd {
    let begin = || {
        let fd = socket::socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => nix::Result::Ok(fd),
            Err(error) => Err(error),
        }
    };
    host.run(begin).expect("namespace").expect("connecting")
}

fn connect(host: &Host, to: SocketAddr) -> std::io::Result<TcpStream> {
    host.run(|| TcpStream::connect(to)).expect("namespace")
}

/// Three accepted connections from the client's host.
fn pairs(lab: &Lab) -> (SocketAddr, Vec<(TcpStream, TcpStream)>) {
    pairs_from(lab, SocketAddr::new(lab.client.address(Family::Ipv4), 0))
}

/// Three accepted connections from an address of the client's host.
fn pairs_from(lab: &Lab, from: SocketAddr) -> (SocketAddr, Vec<(TcpStream, TcpStream)>) {
    let (listener, address) = listen(&lab.server, 16);
    let connect = || {
        let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
        socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        nix::Result::Ok(TcpStream::from(fd))
    };
    let connect = || lab.client.run(connect).expect("namespace").expect("connecting");
    let listener = TcpListener::from(listener);
    let pair = |_| (connect(), listener.accept().expect("accepting").0);
    (address, (0..3).map(pair).collect())
}

#[test]
#[ignore = "needs root"]
fn a_host_without_faults_has_no_findings() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "doctor-well", &["-i", lab.server.interface]);
    let (_, pairs) = pairs(&lab);
    until("all are listed", || agent.connections().len() == pairs.len());
    let output = doctor(&lab, &agent, &[]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!((output.status.code(), text.as_str()), (Some(0), "0 findings in 3 connections\n"));
    let elsewhere = agent.cli(&["doctor"]);
    let text = String::from_utf8(elsewhere.stdout).expect("text");
    assert!(text.contains("not checked: the kernel's counters and settings"), "{text}");
    let none = doctor(&lab, &agent, &["--socket", "/nonexistent"]);
    assert_ne!(none.status.code(), Some(0), "{none:?}");
}

#[test]
#[ignore = "needs root"]
fn ends_that_wait_are_found() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "doctor-waits", &["-i", lab.server.interface, "--audit-interval", "0"]);

    // The client closes, the server does not.
    let (address, leak) = pairs(&lab);
    let kept: Vec<_> = leak.into_iter().map(|(_, server)| server).collect();
    let leak = finding(&lab, &agent, "close_wait_leak");
    assert_eq!(
        summary(&leak),
        format!(
            "3 connections at {address} ({}/{}) have been in CLOSE-WAIT for more than 0us",
            std::fs::read_to_string("/proc/self/comm").expect("/proc").trim(),
            std::process::id()
        )
    );
    assert_eq!(leak["examples"].as_array().expect("examples").len(), 3);
    assert_eq!(leak["examples"][0]["server"]["state"], "close_wait");
    drop(kept);

    // The server closes its direction, the client does not close. The client is behind a router: one on this host would
    // be found to leak.
    let away = SocketAddr::new("198.51.100.7".parse().expect("an address"), 0);
    let gateway = lab.client.address(Family::Ipv4);
    lab.client.namespace().ip("addr add 198.51.100.7/32 dev lo").expect("an address");
    lab.server.namespace().ip(&format!("route add 198.51.100.7/32 via {gateway}")).expect("a route");
    let (_, half) = pairs_from(&lab, away);
    for (_, server) in &half {
        server.shutdown(std::net::Shutdown::Write).expect("connected");
    }
    finding(&lab, &agent, "peers_do_not_close");
    drop(half);

    // The client's host drops what arrives: the server's FINs, then its SYNs with ACK, then SYNs.
    let (_, silent) = pairs(&lab);
    let drop_all = "table ip lost {\n chain in {\n type filter hook input priority 0;\n tcp flags & (fin|syn|rst|ack) != 0 drop\n }\n}";
    lab.client.namespace().nft(drop_all).expect("nft");
    let clients: Vec<_> = silent.into_iter().map(|(client, _)| client).collect();
    finding(&lab, &agent, "unacknowledged_fins");
    let (_listener, address) = listen(&lab.server, 16);
    let half_open: Vec<_> = (0..3).map(|_| begin(&lab.client, address)).collect();
    finding(&lab, &agent, "half_open");
    let unanswered = SocketAddr::new(lab.client.address(Family::Ipv4), 9);
    let syns: Vec<_> = (0..3).map(|_| begin(&lab.server, unanswered)).collect();
    let found = finding(&lab, &agent, "unanswered_syns");
    assert!(summary(&found).starts_with(&format!("3 clients of {unanswered} (doctor-")), "{found}");
    // The kernel sends them again after a second.
    let again = finding(&lab, &agent, "retransmitted_handshakes");
    assert!(again["evidence"][0].as_str().expect("a sentence").contains("were retransmissions"), "{again}");
    drop((clients, half_open, syns));
}

#[test]
#[ignore = "needs root"]
fn closes_are_found() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "doctor-closes", &["-i", lab.server.interface]);
    let (listener, address) = listen(&lab.server, 16);
    let listener = TcpListener::from(listener);
    let closed = SocketAddr::new(address.ip(), 9);
    for _ in 0..3 {
        connect(&lab.client, closed).expect_err("nothing listens there");
    }
    let refused = finding(&lab, &agent, "reset_storm");
    assert_eq!(summary(&refused), format!("3 connections to {closed} were reset by the server: refused"));
    assert_eq!(refused["confidence"], "high");

    // Thirty short ones, which the client closes first.
    for _ in 0..30 {
        let client = connect(&lab.client, address).expect("connecting");
        let (server, _) = listener.accept().expect("accepting");
        drop(client);
        until("the client has closed", || {
            std::io::Read::read(&mut &server, &mut [0]).expect("the end of file") == 0
        });
    }
    let churn = finding(&lab, &agent, "churn");
    let client = lab.client.address(Family::Ipv4);
    assert!(
        summary(&churn).starts_with(&format!("{client} opened and closed 30 connections to {address}")),
        "{churn}"
    );
    assert_eq!(churn["evidence"][0], "30 ports of the client are in TIME-WAIT: keep-alive would free them");
}

#[test]
#[ignore = "needs root"]
fn counters_and_settings_of_the_host_are_found() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "doctor-host", &["-i", lab.server.interface, "--max-flows", "64"]);
    let sysctl = |name: &str, value: &str| lab.server.namespace().sysctl(name, value).expect("a setting");

    // More handshakes than an accept queue of one has room for.
    let (_listener, address) = listen(&lab.server, 0);
    let waiting: Vec<_> = (0..8).map(|_| begin(&lab.client, address)).collect();
    let overflow = finding(&lab, &agent, "listen_overflow");
    assert!(summary(&overflow).starts_with("Queues of listeners overflowed "), "{overflow}");
    drop(waiting);

    sysctl("ipv4/tcp_max_tw_buckets", "0");
    let (_, closing) = pairs(&lab);
    for (client, server) in closing {
        drop(server);
        until("the server has closed", || {
            std::io::Read::read(&mut &client, &mut [0]).expect("the end of file") == 0
        });
    }
    finding(&lab, &agent, "time_wait_overflow");

    sysctl("ipv4/tcp_tw_reuse", "1");
    sysctl("ipv4/tcp_timestamps", "0");
    finding(&lab, &agent, "tw_reuse_without_timestamps");
    sysctl("ipv4/tcp_fin_timeout", "10");
    let changed = finding(&lab, &agent, "fin_timeout_changed");
    assert_eq!(summary(&changed), "tcp_fin_timeout is 10 s, which does not change TIME-WAIT");

    lab.server
        .namespace()
        .nft(
            "table ip tracked {\n chain in {\n type filter hook input priority 0;\n ct state established accept\n }\n}",
        )
        .expect("nft");
    let (_, tracked) = pairs(&lab);
    sysctl("netfilter/nf_conntrack_tcp_timeout_established", "600");
    finding(&lab, &agent, "conntrack_timeout_short");
    drop(tracked);

    // Ten ports, nine of which are taken.
    sysctl("ipv4/ip_local_port_range", "40000 40009");
    let (_peer, to) = listen(&lab.client, 16);
    let held: Vec<_> = (0..9).map(|_| connect(&lab.server, to).expect("connecting")).collect();
    let few = finding(&lab, &agent, "port_exhaustion");
    let local = address.ip();
    assert!(summary(&few).starts_with(&format!("{local} has 1 of 10 local ports left for {to}")), "{few}");
    drop(held);

    // More connections than the table has room for.
    let (listener, address) = listen(&lab.server, 1024);
    let many: Vec<_> = (0..600).map(|_| connect(&lab.client, address).expect("connecting")).collect();
    let losses = finding(&lab, &agent, "agent_losses");
    assert_eq!(losses["confidence"], "high");
    drop((many, listener));
}

/// `docs/DOCTOR.md`, made from the kinds. `FINWAIT_BLESS=1 cargo test -p tcp-user --test doctor` rewrites it.
#[test]
fn the_reference_has_every_kind() {
    let mut text = "# Findings of finwait doctor\n\nMade from the source. `finwait doctor` prints the same beside the evidence.\n".to_owned();
    for kind in FindingKind::ALL {
        text += &format!(
            "\n## {kind}\n\n{}\n\n- Do: {}\n- Do not: {}\n",
            kind.meaning(),
            kind.remedy(),
            kind.avoid().strip_prefix("Do not ").expect("it says what not to do")
        );
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DOCTOR.md");
    if std::env::var_os("FINWAIT_BLESS").is_some() {
        std::fs::write(&path, &text).expect("writing the reference");
    }
    assert_eq!(std::fs::read_to_string(path).expect("the reference"), text);
}

/// A capture shows what its connections show: here, SYNs without an answer.
#[test]
fn a_capture_is_looked_at_without_an_agent() {
    let recording = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/recording.pcap.gz");
    let run = |arguments: &[&str]| {
        let output = Command::new(FINWAIT).arg("doctor").arg(&recording).args(arguments).output();
        output.expect("running the CLI")
    };
    let output = run(&["--count", "1", "--lasting", "1s", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let diagnosis: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let kinds: Vec<_> =
        diagnosis["findings"].as_array().expect("findings").iter().map(|f| &f["kind"]).collect();
    for kind in ["close_wait_leak", "unanswered_syns", "reset_storm"] {
        assert!(kinds.iter().any(|&found| found == kind), "{kind}: {kinds:?}");
    }
    assert_eq!(diagnosis["schema"], "finwait.doctor/1");
    assert_eq!(run(&[]).status.code(), Some(0), "ten of a kind are not there");
    let missing =
        Command::new(FINWAIT).args(["doctor", "/nonexistent.pcap"]).output().expect("running the CLI");
    assert_eq!(missing.status.code(), Some(5), "{missing:?}");
}
