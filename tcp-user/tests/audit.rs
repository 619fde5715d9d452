//! `finwait audit` against a real kernel: every close agrees. A difference is reported, explained and
//! repaired.

mod common;
#[allow(dead_code, reason = "several test programs include this file, each uses what it needs")]
mod hosts;

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};
use std::time::Duration;

use common::{Agent, FINWAIT, until};
use finwait::audit::{Finding, Reason, Report, Verdict};
use finwait::lab::{Family, Lab, Scenario};
use finwait::sockets::TrackedState;
use hosts::{Far, Pair, Watch, nft, run, sysctl};
use nix::libc;
use socket2::SockRef;
use tcp_common::State;

fn lab() -> Lab {
    Lab::new().expect("making namespaces (root needed)")
}

/// Runs `finwait audit` on the agent's host.
fn audit(lab: &Lab, agent: &Agent<'_>, arguments: &[&str]) -> Output {
    let mut command = Command::new(FINWAIT);
    command.args(["audit", "--socket", &agent.socket]).args(arguments);
    lab.server.run(|| command.output()).expect("entering the namespace").expect("running the CLI")
}

/// Runs `finwait audit -o json` and returns its exit code and its report.
fn report(lab: &Lab, agent: &Agent<'_>, arguments: &[&str]) -> (i32, Report) {
    let output = audit(lab, agent, &[arguments, &["-o", "json"]].concat());
    let code = output.status.code().expect("an exit code");
    assert!(code < 2, "{}", String::from_utf8_lossy(&output.stderr));
    (code, serde_json::from_slice(&output.stdout).expect("a report"))
}

fn of(report: &Report, (local, remote): (SocketAddr, SocketAddr)) -> Option<&Finding> {
    report.findings.iter().find(|finding| finding.local == local.into() && finding.remote == remote.into())
}

#[test]
#[ignore = "needs root"]
fn every_close_agrees_in_both_families() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-closes", &["-i", lab.server.interface, "--max-flows", "4096"]);
    let mut played = Vec::new();
    for family in lab.families() {
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
#[ignore = "needs root"]
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
#[ignore = "needs root"]
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
    // A filter that excludes the finding also changes the exit code.
    let others = format!("not port = :{}", ends.1.port());
    assert_eq!(self::report(&lab, &agent, &[&others]).0, 0);
    drop(live);
}

#[test]
#[ignore = "needs root"]
fn a_handshake_that_the_listener_holds_back_is_explained() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-defer", &["-i", lab.server.interface, "--audit-interval", "200ms"]);
    let address = lab.server.address(Family::Ipv4);
    let listener = lab.server.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("listening");
    defer_accept(&listener);
    let address = listener.local_addr().expect("its address");
    let mut client = lab.client.run(|| TcpStream::connect(address)).expect("namespace").expect("connecting");
    let ends = (address, client.local_addr().expect("an end"));
    let finding = || {
        let (code, report) = report(&lab, &agent, &["--all"]);
        (code, of(&report, ends).map(|finding| (finding.verdict, finding.reason)))
    };
    let held_back = (Verdict::Explained, Some(Reason::NotAccepted));
    until("the handshake is complete", || finding() == (0, Some(held_back)));
    let looks = agent.stats().audit_looks;
    until("the agent has looked again and again", || agent.stats().audit_looks > looks + 5);
    assert_eq!(finding(), (0, Some(held_back)));
    let text = String::from_utf8(audit(&lab, &agent, &[]).stdout).expect("text");
    assert!(text.contains("TCP_DEFER_ACCEPT") && text.contains("1 differ for a known reason"), "{text}");

    client.write_all(b"question").expect("asking");
    let _server = listener.accept().expect("accepting");
    until("the socket is there", || finding() == (0, Some((Verdict::Agree, None))));
}

/// Drops FINs to or from a port on the agent's host, in a chain of this hook, until the rules are flushed.
fn drop_fins(lab: &Lab, hook: &str, port: u16) {
    nft(&lab.server, &[&format!("add chain ip t fins {{ type filter hook {hook} priority 0 ; }}")]);
    for direction in ["sport", "dport"] {
        nft(
            &lab.server,
            &[&format!("add rule ip t fins tcp {direction} {port} tcp flags & fin == fin drop")],
        );
    }
}

