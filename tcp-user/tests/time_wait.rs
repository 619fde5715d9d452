//! TIME-WAIT at work: what real segments do to an end in TIME-WAIT is counted by the side of the end.

mod common;
#[allow(dead_code, reason = "several test programs include this file, each uses what it needs")]
mod hosts;

use std::io::Read as _;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{Agent, until, until_equal};
use finwait::lab::{Family, Host, Lab};
use finwait::view::State;
use hosts::{Pair, connect_from, inject, nft, run, sysctl};
use socket2::{Domain, Protocol, Socket, Type};

#[test]
#[ignore = "needs root"]
fn what_segments_do_to_a_time_wait_is_counted_by_its_holder() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let agent = Agent::start(&lab, "time_wait", &["-i", lab.server.interface, "--audit-interval", "0"]);
    let address = lab.server.address(Family::Ipv4);
    let counted = |event: &str, count: u64| {
        until_equal(
            || {
                let page = agent.scrape();
                let of_event = format!("{{event=\"{event}\",holder=\"local\"}} {count}");
                let events = page.lines().filter(|line| line.starts_with("finwait_time_wait_events_total"));
                let others: Vec<_> =
                    events.clone().filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect();
                if events.into_iter().any(|line| line.ends_with(&of_event)) { Ok(()) } else { Err(others) }
            },
            Ok(()),
        );
    };

    lose_last_ack(&lab, address);
    counted("entered", 1);
    counted("restarted", 1);

    // The late segment is swallowed; the ACK that repeats the last one is answered by a RST.
    let (ends, _) = waiting(&lab, address, 4001);
    inject(&lab.client, ends, |header| header.ack = true);
    counted("old_duplicate", 1);
    counted("assassinated", 1);

    // With timestamps, then without: the initial sequence numbers of Linux grow with time.
    for (port, timestamps, event) in [(4002, "1", "reused_by_timestamp"), (4003, "0", "reused_by_sequence")] {
        sysctl(&lab.client, "tcp_timestamps", timestamps);
        let (ends, listener) = waiting(&lab, address, port);
        let begun = Instant::now();
        until("the clock of timestamps, in milliseconds, goes on", || begun.elapsed() > MILLISECOND);
        let again = lab.client.run(|| connect_from(Some(port), ends.1)).expect("namespace");
        let again = again.expect("the SYN is accepted");
        drop((listener.accept().expect("the next connection"), again));
        counted(event, 1);
    }
    counted("reused", 2);

    let (next, ends, _listener) = {
        let raw = lab.client.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)));
        let raw = raw.expect("namespace").expect("a raw socket");
        let (ends, listener) = waiting(&lab, address, 4004);
        (last_ack_of(&raw, ends.1.port()), ends, listener)
    };
    inject(&lab.client, ends, |header| {
        (header.syn, header.sequence_number) = (true, next.wrapping_sub(100_000));
    });
    counted("reuse_refused", 1);
    // The client's RST, which answers the ACK of the end in TIME-WAIT, shows that it opens.
    counted("reused", 3);

    reuse_by_holder(&lab);
    counted("reused_by_holder", 1);
    counted("reused", 4);
    for event in ["restarted", "old_duplicate", "reuse_refused", "reused_by_holder", "assassinated"] {
        let line = format!("finwait_time_wait_events_total{{event=\"{event}\",holder=\"remote\"}} 0\n");
        assert!(agent.scrape().contains(&line), "{line}");
    }
    let stats = agent.stats();
    assert_eq!((stats.time_wait["restarted"], stats.time_wait["reuse_refused"]), (1, 1));
}

/// A connection from this port whose server is in TIME-WAIT, and its listener.
fn waiting(lab: &Lab, address: IpAddr, port: u16) -> ((SocketAddr, SocketAddr), TcpListener) {
    let listener = lab.server.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("a port");
    let to = listener.local_addr().expect("its address");
    let mut client = lab.client.run(|| connect_from(Some(port), to)).expect("namespace").expect("connecting");
    let ends = (client.local_addr().expect("an end"), to);
    drop(listener.accept().expect("accepting"));
    client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    drop(client);
    until("the server is in TIME-WAIT", || {
        is_in(&lab.server, (ends.1, ends.0), State::TimeWait) && is_in(&lab.client, ends, State::Closed)
    });
    (ends, listener)
}

fn is_in(host: &Host, (local, remote): (SocketAddr, SocketAddr), state: State) -> bool {
    host.state(local, remote).is_ok_and(|found| found == state)
}

/// The client repeats its FIN once, because the server's firewall drops the last ACK.
fn lose_last_ack(lab: &Lab, address: IpAddr) {
    let Pair { mut client, server } = Pair::open(&lab.client, &lab.server, address);
    let ends = (client.local_addr().expect("an end"), client.peer_addr().expect("an end"));
    server.shutdown(Shutdown::Write).expect("closing");
    client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    until("the FIN is acknowledged", || is_in(&lab.server, (ends.1, ends.0), State::FinWait2));
    let of_agent = lab.server.interface;
    let first = format!(
        "add rule ip t out oifname {of_agent} tcp flags == ack limit rate 1/day burst 1 packets drop"
    );
    nft(&lab.server, &["add chain ip t out { type filter hook output priority 0 ; }", &first]);
    drop(client);
    until("the last ACK has arrived", || is_in(&lab.client, ends, State::Closed));
    run(&lab.server, "nft delete table ip t");
}

/// The highest acknowledgment number that came from this port.
fn last_ack_of(raw: &Socket, port: u16) -> u32 {
    let mut raw = raw.try_clone().expect("a copy");
    raw.set_nonblocking(true).expect("not waiting");
    let (mut packet, mut last) = ([0; 2048], None);
    while let Ok(len) = raw.read(&mut packet) {
        let sliced = etherparse::SlicedPacket::from_ip(&packet[..len]).expect("an IP packet");
        if let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport
            && tcp.source_port() == port
        {
            last = Some(tcp.acknowledgment_number());
        }
    }
    last.expect("the server has acknowledged")
}

/// The agent's host connects, closes first, and connects from the same port again as soon as its kernel permits.
fn reuse_by_holder(lab: &Lab) {
    sysctl(&lab.client, "tcp_timestamps", "1");
    sysctl(&lab.server, "tcp_tw_reuse", "1");
    let address = lab.client.address(Family::Ipv4);
    let listener = lab.client.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("a port");
    let to = listener.local_addr().expect("its address");
    let connect = || lab.server.run(|| connect_from(Some(5001), to)).expect("namespace");
    let client = connect().expect("connecting");
    let ends = (client.local_addr().expect("an end"), to);
    let (mut server, _) = listener.accept().expect("accepting");
    drop(client);
    server.read_to_end(&mut Vec::new()).expect("the FIN");
    drop(server);
    until("it is in TIME-WAIT", || is_in(&lab.server, ends, State::TimeWait));
    until("the kernel reuses it", || connect().is_ok());
}

const MILLISECOND: Duration = Duration::from_millis(1);
