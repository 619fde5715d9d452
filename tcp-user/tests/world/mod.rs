//! Any number of hosts and links, and one conversation between two hosts.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "several test programs include this file, each uses what it needs"
)]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};

use finwait::lab::Namespace;
use finwait::sockets::Diag;
use socket2::{Domain, Socket, Type};
use tcp_common::State;

/// Makes a host with lo up and forwarding enabled, which accepts asymmetric routes.
pub fn host() -> Namespace {
    let namespace = Namespace::new().expect("making a namespace (root needed)");
    ip(&namespace, "link set lo up");
    let settings = ["conf/all/rp_filter", "conf/default/rp_filter"].map(|name| (name, "0"));
    for (name, value) in settings.into_iter().chain([("ip_forward", "1")]) {
        namespace.sysctl(&format!("ipv4/{name}"), value).expect(name);
    }
    namespace
}

/// Runs `ip` with these words.
pub fn ip(namespace: &Namespace, words: &str) {
    namespace.ip(words).expect("ip (Debian: iproute2)");
}

/// Makes a link: an interface of the given name on each host, up, with the given address if it is not empty.
pub fn cable(one: (&Namespace, &str, &str), other: (&Namespace, &str, &str)) {
    let there = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_fd().as_raw_fd());
    ip(one.0, &format!("link add {} type veth peer name {} netns {there}", one.1, other.1));
    for (namespace, name, address) in [one, other] {
        if !address.is_empty() {
            ip(namespace, &format!("address add {address} dev {name}"));
        }
        ip(namespace, &format!("link set {name} up"));
    }
}

/// Both ends of an open connection.
pub struct Talk<'a> {
    hosts: [&'a Namespace; 2],
    pub client: SocketAddr,
    pub server: SocketAddr,
    streams: [TcpStream; 2],
    sent_before: [u64; 2],
}

impl<'a> Talk<'a> {
    /// Opens a connection from a port, or any port if it is 0, to an address. Each end then sends data once.
    pub fn open(from: (&'a Namespace, u16), to: (&'a Namespace, SocketAddr)) -> Talk<'a> {
        let sent_before = [from.0, to.0].map(sent);
        let listener =
            to.0.run(|| TcpListener::bind(to.1)).expect("entering the namespace").expect("listening");
        let client = from
            .0
            .run(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from(([0, 0, 0, 0], from.1)).into())?;
                socket.connect(&listener.local_addr()?.into())?;
                Ok::<_, std::io::Error>(TcpStream::from(socket))
            })
            .expect("entering the namespace")
            .expect("connecting");
        let (server, _) = listener.accept().expect("accepting");
        let mut talk = Talk {
            hosts: [from.0, to.0],
            client: client.local_addr().expect("an address"),
            server: server.local_addr().expect("an address"),
            streams: [client, server],
            sent_before,
        };
        talk.say();
        talk
    }

    /// Exchanges a question and an answer.
    pub fn say(&mut self) {
        for from in [0, 1] {
            self.send(from, b"word..");
        }
    }

    /// Sends bytes from the client (0) or the server (1), and receives them at the other end.
    pub fn send(&mut self, from: usize, bytes: &[u8]) {
        self.write(from, bytes);
        self.read(1 - from, bytes.len());
    }

    /// Sends bytes from the client (0) or the server (1).
    pub fn write(&mut self, from: usize, bytes: &[u8]) {
        self.streams[from].write_all(bytes).expect("sending");
    }

    /// Receives a number of bytes at the client (0) or the server (1).
    pub fn read(&mut self, at: usize, len: usize) {
        self.streams[at].read_exact(&mut vec![0; len]).expect("receiving");
    }

    /// Closes the client first. The server closes when it has read to the end.
    pub fn close(&mut self) {
        for end in [0, 1] {
            self.streams[end].shutdown(Shutdown::Write).expect("shutting down");
            let rest = self.streams[1 - end].read_to_end(&mut Vec::new()).expect("reading to the end");
            assert_eq!(rest, 0);
        }
    }

    /// Returns the kernels' states of both ends, the client's first.
    pub fn states(&self) -> [State; 2] {
        let state = |host: &Namespace, local, remote| {
            host.run(|| Diag::open().and_then(|mut diag| diag.state(local, remote)))
                .expect("entering the namespace")
                .expect("asking the kernel")
        };
        [state(self.hosts[0], self.client, self.server), state(self.hosts[1], self.server, self.client)]
    }

    /// Returns the number of segments that each host has sent since the connection opened, the client's
    /// first. Assumes that the hosts send nothing else.
    pub fn sent(&self) -> [u64; 2] {
        [0, 1].map(|end| sent(self.hosts[end]) - self.sent_before[end])
    }
}

/// Returns the number of TCP segments that a host has sent (`TcpOutSegs` and `TcpRetransSegs`).
fn sent(host: &Namespace) -> u64 {
    let text = host
        .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))
        .expect("entering the namespace")
        .expect("reading /proc/net/snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter(|(name, _)| ["OutSegs", "RetransSegs"].contains(name))
        .map(|(_, value)| value.parse::<u64>().expect("a number"))
        .sum()
}

/// Makes a socket address.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}
