//! `finwait ports`: the port budget of a client that really runs out of ports.

mod common;

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use common::{Agent, until};
use finwait::lab::{Family, Lab};
use finwait::view::{PortBudget, Ports};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};

/// A client with an agent, and a server that listens on two ports.
struct Pair<'a> {
    lab: &'a Lab,
    agent: Agent<'a>,
    listeners: [TcpListener; 2],
}

/// Both ends of a connection.
type Ends = (TcpStream, TcpStream);

impl<'a> Pair<'a> {
    fn start(lab: &'a Lab, name: &str, range: &str) -> Pair<'a> {
        set(lab, "ip_local_port_range", range);
        let listen = || TcpListener::bind((lab.server.address(Family::Ipv4), 0)).expect("a free port");
        let listeners = lab.server.run(|| [listen(), listen()]).expect("namespace");
        let agent = Agent::start_in(lab.client.namespace(), name, &["-i", lab.client.interface]);
        Pair { lab, agent, listeners }
    }

    fn destination(&self, server: usize) -> SocketAddr {
        self.listeners[server].local_addr().expect("its address")
    }

    /// A connection, or `None` if no port is free for it.
    fn connect(&self, server: usize) -> Option<Ends> {
        let to = self.destination(server);
        match self.lab.client.run(|| TcpStream::connect(to)).expect("namespace") {
            Ok(client) => Some((client, self.listeners[server].accept().expect("accepting").0)),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => None,
            Err(error) => panic!("connecting: {error}"),
        }
    }

    fn connect_times(&self, server: usize, count: usize) -> Vec<Ends> {
        (0..count).map(|_| self.connect(server).expect("a free port")).collect()
    }

    /// A connection from a socket with an address and no port until it is connected.
    fn connect_late(&self, server: usize) -> (OwnedFd, TcpStream) {
        self.connect_from(server, self.bind(0, true))
    }

    /// A connection from a socket that bind() gave this port, 0 for any.
    fn connect_bound(&self, server: usize, port: u16) -> (OwnedFd, TcpStream) {
        self.connect_from(server, self.bind(port, false))
    }

    fn connect_from(&self, server: usize, socket: OwnedFd) -> (OwnedFd, TcpStream) {
        let SocketAddr::V4(to) = self.destination(server) else { panic!("an IPv4 address") };
        socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).expect("connecting");
        (socket, self.listeners[server].accept().expect("accepting").0)
    }

    fn bind(&self, port: u16, no_port: bool) -> OwnedFd {
        let IpAddr::V4(address) = self.lab.client.address(Family::Ipv4) else { panic!("an IPv4 address") };
        let bind = || {
            let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
            socket::setsockopt(&fd, sockopt::IpBindAddressNoPort, &no_port)?;
            let [a, b, c, d] = Ipv4Addr::octets(&address);
            socket::bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, port))?;
            nix::Result::Ok(fd)
        };
        self.lab.client.run(bind).expect("namespace").expect("binding")
    }

    fn ports(&self) -> Ports {
        let output = self.agent.cli(&["ports", "-o", "json"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("ports")
    }

    fn budget(&self, server: usize) -> PortBudget {
        let to = self.destination(server);
        let ports = self.ports();
        let budget = ports.destinations.iter().find(|budget| budget.remote() == to);
        budget.unwrap_or_else(|| panic!("no connection to {to}: {ports:?}")).clone()
    }

    /// Connects until no port is free. Returns the connections.
    fn exhaust(&self, server: usize) -> Vec<Ends> {
        std::iter::from_fn(|| self.connect(server)).collect()
    }
}

/// Changes a setting of the client's namespace.
fn set(lab: &Lab, name: &str, value: &str) {
    let write = || fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    lab.client.run(write).expect("namespace").expect("changing a setting");
}

/// Closes a connection from the client, which holds TIME-WAIT then.
fn close_from_client((client, mut server): Ends) {
    drop(client);
    assert_eq!(server.read(&mut [0]).expect("reading"), 0, "the client's FIN");
}

#[test]
#[ignore = "needs root"]
fn a_client_runs_out_of_ports_when_the_forecast_says() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let pair = Pair::start(&lab, "ports", "40000 40399");
    let output = pair.agent.cli(&["ports"]);
    assert_eq!(output.status.code(), Some(1), "no connection holds a port: {output:?}");

    // Connections come and go at a pace, at most three at a time, and the client closes first.
    let (mut open, mut opened, mut forecasts) = (VecDeque::new(), 0_u32, Vec::new());
    while let Some(ends) = pair.connect(0) {
        opened += 1;
        open.push_back(ends);
        if open.len() > 3 {
            close_from_client(open.pop_front().expect("one"));
        }
        if opened % 50 == 0 {
            let budget = pair.budget(0);
            assert_eq!(budget.live + budget.time_wait, opened, "{budget:?}");
            forecasts.push((opened, budget));
        }
    }
    for (before, budget) in &forecasts {
        let predicted = before + budget.free;
        assert!(predicted.abs_diff(opened) <= opened / 10, "{opened} connections: {before}, {budget:?}");
        assert!(budget.opening_per_second > 0.0, "{budget:?}");
        assert!(budget.exhausted_in_ms.is_some(), "{budget:?}");
    }
    assert_eq!(forecasts.len(), 8, "{forecasts:?}");
    let budget = pair.budget(0);
    assert_eq!((budget.free, budget.exhausted_in_ms), (0, Some(0)), "{budget:?}");
    assert!(budget.time_wait > 300, "{budget:?}");

    // Another destination has all of its ports.
    let others = pair.connect_times(1, 10);
    assert_eq!((pair.budget(1).live, pair.budget(1).free), (10, 390));
    drop(others);
}

