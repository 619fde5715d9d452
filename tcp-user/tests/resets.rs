//! Why connections are reset: each class provoked by real sockets, RSTs that are not accepted, and RSTs whose meaning
//! the segments alone do not show.

mod common;
#[allow(dead_code, reason = "several test programs include this file, each uses what it needs")]
mod hosts;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::{Agent, FINWAIT, until, until_equal};
use finwait::lab::{Family, Lab};
use finwait::view::{Connection, ResetClass, ResetInfo, Role};
use hosts::{Pair, Watch, connect_from, inject, nft, run, sysctl};
use nix::sys::socket::{self, sockopt};
use socket2::{Domain, SockRef, Socket, Type};
use tcp_common::State;

/// The host's firewall drops the RST that the agent has seen. The check finds the socket alive, and the close
/// after that is the second revision.
#[test]
#[ignore = "needs root"]
fn a_connection_whose_host_dropped_the_reset_is_reopened() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    nft(
        &lab.server,
        &[
            "add chain ip t in { type filter hook input priority 0 ; }",
            "add rule ip t in tcp flags & rst == rst drop",
        ],
    );
    let agent = Agent::start(&lab, "reopened", &["-i", lab.server.interface, "--audit-interval", "500ms"]);
    let watch = Watch::start(&lab.server, &agent, "reopened", &[]);
    let Pair { client, server } = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    let port = format!("\"port\":{}", client.local_addr().expect("an end").port());
    // An abort: close() sends a RST.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(client);
    until("the close is reported", || watch.has(&["finwait.close/1", &port, "rst_abort", "\"revision\":1"]));
    until("it is taken back", || watch.has(&["finwait.reopened/1", &port, "socket_alive"]));
    let states = agent
        .connections()
        .into_iter()
        .map(|c| (c.client.state, c.server.state, c.reset.map(|reset| reset.class)))
        .collect::<Vec<_>>();
    assert_eq!(states, [(State::Established, State::Established, Some(ResetClass::Refuted))]);
    assert!(agent.scrape().contains("finwait_connections_reopened_total{reason=\"socket_alive\"} 1\n"));
    // The FIN is answered by a RST, which the host accepts now.
    run(&lab.server, "nft delete table ip t");
    drop(server);
    until("it is closed again", || watch.has(&["finwait.close/1", &port, "rst_after_fin", "\"revision\":2"]));
    let stats = agent.stats();
    let closed: u64 = stats.closed.values().flat_map(|closers| closers.values()).sum();
    assert_eq!(closed, 2, "one of them was taken back");
}

/// There is no room for a TIME-WAIT, and the last ACK is lost: the FIN comes again and finds no socket.
#[test]
#[ignore = "needs root"]
fn a_lost_time_wait_is_reset_by_the_host_that_lost_it() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    sysctl(&lab.server, "tcp_max_tw_buckets", "0");
    let agent = Agent::start(&lab, "lost", &["-i", lab.server.interface, "--audit-interval", "0"]);
    let watch = Watch::start(&lab.server, &agent, "lost", &[]);
    let Pair { mut client, server } = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    server.shutdown(Shutdown::Write).expect("closing");
    client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    nft(
        &lab.server,
        &[
            "add chain ip t out { type filter hook output priority 0 ; }",
            "add rule ip t out tcp flags == ack drop",
        ],
    );
    drop(client);
    until("TIME-WAIT has ended", || {
        watch.has(&["finwait.time_wait_end/1", "\"holder\":\"server\"", "\"ending\":\"state_lost\""])
    });
    let overflows = "finwait_host_time_wait_overflows_total 1\n";
    assert!(agent.scrape().contains(overflows), "{}", agent.scrape());
    let resets = agent.stats().resets;
    assert_eq!((resets["state_lost"]["local"], resets["state_lost"]["remote"]), (1, 0), "{resets:?}");
    assert_eq!(resets["time_wait_assassination"].values().sum::<u64>(), 0);
}

/// A RST that a real socket was made to send, and what it is to be called.
struct Provoked {
    client: SocketAddr,
    class: ResetClass,
    sender: Role,
    /// What the kernel may give as its reason, if the agent's host sent it.
    kernel_reasons: &'static [&'static str],
}

