//! A small world of two hosts on one cable, for proofs: network namespaces, a veth pair, real connections closed in
//! many ways, and the kernel's own socket states as the oracle.
//!
//! ```text
//! client 10.9.0.1, fd00:9::1  [veth-client]=====[veth-server]  server 10.9.0.2, fd00:9::2
//! ```
//!
//! Nothing of it is visible outside the process and nothing remains of it, even after SIGKILL: see [`netns`]. It
//! needs CAP_SYS_ADMIN and CAP_NET_ADMIN. It knows nothing of BPF and of the tracker.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tcp_common::State;

pub mod closes;
mod deadline;
mod error;
mod link;
pub mod netns;
mod stage;
mod tap;

pub use closes::{Played, SCENARIOS, Scenario};
pub use error::LabError;
pub use netns::Namespace;
pub use tap::Tap;

pub use crate::sockets::{Diag, KernelSocket};

use link::Links;

/// The client's interface.
pub const CLIENT_INTERFACE: &str = "veth-client";
/// The server's interface.
pub const SERVER_INTERFACE: &str = "veth-server";

/// Two hosts on one cable. Dropping it takes everything away.
#[derive(Debug)]
pub struct Lab {
    /// The host that opens connections.
    pub client: Host,
    /// The host that is connected to.
    pub server: Host,
    ipv6: bool,
}

impl Lab {
    /// Builds both hosts and waits until packets pass between them.
    pub fn new() -> Result<Lab, LabError> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        client.run(|| Links::open()?.create_veth(CLIENT_INTERFACE, SERVER_INTERFACE, &server))??;
        let lab = Lab::of(
            Host::new(client, Side::Client, CLIENT_INTERFACE)?,
            Host::new(server, Side::Server, SERVER_INTERFACE)?,
        );
        for host in [&lab.client, &lab.server] {
            host.run(|| Links::open()?.wait_for_carrier(host.interface))??;
        }
        Ok(lab)
    }

    /// Builds both hosts without a cable: whoever has the two ends (the client's, the server's) carries the frames.
    pub fn uncabled() -> Result<(Lab, [Tap; 2]), LabError> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let taps = [client.run(|| Tap::create(TAP_INTERFACE))??, server.run(|| Tap::create(TAP_INTERFACE))??];
        let lab = Lab::of(
            Host::new(client, Side::Client, TAP_INTERFACE)?,
            Host::new(server, Side::Server, TAP_INTERFACE)?,
        );
        for host in [&lab.client, &lab.server] {
            // What the interface sends is not to be lost before the cable.
            host.run(|| Links::open()?.set_queue_length(TAP_INTERFACE, TAP_QUEUE))??;
        }
        Ok((lab, taps))
    }

    fn of(client: Host, server: Host) -> Lab {
        let ipv6 = client.has_ipv6 && server.has_ipv6;
        Lab { client, server, ipv6 }
    }

    /// The host on this side.
    pub fn host(&self, side: Side) -> &Host {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Whether connections of this family can be made here; IPv4 always can.
    pub fn supports(&self, family: Family) -> bool {
        family == Family::Ipv4 || self.ipv6
    }

    /// The kernel's states of both ends of a connection: client's, server's.
    pub fn states(&self, client: SocketAddr, server: SocketAddr) -> Result<(State, State), LabError> {
        Ok((self.client.state(client, server)?, self.server.state(server, client)?))
    }
}

/// One host of the lab: a namespace with one interface.
#[derive(Debug)]
pub struct Host {
    /// Name of its interface.
    pub interface: &'static str,
    namespace: Namespace,
    side: Side,
    has_ipv6: bool,
    diag: Mutex<Diag>,
}

impl Host {
    fn new(namespace: Namespace, side: Side, interface: &'static str) -> Result<Host, LabError> {
        let (has_ipv6, diag) = namespace.run(|| {
            let mut links = Links::open()?;
            links.add_address(interface, Family::Ipv4.address(side), 24)?;
            let has_ipv6 = match links.add_address(interface, Family::Ipv6.address(side), 64) {
                Err(LabError::NotSupported { .. }) => false,
                outcome => outcome.map(|()| true)?,
            };
            links.set_up(LOOPBACK)?;
            links.set_up(interface)?;
            Ok::<_, LabError>((has_ipv6, Diag::open()?))
        })??;
        Ok(Host { interface, namespace, side, has_ipv6, diag: Mutex::new(diag) })
    }

    /// Runs `work` on a thread of this host: see [`Namespace::run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.namespace.run(work)
    }

    /// The namespace that is this host.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address.
    pub fn address(&self, family: Family) -> IpAddr {
        family.address(self.side)
    }

    /// Every TCP socket its kernel has.
    pub fn sockets(&self) -> Result<Vec<KernelSocket>, LabError> {
        Ok(self.diag(Diag::sockets)?)
    }

    /// Its socket with these ends.
    pub fn socket(&self, local: SocketAddr, remote: SocketAddr) -> Result<Option<KernelSocket>, LabError> {
        Ok(self.diag(|diag| diag.find(local, remote))?)
    }

    /// The state of its socket with these ends; CLOSED if there is none.
    pub fn state(&self, local: SocketAddr, remote: SocketAddr) -> Result<State, LabError> {
        Ok(self.diag(|diag| diag.state(local, remote))?)
    }

    fn diag<T>(&self, ask: impl FnOnce(&mut Diag) -> T) -> T {
        // A panic between question and answer leaves nothing that the next question would not skip.
        ask(&mut self.diag.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One of the two hosts, and its role in every connection of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Sends the first SYN.
    Client,
    /// Answers it.
    Server,
}

impl Side {
    /// The other one.
    pub const fn peer(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// Name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// 10.9.0.0/24
    Ipv4,
    /// fd00:9::/64
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    const fn address(self, side: Side) -> IpAddr {
        let host = match side {
            Side::Client => 1,
            Side::Server => 2,
        };
        match self {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(10, 9, 0, host)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, host as u16)),
        }
    }
}

const LOOPBACK: &str = "lo";
/// The interface of either host where there is no cable.
const TAP_INTERFACE: &str = "tap0";
const TAP_QUEUE: u32 = 20_000;
