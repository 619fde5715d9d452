//! The judge without a kernel: what the lab cannot bring about at will.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tcp_common::State;

use super::judge::{Options, confirm, judge};
use super::sample::Sample;
use super::{ConntrackCounts, Reason, Report, Verdict, VerdictCounts};
use crate::filter::Filter;
use crate::sockets::{HostContext, KernelSocket, Timer, Tracked, TrackedState};
use crate::view::{Connection, samples};

const LOCAL: &str = "10.9.0.1:43210";
const REMOTE: &str = "10.9.0.2:80";

fn host() -> HostContext {
    let addresses = HashMap::from([("10.9.0.1".parse().expect("an address"), "eth0".to_owned())]);
    HostContext::new(addresses, HashSet::from(["eth0".to_owned()]), samples::at(40, 0.0), 60_000)
}

fn socket(local: &str, remote: &str, state: State) -> KernelSocket {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    KernelSocket {
        local: address(local),
        remote: address(remote),
        state,
        inode: 7,
        uid: 0,
        cookie: 1,
        timer: None,
        expires_ms: None,
        silent_ms: Some(10),
        send_queue: 0,
        wscale: None,
        drops: 0,
    }
}

fn time_wait(expires_ms: u32) -> KernelSocket {
    KernelSocket {
        inode: 0,
        silent_ms: None,
        timer: Some(Timer::TimeWait),
        expires_ms: Some(expires_ms),
        ..socket(LOCAL, REMOTE, State::TimeWait)
    }
}

fn sample(connections: &[Connection], sockets: &[KernelSocket]) -> Sample {
    let mut sample = Sample { connections: connections.to_vec(), ..Sample::default() };
    sockets.iter().cloned().for_each(|socket| sample.add(socket));
    sample
}

fn judged(connections: &[Connection], sockets: &[KernelSocket]) -> Vec<(Verdict, Option<Reason>)> {
    let judged = judge(&sample(connections, sockets), &host(), samples::at(50, 0.0));
    judged.findings.iter().map(|finding| (finding.verdict, finding.reason)).collect()
}

fn audited(first: &Sample, second: &Sample, filter: &str) -> Report {
    let (host, at) = (host(), samples::at(50, 0.0));
    let filter = Filter::parse(filter).expect("a filter");
    let options =
        Options { filter, interval: Duration::ZERO, all: false, conntrack: first.conntrack.is_some() };
    confirm(&judge(first, &host, at), judge(second, &host, at), &options)
}

fn closed() -> Connection {
    let mut connection = samples::time_wait();
    connection.client.state = State::Closed;
    connection.time_wait = None;
    connection
}

#[test]
fn the_same_state_agrees_and_another_differs() {
    assert_eq!(judged(&[samples::time_wait()], &[time_wait(59_000)]), [(Verdict::Agree, None)]);
    let established = socket(LOCAL, REMOTE, State::Established);
    assert_eq!(judged(&[samples::time_wait()], &[established]), [(Verdict::Differ, None)]);
    assert_eq!(judged(&[samples::time_wait()], &[]), [(Verdict::Differ, Some(Reason::Forgotten))]);
    assert_eq!(judged(&[closed()], &[]), [(Verdict::Agree, None)]);
    assert_eq!(judged(&[closed()], &[time_wait(30_000)]), [(Verdict::Differ, None)]);
}

#[test]
fn a_timer_that_is_due_may_end_a_little_sooner_on_either_side() {
    assert_eq!(judged(&[closed()], &[time_wait(0)]), [(Verdict::Agree, None)]);
    let mut due = samples::time_wait();
    due.time_wait.as_mut().expect("TIME-WAIT").expires_in_ms = 5;
    assert_eq!(judged(&[due], &[]), [(Verdict::Agree, None)]);
}

#[test]
fn of_two_sockets_with_the_same_ends_one_that_agrees_is_enough() {
    let other = KernelSocket { cookie: 2, ..socket(LOCAL, REMOTE, State::Established) };
    let expected = [(Verdict::Agree, None), (Verdict::OnlyKernel, Some(Reason::SameAddresses))];
    assert_eq!(judged(&[samples::time_wait()], &[other, time_wait(1_000)]), expected);
}