/// Each connection is in the table of one agent, on the server's host.
#[test]
#[ignore = "needs root"]
fn each_class_of_reset_is_told_from_the_others() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    // The reasons can be read also by a user without a right to load programs.
    let options = ["-i", lab.server.interface, "--audit-interval", "0", "--user", "nobody"];
    let agent = Agent::start(&lab, "classes", &options);
    check_classes(&lab, &agent);
}

/// As before Linux 6.10: the kernel gives no reason, here because nothing says where to read it. The counters of the host
/// decide then.
#[test]
#[ignore = "needs root"]
fn the_counters_of_the_host_decide_where_its_kernel_gives_no_reason() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let socket = format!("{}/counters.sock", env!("CARGO_TARGET_TMPDIR"));
    let script = format!(
        "mount -t tmpfs none /sys/kernel/btf && exec {FINWAIT} run --socket {socket} -i {} --audit-interval 0",
        lab.server.interface
    );
    let agent =
        Agent::start_by(&lab, &socket, Command::new("unshare").args(["--mount", "sh", "-c", &script]));
    let missing = agent.status().reset_reasons_missing.expect("no BTF");
    assert!(missing.starts_with("reading /sys/kernel/btf/vmlinux"), "{missing}");
    let status = agent.cli(&["status"]).stdout;
    assert!(String::from_utf8_lossy(&status).contains("reasons of RSTs: not known from the kernel"));
    check_classes(&lab, &agent);
}