#[test]
#[ignore = "needs root"]
fn what_takes_ports_away_is_counted() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let pair = Pair::start(&lab, "budget", "40000 40399");
    set(&lab, "ip_local_reserved_ports", "40100-40149,50000");
    let address = lab.client.address(Family::Ipv4);
    let listen = || TcpListener::bind((address, 40_010));
    let listener = lab.client.run(listen).expect("namespace").expect("a free port");
    let _connections = pair.connect_times(0, 100);
    let ports = pair.ports();
    assert_eq!((ports.first, ports.last, ports.reserved, ports.bound), (40_000, 40_399, 50, 1), "{ports:?}");
    assert_eq!(ports.available, 349);

    let inactive = pair.bind(40_013, false);
    let chosen = pair.connect_bound(1, 40_015);
    let ports = pair.ports();
    assert_eq!(ports.bound, 1 + u32::from(ports.bound_complete) + 1, "{ports:?}");
    // A connection that the listener has accepted, with the listener and without.
    let accepted = lab.server.run(|| TcpStream::connect((address, 40_010))).expect("namespace");
    let accepted = (accepted.expect("connecting"), listener.accept().expect("accepting").0);
    assert_eq!(pair.ports().bound, ports.bound);
    drop(listener);
    until("the listener is gone", || pair.ports().bound == ports.bound);
    assert_eq!(pair.budget(0).free, 349 - (ports.bound - 1) - 100);
    assert!(pair.ports().destinations.iter().all(|budget| budget.remote().port() != 0), "{ports:?}");

    // The kernel does not say whether bind() or connect() has chosen a port without a name.
    let any: Vec<_> = (0..5).map(|_| pair.connect_bound(1, 0)).collect();
    assert_eq!(pair.ports().bound, ports.bound + 5);
    let late: Vec<_> = (0..5).map(|_| pair.connect_late(1)).collect();
    until("they are seen", || pair.budget(1).live == 11);
    let bound = pair.ports().bound;
    assert_eq!(bound, ports.bound + 5, "IP_BIND_ADDRESS_NO_PORT leaves the choice to connect()");
    assert_eq!(pair.budget(0).free, 349 - (bound - 1) - 100);

    // A TIME-WAIT keeps a port that bind() took.
    close_from_client((TcpStream::from(chosen.0), chosen.1));
    until("it waits", || pair.budget(1).time_wait == 1);
    assert_eq!(pair.ports().bound, bound);

    // The range moves while the agent runs.
    set(&lab, "ip_local_port_range", "40000 40299");
    assert_eq!(pair.ports().last, 40_299);
    let free = pair.budget(0).free as usize;
    let taken = pair.exhaust(0);
    let hidden = usize::from(!ports.bound_complete);
    assert_eq!(taken.len() + hidden, free, "{:?}", pair.ports());
    drop((inactive, any, late, accepted));
}

#[test]
#[ignore = "needs root"]
fn a_time_wait_is_free_again_where_the_kernel_reuses_it() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let pair = Pair::start(&lab, "reuse", "40000 40099");
    set(&lab, "tcp_tw_reuse", "0");
    pair.connect_times(0, 60).into_iter().for_each(close_from_client);
    until("all are in TIME-WAIT", || pair.budget(0).time_wait == 60);
    let budget = pair.budget(0);
    assert_eq!((budget.reusable, budget.free), (0, 40), "{budget:?}");
    set(&lab, "tcp_tw_reuse", "1");
    until("they are old enough", || pair.budget(0).reusable == 60);
    assert_eq!(pair.budget(0).free, 100);
    let connections = pair.exhaust(0);
    assert_eq!(connections.len(), 100);
    let budget = pair.budget(0);
    assert_eq!((budget.live, budget.time_wait, budget.free), (100, 0, 0), "{budget:?}");

    // Prometheus sees it. The scrape is a connection too.
    let page = pair.agent.scrape();
    let labels = format!("{{local=\"10.9.0.1\",destination=\"{}\"}}", pair.destination(0));
    for series in
        [format!("finwait_ports_used_ratio{labels} 1"), format!("finwait_ports_exhaustion_seconds{labels} 0")]
    {
        assert!(page.lines().any(|line| line.starts_with(&series)), "{series}\n{page}");
    }
    assert!(page.contains("\nfinwait_ports_available 100\n"), "{page}");

    // Where the server closes first, the port is free at once.
    let mut connections = connections.into_iter();
    let (mut client, server) = connections.next().expect("one");
    drop(server);
    assert_eq!(client.read(&mut [0]).expect("reading"), 0, "the server's FIN");
    drop(client);
    until("its port is free", || pair.budget(0).free == 1);
    assert!(pair.budget(0).releasing_per_second > 0.0);
}