/// Waits for these states, the server's first, while the audit never reports a difference.
fn until_corrected(lab: &Lab, agent: &Agent<'_>, pair: &Pair, states: [State; 2]) {
    until("the states are right", || {
        let (code, report) = report(lab, agent, &["--all"]);
        assert_eq!(code, 0, "{report:#?}");
        let ours = of(&report, pair.ends()).and_then(|finding| finding.ours.clone());
        ours.is_some_and(|ours| [ours.state, ours.peer_state] == states)
    });
}

#[test]
#[ignore = "needs root"]
fn a_fin_that_has_not_left_the_host_is_known_from_the_socket() {
    let lab = lab();
    let arguments = ["-i", lab.server.interface, "--audit-interval", "200ms"];
    let agent = Agent::start(&lab, "audit-fin-output", &arguments);
    let pair = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    drop_fins(&lab, "output", pair.ends().0.port());
    pair.server.shutdown(Shutdown::Write).expect("shutting down");
    until_corrected(&lab, &agent, &pair, [State::FinWait1, State::Established]);
    nft(&lab.server, &["flush chain ip t fins"]);
    until_corrected(&lab, &agent, &pair, [State::FinWait2, State::CloseWait]);
}

#[test]
#[ignore = "needs root"]
fn a_fin_that_has_not_reached_the_socket_is_not_delivered() {
    let lab = lab();
    let arguments = ["-i", lab.server.interface, "--audit-interval", "200ms"];
    let agent = Agent::start(&lab, "audit-fin-input", &arguments);
    let pair = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    drop_fins(&lab, "input", pair.ends().0.port());
    pair.client.shutdown(Shutdown::Write).expect("shutting down");
    until_corrected(&lab, &agent, &pair, [State::Established, State::FinWait1]);
    nft(&lab.server, &["flush chain ip t fins"]);
    until_corrected(&lab, &agent, &pair, [State::CloseWait, State::FinWait2]);
}

/// Sets `TCP_DEFER_ACCEPT`: the kernel makes a socket of a connection when its first data arrives.
fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 60;
    // SAFETY: the option value is an integer, which the kernel reads, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "TCP_DEFER_ACCEPT");
}

#[test]
#[ignore = "needs root"]
fn connections_whose_socket_is_gone_are_closed() {
    let lab = lab();
    sysctl(&lab.server, "tcp_fin_timeout", "1");
    let arguments = ["-i", lab.server.interface, "--audit-interval", "500ms"];
    let agent = Agent::start(&lab, "audit-repair", &arguments);
    let watch = Watch::start(&lab.server, &agent, "audit-repair", &[]);
    let address = lab.server.address(Family::Ipv4);
    // Connections with a socket, which the agent must not close.
    let live = Pair::open(&lab.client, &lab.server, address);
    let bound = Pair::bound_to_device(&lab, address);
    // An orphan in FIN-WAIT-2: the server's process has closed its socket, and the client's socket stays
    // open.
    let Pair { client: _leak, server } = Pair::open(&lab.client, &lab.server, address);
    let orphan = (server.local_addr().expect("an end"), server.peer_addr().expect("an end"));
    drop(server);
    // A TIME-WAIT that `ss -K` removes.
    let killed = Pair::open(&lab.client, &lab.server, address);
    let port = killed.ends().1.port();
    killed.close_server_first();
    run(&lab.server, &format!("ss -K state time-wait dport = :{port}"));

    let repaired = || {
        let repairs = agent.stats().audit_repairs;
        println!("{repairs:?}");
        (repairs["fin_wait_2"], repairs["time_wait"])
    };
    until("both are ended", || repaired() == (1, 1));
    let orphan_port = format!("\"port\":{}", orphan.1.port());
    until("watch tells", || {
        watch.has(&["finwait.close/1", &orphan_port, "\"kind\":\"timeout\""])
            && watch.has(&["finwait.transition/1", &orphan_port, "\"cause\":\"silence\""])
            && watch.has(&["finwait.time_wait_end/1", &format!("\"port\":{port}"), "socket_gone"])
    });
    let (code, report) = report(&lab, &agent, &["--all"]);
    assert_eq!(code, 0, "{report:#?}");
    for pair in [&live, &bound] {
        let finding = of(&report, pair.ends()).expect("a connection that is open");
        assert_eq!(finding.verdict, Verdict::Agree);
        assert_eq!(finding.ours.as_ref().map(|ours| ours.state), Some(State::Established));
    }
    let page = agent.scrape();
    assert!(page.contains("finwait_audit_repairs_total{state=\"fin_wait_2\"} 1"), "{page}");
}