fn check_classes(lab: &Lab, agent: &Agent<'_>) {
    let watch = Watch::start(&lab.server, agent, "classes", &[]);
    let address = lab.server.address(Family::Ipv4);
    let provoke: [fn(&Lab, IpAddr, &Agent<'_>) -> Provoked; 8] = [
        |lab, address, _| refused(lab, address),
        |lab, address, _| aborted(lab, address),
        |lab, address, _| aborted_unread(lab, address),
        |lab, address, _| aborted_and_read(lab, address),
        |lab, address, _| written_to_after_close(lab, address),
        |lab, address, _| forgotten(lab, address),
        |lab, address, _| overflowed(lab, address),
        assassinated,
    ];
    let asks_kernel = agent.status().reset_reasons_missing.is_none();
    for provoke in provoke {
        let Provoked { client, class, sender, kernel_reasons } = provoke(lab, address, agent);
        until_equal(
            || reset_of(agent, client).map(|reset| (reset.class, reset.sender)),
            Some((class, Some(sender))),
        );
        let reason = reset_of(agent, client).and_then(|reset| reset.kernel_reason);
        let is_expected = reason.as_ref().is_some_and(|reason| kernel_reasons.contains(&reason.as_ref()));
        assert_eq!(is_expected, asks_kernel && !kernel_reasons.is_empty(), "{class}: {reason:?}");
        let line = format!("reset {class} and port = :{}", client.port());
        assert_eq!(agent.cli(&["ls", "-a", "-c", &line]).stdout, b"1\n", "{line}");
        let why = agent.cli(&["why", &format!(":{}", client.port())]);
        let why = String::from_utf8_lossy(&why.stdout).into_owned();
        for text in class.explanation().into_iter().chain(reason.as_deref()) {
            assert!(why.contains(text), "{why}");
        }
        let (port, name) = (format!("\"port\":{}", client.port()), format!("\"class\":\"{class}\""));
        if class != ResetClass::TimeWaitAssassination {
            until("watch shows it", || watch.has(&["finwait.close/1", &port, &name]));
        }
        // A listener that closes aborts those that nobody has accepted.
        let listed = agent.cli(&["ls", "-a", "-c", &format!("reset {class}")]).stdout;
        let resets = &agent.stats().resets[class.name()];
        let origin = if sender == Role::Server { "local" } else { "remote" };
        let count = resets[origin];
        assert_eq!(
            (listed, resets.values().sum()),
            (format!("{count}\n").into_bytes(), count),
            "{class}: {resets:?}"
        );
        assert!(count > 0, "{class}: {resets:?}");
    }
}

/// An ICMP error is no RST, but refuses as one does.
#[test]
#[ignore = "needs root"]
fn a_refusal_by_icmp_and_a_blind_rst_are_told_apart_from_resets() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let address = lab.server.address(Family::Ipv4);
    nft(
        &lab.server,
        &[
            "add chain ip t in { type filter hook input priority 0 ; }",
            "add rule ip t in tcp dport 9 reject with icmp type port-unreachable",
        ],
    );
    let agent = Agent::start(&lab, "blind", &["-i", lab.server.interface, "--audit-interval", "0"]);
    let watch = Watch::start(&lab.server, &agent, "blind", &["port", ":8009"]);
    let client = lab.client.run(|| connect_from(None, (address, 9).into())).expect("namespace");
    client.expect_err("refused");
    let is_refused =
        |c: &Connection| c.reset.as_ref().is_some_and(|reset| reset.class == ResetClass::RefusedIcmp);
    until("the refusal is known", || agent.connections().iter().any(is_refused));

    let listener = lab.server.run(|| TcpListener::bind((address, 8009))).expect("namespace").expect("a port");
    let pair = Pair::open_to(&lab.client, &listener, (address, 8009).into());
    let ends = (pair.client.local_addr().expect("an end"), pair.client.peer_addr().expect("an end"));
    inject(&lab.client, ends, |header| header.rst = true);
    until("watch shows it", || {
        watch.has(&["finwait.rst_ignored/1", "\"sender\":\"client\"", "\"cause\":\"rst_out_of_window\""])
    });
    let found = agent.connections().into_iter().find(|c| c.client.port == ends.0.port()).expect("tracked");
    assert_eq!((found.client.state, found.server.state), (State::Established, State::Established));
    assert_eq!((found.reset, found.ignored_rst.as_deref()), (None, Some("rst_out_of_window")));
    assert_eq!(agent.cli(&["ls", "-c", "reset ignored"]).stdout, b"1\n");
    let why = agent.cli(&["why", &format!(":{}", ends.0.port())]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(
        why.contains("no effect: rst_out_of_window") && why.contains("A RST of the client had no"),
        "{why}"
    );
    assert!(agent.scrape().contains("finwait_rsts_ignored_total{cause=\"rst_out_of_window\"} 1\n"));
}

/// The reset of a client's connection, as `ls` has it.
fn reset_of(agent: &Agent<'_>, client: SocketAddr) -> Option<ResetInfo> {
    agent.connections().into_iter().find(|connection| connection.client.port == client.port())?.reset
}

fn refused(lab: &Lab, address: IpAddr) -> Provoked {
    let client = lab.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(lab.client.address(Family::Ipv4), 0).into())?;
        let refused = socket.connect(&SocketAddr::new(address, 9).into());
        assert_eq!(refused.expect_err("nothing listens").kind(), std::io::ErrorKind::ConnectionRefused);
        socket.local_addr()
    });
    let client = client.expect("namespace").expect("an end").as_socket().expect("an address");
    Provoked { client, class: ResetClass::Refused, sender: Role::Server, kernel_reasons: &["no_socket"] }
}

/// Nothing was sent, so that there was nothing to read.
fn aborted(lab: &Lab, address: IpAddr) -> Provoked {
    let listener = lab.server.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("a port");
    let to = listener.local_addr().expect("its address");
    let client = lab.client.run(|| TcpStream::connect(to)).expect("namespace").expect("connecting");
    let (server, _) = listener.accept().expect("accepting");
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(server);
    Provoked {
        client: client.local_addr().expect("an end"),
        class: ResetClass::Abort,
        sender: Role::Server,
        kernel_reasons: &["tcp_state"],
    }
}

fn aborted_unread(lab: &Lab, address: IpAddr) -> Provoked {
    let Pair { mut client, server } = Pair::open(&lab.client, &lab.server, address);
    client.write_all(b"never read").expect("sending");
    until("it has arrived", || server.peek(&mut [0; 10]).is_ok_and(|bytes| bytes == 10));
    drop(server);
    Provoked {
        client: client.local_addr().expect("an end"),
        class: ResetClass::AbortUnread,
        sender: Role::Server,
        kernel_reasons: &["tcp_abort_on_close"],
    }
}