#[test]
fn a_socket_belongs_to_the_connection_that_is_open() {
    // NAT gave each another port on the wire, so that the agent has both under the addresses of their sockets.
    let connections = [closed(), samples::time_wait()];
    assert_eq!(judged(&connections, &[time_wait(30_000)]), [(Verdict::Agree, None); 2]);
    assert_eq!(
        judged(&connections, &[]),
        [(Verdict::Agree, None), (Verdict::Differ, Some(Reason::Forgotten))]
    );
    let established = socket(LOCAL, REMOTE, State::Established);
    assert_eq!(judged(&connections, &[established]), [(Verdict::Differ, None); 2]);
}

#[test]
fn a_request_socket_of_a_completed_handshake_is_held_back() {
    let request = |inode| KernelSocket { inode, ..socket(LOCAL, REMOTE, State::SynReceived) };
    let connection = |state| {
        let mut connection = samples::time_wait();
        connection.client.state = state;
        (connection.close, connection.time_wait) = (None, None);
        connection
    };
    let held_back = [(Verdict::Explained, Some(Reason::NotAccepted))];
    for state in [State::Established, State::CloseWait] {
        assert_eq!(judged(&[connection(state)], &[request(0)]), held_back);
    }
    assert_eq!(judged(&[connection(State::FinWait1)], &[request(0)]), [(Verdict::Differ, None)]);
    // A socket of a process, after a simultaneous open.
    assert_eq!(judged(&[connection(State::Established)], &[request(7)]), [(Verdict::Differ, None)]);
}

