//! RSTs whose meaning the segments alone do not show: one that a firewall drops before the socket, and one of a
//! host that has lost its TIME-WAIT.

mod common;
#[allow(dead_code, reason = "several test programs include this file, each uses what it needs")]
mod hosts;

use std::io::Read as _;
use std::net::Shutdown;
use std::time::Duration;

use common::{Agent, until};
use finwait::lab::{Family, Lab};
use hosts::{Pair, Watch, nft, run, sysctl};
use socket2::SockRef;
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
    let states =
        agent.connections().into_iter().map(|c| (c.client.state, c.server.state)).collect::<Vec<_>>();
    assert_eq!(states, [(State::Established, State::Established)]);
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
    let resets = agent.stats().resets;
    assert_eq!((resets["state_lost"]["local"], resets["state_lost"]["remote"]), (1, 0), "{resets:?}");
    assert_eq!(resets["time_wait_assassination"].values().sum::<u64>(), 0);
}
