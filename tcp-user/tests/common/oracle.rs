//! The kernels' view of the lab's connections, read by `ss` and from `/proc/net`, as any user can read it.

use std::fmt;
use std::net::SocketAddr;

use finwait::lab::{Host, Lab, Namespace};
use finwait::view::Connection;
use finwait::view::StateSet;
use tcp_common::State;

use super::call;

/// One end of a connection, in a state other than CLOSED.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    state: &'static str,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", self.local, self.remote, self.state)
    }
}

impl End {
    pub fn new(local: SocketAddr, remote: SocketAddr, state: State) -> End {
        End { local, remote, state: state.rfc_name() }
    }

    pub fn is(&self, state: State) -> bool {
        self.state == state.rfc_name()
    }
}

/// Returns the ends of both hosts by `ss -tan`, sorted. Returns `None` while a TIME-WAIT is about to expire:
/// the kernel's timer may be two seconds late, and until then the two clocks differ.
pub fn ends(lab: &Lab) -> Option<Vec<End>> {
    let mut ends = Vec::new();
    for host in [&lab.client, &lab.server] {
        let text = ss(host);
        if text.lines().filter_map(time_wait_seconds).any(|left| left < PASSING_SECONDS) {
            return None;
        }
        ends.extend(sockets(&text).filter(|end| !end.is(State::Listen) && !end.is(State::Closed)));
    }
    ends.sort();
    Some(ends)
}

/// Returns both ends of every connection as finwait reports them, sorted. An end in CLOSED has no socket.
pub fn ends_of(connections: &[Connection]) -> Vec<End> {
    let mut ends: Vec<_> = connections
        .iter()
        .flat_map(|connection| {
            let (client, server) = (&connection.client, &connection.server);
            [(client, server), (server, client)]
                .map(|(own, peer)| End::new(own.socket_address(), peer.socket_address(), own.state))
        })
        .filter(|end| !end.is(State::Closed))
        .collect();
    ends.sort();
    ends
}

/// Returns the number of sockets of a host that listen on this port.
pub fn listeners(host: &impl AsRef<Namespace>, port: u16) -> usize {
    sockets(&ss(host)).filter(|end| end.is(State::Listen) && end.local.port() == port).count()
}

/// Reads a counter of `/proc/net/snmp` or `/proc/net/netstat`, such as `ActiveOpens` of the group `Tcp`.
pub fn counter(host: &impl AsRef<Namespace>, group: &str, name: &str) -> u64 {
    let text = ["snmp", "netstat"].map(|file| read(host, file)).concat();
    let lines: Vec<_> = text.lines().collect();
    lines
        .chunks_exact(2)
        .filter(|pair| pair[0].split(':').next() == Some(group))
        .find_map(|pair| {
            let position = pair[0].split_whitespace().position(|word| word == name)?;
            pair[1].split_whitespace().nth(position)?.parse().ok()
        })
        .unwrap_or_else(|| panic!("the kernel does not count {group} {name}"))
}

/// Returns the number of packets that the host's interface has received and sent.
pub fn interface_packets(host: &Host) -> u64 {
    const RECEIVED: usize = 1;
    const SENT: usize = 9;
    let text = read(host, "dev");
    let line =
        text.lines().find_map(|line| line.trim_start().strip_prefix(host.interface)?.strip_prefix(':'));
    let numbers: Vec<u64> = line
        .expect("the interface")
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    numbers[RECEIVED] + numbers[SENT]
}

fn read(host: &impl AsRef<Namespace>, file: &str) -> String {
    host.as_ref()
        .run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")))
        .expect("entering the namespace")
        .expect("reading from /proc/net")
}

fn ss(host: &impl AsRef<Namespace>) -> String {
    call(host, "ss", &["--tcp", "--all", "--numeric", "--options", "--no-header"])
}

fn sockets(text: &str) -> impl Iterator<Item = End> {
    text.lines().map(|line| socket(line).unwrap_or_else(|| panic!("a line of ss: {line:?}")))
}

/// Parses a line `STATE RECV-Q SEND-Q LOCAL PEER`.
fn socket(line: &str) -> Option<End> {
    let mut words = line.split_whitespace();
    let state = words.next()?;
    let (local, remote) = (words.nth(2)?, words.next()?);
    let state = match state {
        "UNCONN" => State::Closed,
        name => StateSet::parse(name).ok()?.iter().next()?,
    };
    // A listener's peer is `0.0.0.0:*`.
    Some(End::new(local.parse().ok()?, remote.replace(":*", ":0").parse().ok()?, state))
}

/// Parses the remaining TIME-WAIT in seconds from `timer:(timewait,LEFT,0)`. LEFT is `1min`, `59sec`,
/// `5.120ms` (5.12 s), `950ms` or empty.
fn time_wait_seconds(line: &str) -> Option<u32> {
    let left = line.split_once("timer:(timewait,")?.1.split(',').next()?;
    let digits = left.split(|c: char| !c.is_ascii_digit()).next()?;
    if left.contains("min") {
        Some(60)
    } else if left.contains("sec") || left.contains('.') {
        digits.parse().ok()
    } else {
        Some(0)
    }
}

/// Long compared with the time of a query of both kernels and finwait.
const PASSING_SECONDS: u32 = 3;