/// As the segments show it, something may not have been read.
fn aborted_and_read(lab: &Lab, address: IpAddr) -> Provoked {
    let Pair { client, server } = Pair::open(&lab.client, &lab.server, address);
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(server);
    Provoked {
        client: client.local_addr().expect("an end"),
        class: ResetClass::Abort,
        sender: Role::Server,
        kernel_reasons: &["tcp_state"],
    }
}

fn written_to_after_close(lab: &Lab, address: IpAddr) -> Provoked {
    let Pair { mut client, server } = Pair::open(&lab.client, &lab.server, address);
    drop(server);
    client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    client.write_all(b"too late").expect("sending");
    Provoked {
        client: client.local_addr().expect("an end"),
        class: ResetClass::AfterFin,
        sender: Role::Server,
        kernel_reasons: &["tcp_abort_on_data", "tcp_timewait_socket"],
    }
}

/// The server's socket disappears without a packet, as when its host is started again.
fn forgotten(lab: &Lab, address: IpAddr) -> Provoked {
    let Pair { mut client, server } = Pair::open(&lab.client, &lab.server, address);
    socket::setsockopt(&server, sockopt::TcpRepair, &1).expect("TCP_REPAIR");
    drop(server);
    client.write_all(b"are you there?").expect("sending");
    Provoked {
        client: client.local_addr().expect("an end"),
        class: ResetClass::HalfOpen,
        sender: Role::Server,
        kernel_reasons: &["no_socket"],
    }
}

/// The ACK of the first client is held back until the second one has filled the queue of accepted connections.
fn overflowed(lab: &Lab, address: IpAddr) -> Provoked {
    sysctl(&lab.server, "tcp_abort_on_overflow", "1");
    let listener = lab.server.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(address, 8000).into())?;
        socket.listen(0)?;
        std::io::Result::Ok(socket)
    });
    let _listener = listener.expect("namespace").expect("listening");
    nft(
        &lab.client,
        &[
            "add chain ip t out { type filter hook output priority 0 ; }",
            "add rule ip t out tcp sport 4001 tcp flags == ack drop",
        ],
    );
    let connect = |port| lab.client.run(|| connect_from(Some(port), (address, 8000).into()));
    let mut first = connect(4001).expect("namespace").expect("the SYN-ACK comes");
    let second = connect(4002).expect("namespace").expect("connecting");
    let ends = (SocketAddr::new(address, 8000), second.local_addr().expect("an end"));
    until("the second one is in the queue", || {
        lab.server.state(ends.0, ends.1).is_ok_and(|state| state == State::Established)
    });
    run(&lab.client, "nft delete table ip t");
    first.write_all(b"me first").expect("sending");
    Provoked {
        client: first.local_addr().expect("an end"),
        class: ResetClass::QueueFull,
        sender: Role::Server,
        kernel_reasons: &["invalid_syn"],
    }
}

/// A late segment makes the server, in TIME-WAIT, repeat its ACK. The client's host, which has closed, answers that by a
/// RST (RFC 1337).
fn assassinated(lab: &Lab, address: IpAddr, agent: &Agent<'_>) -> Provoked {
    let Pair { mut client, server } = Pair::open(&lab.client, &lab.server, address);
    let ends = (client.local_addr().expect("an end"), client.peer_addr().expect("an end"));
    drop(server);
    client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    drop(client);
    until("the server is in TIME-WAIT", || {
        let found = agent.connections().into_iter().find(|c| c.client.port == ends.0.port());
        found.is_some_and(|c| (c.client.state, c.server.state) == (State::Closed, State::TimeWait))
            && lab.client.state(ends.0, ends.1).is_ok_and(|state| state == State::Closed)
    });
    inject(&lab.client, ends, |header| header.ack = true);
    Provoked {
        client: ends.0,
        class: ResetClass::TimeWaitAssassination,
        sender: Role::Client,
        kernel_reasons: &[],
    }
}