#[test]
#[ignore = "needs root"]
fn without_the_socket_check_a_missing_socket_is_a_difference() {
    let lab = lab();
    sysctl(&lab.server, "tcp_fin_timeout", "1");
    let agent = Agent::start(&lab, "audit-off", &["-i", lab.server.interface, "--audit-interval", "0"]);
    let Pair { client: _leak, server } =
        Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    drop(server);
    until("the kernel forgets it", || report(&lab, &agent, &["state", "fin-wait-2"]).0 == 1);
    assert_eq!((agent.stats().audit_looks, report(&lab, &agent, &[]).1.counts.differ), (0, 1));
}

#[test]
#[ignore = "needs root"]
fn older_and_unwatched_sockets_are_reported_as_only_in_the_kernel() {
    let lab = lab();
    let older = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    let (local, remote) = older.ends();
    until("its kernel has noted the silence", || {
        let mut sockets = lab.server.sockets().expect("asking").into_iter();
        let socket = sockets.find(|socket| (socket.local, socket.remote) == (local, remote));
        socket.expect("a socket").silent_ms >= Some(100)
    });
    let agent = Agent::start(&lab, "audit-older", &["-i", lab.server.interface, "--audit-interval", "0"]);
    let unwatched = Pair::open(&lab.server, &lab.server, "127.0.0.1".parse().expect("loopback"));
    let (code, report) = report(&lab, &agent, &[]);
    assert_eq!(code, 0, "{report:#?}");
    let reason = |pair: &Pair| {
        let finding = of(&report, pair.ends()).expect("a finding");
        (finding.verdict, finding.reason)
    };
    assert_eq!(reason(&older), (Verdict::OnlyKernel, Some(Reason::Early)));
    assert_eq!(reason(&unwatched), (Verdict::OnlyKernel, Some(Reason::Unwatched)));
    let text = String::from_utf8(audit(&lab, &agent, &[]).stdout).expect("text");
    assert!(text.contains("sockets not compared: ") && text.contains("1 early, 2 unwatched"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn a_forwarded_connection_is_reported_as_only_in_the_agent() {
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
#[ignore = "needs root"]
fn a_translated_connection_is_recognised_and_not_closed() {
    let lab = lab();
    nft(&lab.server, &["add chain ip t nat { type nat hook prerouting priority -100 ; }"]);
    nft(&lab.server, &["add rule ip t nat tcp dport 7 redirect to :9007"]);
    let arguments = ["-i", lab.server.interface, "--audit-interval", "200ms"];
    let agent = Agent::start(&lab, "audit-nat", &arguments);
    let listener =
        lab.server.run(|| TcpListener::bind("10.9.0.2:9007")).expect("namespace").expect("listening");
    let pair = Pair::open_to(&lab.client, &listener, SocketAddr::from(([10, 9, 0, 2], 7)));
    let looks = agent.stats().audit_looks;
    until("the agent has looked again and again", || agent.stats().audit_looks > looks + 5);
    assert_eq!(agent.stats().audit_repairs.values().sum::<u64>(), 0);
    let (code, report) = report(&lab, &agent, &["--conntrack", "--all"]);
    assert_eq!(code, 0, "{report:#?}");
    let finding = of(&report, pair.ends()).expect("the socket");
    assert_eq!((finding.verdict, finding.reason), (Verdict::Agree, None));
    let on_the_wire = finding.ours.as_ref().expect("compared").connection.server.socket_address();
    assert_eq!(on_the_wire, SocketAddr::from(([10, 9, 0, 2], 7)));
    let conntrack = finding.conntrack.expect("conntrack knows both names");
    assert_eq!(conntrack.state, TrackedState::Established);
}

#[test]
#[ignore = "needs root"]
fn conntrack_states_are_reported_beside_the_other_two() {
    let lab = lab();
    nft(
        &lab.server,
        &[
            "add chain ip t in { type filter hook input priority 0 ; }",
            "add rule ip t in ct state new accept",
        ],
    );
    let agent = Agent::start(&lab, "audit-conntrack", &["-i", lab.server.interface]);
    let played = Scenario::perform_all(&lab, Family::Ipv4);
    let played: Vec<_> = played.into_iter().map(|play| play.expect("a scenario")).collect();
    let (code, report) = report(&lab, &agent, &["--conntrack", "--all"]);
    assert_eq!(code, 0, "{report:#?}");
    let counts = report.conntrack.expect("asked for");
    // A refused SYN leaves no entry, and an entry in CLOSE stays for 10 s only.
    assert!(counts.entries > 0 && counts.fits > 0, "{counts:?}");
    let state = |name: &str| {
        let play = played.iter().find(|play| play.scenario.name == name).expect("a scenario");
        let finding = of(&report, (play.server, play.client)).expect(name);
        let conntrack = finding.conntrack.expect("tracked");
        (conntrack.state, conntrack.differs())
    };
    assert_eq!(state("live"), (TrackedState::Established, false));
    assert_eq!(state("close_wait_leak"), (TrackedState::CloseWait, false));
    assert_eq!(state("fin_4seg_client"), (TrackedState::TimeWait, false));
    let text = String::from_utf8(audit(&lab, &agent, &["--conntrack", "--all"]).stdout).expect("text");
    assert!(text.contains("CONNTRACK") && text.contains("conntrack: "), "{text}");
}

#[test]
#[ignore = "needs root"]
fn without_conntrack_the_missing_part_is_named() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-no-conntrack", &["-i", lab.server.interface]);
    let idle = audit(&lab, &agent, &["--conntrack"]);
    assert!(String::from_utf8_lossy(&idle.stdout).contains("no rule of this namespace uses it"));
    // Without capabilities the kernel refuses the request.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--reuid", "0", "--clear-groups", FINWAIT]);
    command.args(["audit", "--conntrack", "--socket", &agent.socket]);
    let refused = lab.server.run(|| command.output()).expect("namespace").expect("running setpriv");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    assert_eq!(refused.status.code(), Some(4));
}

#[test]
#[ignore = "needs root"]
fn an_audit_in_another_namespace_is_refused() {
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

#[test]
#[ignore = "needs root"]
fn the_process_of_a_socket_is_shown_and_selects_connections() {
    let lab = lab();
    let agent = Agent::start(&lab, "audit-owner", &["-i", lab.server.interface]);
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(FINWAIT);
        command.args(arguments).args(["--socket", &agent.socket]);
        let output = lab.server.run(|| command.output()).expect("namespace").expect("running the CLI");
        String::from_utf8(output.stdout).expect("text")
    };
    let pair = Pair::open(&lab.client, &lab.server, lab.server.address(Family::Ipv4));
    let pid = std::process::id();
    let mine = ask(&["ls", "-o", "ndjson", &format!("process {pid}")]);
    assert!(mine.contains(&format!("\"process\":{{\"pid\":{pid},\"comm\":")), "{mine}");
    assert_eq!(ask(&["ls", &format!("not process {pid}")]).lines().count(), 1, "only the titles");
    assert!(ask(&["ls", "-o", "wide"]).contains(&format!("/{pid} ")));

    // In another namespace no process is known, and a filter by process is refused.
    let elsewhere = agent.cli(&["ls", "-o", "ndjson"]);
    assert!(String::from_utf8_lossy(&elsewhere.stdout).contains("\"process\":null"));
    assert_eq!(agent.cli(&["ls", &format!("process {pid}")]).status.code(), Some(4));

    let watch = Watch::start(&lab.server, &agent, "audit-owner", &[&format!("process {pid}")]);
    let Pair { client, server } = pair;
    // An abort: close() sends a RST.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(client);
    until("watch tells whose connection was aborted", || {
        watch.has(&["finwait.close/1", "rst_abort", &format!("\"pid\":{pid}")])
    });
    drop(server);
}