#[test]
fn sockets_that_were_not_compared_are_counted_by_reason() {
    let sockets = [
        socket("0.0.0.0:80", "0.0.0.0:0", State::Listen),
        socket("0.0.0.0:81", "0.0.0.0:0", State::Closed),
        socket("127.0.0.1:1", "127.0.0.1:2", State::Established),
        socket("127.0.0.1:2", "127.0.0.1:1", State::Established),
        time_wait(9_000),
    ];
    let sample = sample(&[samples::time_wait()], &sockets);
    let VerdictCounts { agree, listening, not_compared, .. } = audited(&sample, &sample, "").counts;
    assert_eq!((agree, listening), (1, 1));
    let expected = [("unconnected", 1), ("unwatched", 2)];
    assert_eq!(not_compared, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
}

#[test]
fn another_namespace_and_a_forwarder_need_no_socket() {
    let mut container = samples::time_wait();
    container.client.address = "10.88.0.5".parse().expect("an address");
    assert_eq!(judged(&[container.clone()], &[]), [(Verdict::OnlyOurs, Some(Reason::OtherNamespace))]);
    container.client.local = false;
    assert_eq!(judged(&[container], &[]), [(Verdict::OnlyOurs, Some(Reason::Forwarded))]);
}

#[test]
fn both_ends_here_are_two_sockets() {
    let mut both = samples::time_wait();
    both.server.local = true;
    both.server.address = both.client.address;
    both.server.state = State::CloseWait;
    let sockets = [time_wait(9_000), socket("10.9.0.1:80", LOCAL, State::CloseWait)];
    let verdicts = judged(&[both], &sockets[1..]);
    // The client's end is nowhere; the server's agrees.
    assert_eq!(verdicts, [(Verdict::Differ, Some(Reason::Forgotten)), (Verdict::Agree, None)]);
}

#[test]
fn nat_leaves_one_over_on_each_side() {
    // The process talks to a service address; on the wire is what stands behind it.
    let service = socket(LOCAL, "10.96.0.1:443", State::Established);
    let mut wire = samples::established();
    wire.client = samples::time_wait().client;
    wire.client.state = State::Established;
    wire.server.local = false;
    let expected =
        [(Verdict::OnlyOurs, Some(Reason::Translated)), (Verdict::OnlyKernel, Some(Reason::Translated))];
    assert_eq!(judged(&[wire.clone()], &[service]), expected);
    // Two who share nothing are two.
    let stranger = socket("10.9.0.1:999", "10.9.0.9:999", State::Established);
    let expected = [(Verdict::Differ, Some(Reason::Forgotten)), (Verdict::OnlyKernel, Some(Reason::Missed))];
    assert_eq!(judged(&[wire], &[stranger]), expected);
}

#[test]
fn what_only_the_kernel_has_is_explained() {
    let only = |socket: KernelSocket| judged(&[], &[socket])[0].1.expect("a reason");
    let idle = |silent_ms| KernelSocket { silent_ms, ..socket(LOCAL, REMOTE, State::Established) };
    // The agent has been up for ten minutes.
    assert_eq!(only(idle(Some(599_000))), Reason::Missed);
    assert_eq!(only(idle(Some(601_000))), Reason::Early);
    assert_eq!(only(idle(None)), Reason::Early);
    assert_eq!(only(time_wait(1_000)), Reason::Missed);
    assert_eq!(only(socket("127.0.0.1:1", "127.0.0.1:2", State::Established)), Reason::Unwatched);
    assert_eq!(only(socket("10.9.0.1:1", "10.9.0.1:1", State::Established)), Reason::SelfConnect);
    assert!(judged(&[], &[socket("0.0.0.0:80", "0.0.0.0:0", State::Listen)]).is_empty());
    assert!(judged(&[], &[socket("0.0.0.0:80", "0.0.0.0:0", State::Closed)]).is_empty());
}

#[test]
fn only_what_both_samples_say_alike_counts() {
    let differs = sample(&[samples::time_wait()], &[]);
    let elsewise = sample(&[samples::time_wait()], &[socket(LOCAL, REMOTE, State::FinWait2)]);
    let counts = |first, second| audited(first, second, "").counts;
    assert_eq!(counts(&differs, &differs), VerdictCounts { differ: 1, ..VerdictCounts::default() });
    assert_eq!(counts(&elsewise, &differs), VerdictCounts { unsettled: 1, ..VerdictCounts::default() });
    let next_life = {
        let mut next = samples::time_wait();
        next.incarnation += 1;
        sample(&[next], &[])
    };
    assert_eq!(counts(&differs, &next_life), VerdictCounts { unsettled: 1, ..VerdictCounts::default() });
    assert!(!audited(&differs, &differs, "").agrees());
    assert!(audited(&elsewise, &differs, "").agrees());
}

#[test]
fn a_filter_chooses_among_sockets_that_only_the_kernel_has_too() {
    let unknown = sample(&[], &[socket(LOCAL, REMOTE, State::CloseWait)]);
    for (filter, count) in [("", 1), ("dport = :80", 1), ("local state close-wait", 1), ("port = :81", 0)] {
        assert_eq!(audited(&unknown, &unknown, filter).counts.missed, count, "{filter}");
    }
}

#[test]
fn conntracks_one_state_is_held_against_both() {
    let asked = |state, sockets: &[KernelSocket]| {
        let (local, remote) = (LOCAL.parse().expect("an address"), REMOTE.parse().expect("an address"));
        let tracked = Tracked { original: (local, remote), reply: (remote, local), state };
        let mut sample = sample(&[samples::time_wait()], sockets);
        sample.conntrack = Some([tracked].into_iter().collect());
        sample
    };
    let counts = |first: &Sample, second: &Sample| audited(first, second, "").conntrack.expect("asked for");
    let one = ConntrackCounts { entries: 1, ..ConntrackCounts::default() };
    let fits = asked(TrackedState::TimeWait, &[time_wait(9_000)]);
    assert_eq!(counts(&fits, &fits), ConntrackCounts { fits: 1, ..one });
    let lags = asked(TrackedState::LastAck, &[time_wait(9_000)]);
    assert_eq!(counts(&lags, &lags), ConntrackCounts { differs_from_ours: 1, ..one });
    let wrong = asked(TrackedState::Established, &[time_wait(9_000)]);
    assert_eq!(counts(&wrong, &wrong), ConntrackCounts { differs_from_both: 1, ..one });
    // In motion: listed with neither.
    assert_eq!(counts(&lags, &wrong), one);
    let report = audited(&wrong, &wrong, "");
    assert_eq!((report.findings.len(), report.agrees()), (1, true), "conntrack's errors are not ours");
    let elsewhere = sample(&[samples::time_wait()], &[time_wait(9_000)]);
    let elsewhere = Sample { conntrack: Some(Default::default()), ..elsewhere };
    assert_eq!(counts(&elsewhere, &elsewhere), ConntrackCounts { untracked: 1, ..Default::default() });
}
