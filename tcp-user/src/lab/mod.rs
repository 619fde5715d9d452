//! A test network of two hosts: network namespaces, a veth pair, real connections closed in many ways, and
//! the kernel's own socket states to compare with.
//!
//! ```text
//! client 10.9.0.1, fd00:9::1  [veth-client]=====[veth-server]  server 10.9.0.2, fd00:9::2
//! ```
//!
//! The network is visible only inside the process and disappears with it, even after SIGKILL: see [`netns`].
//! It needs CAP_SYS_ADMIN and CAP_NET_ADMIN. It uses neither BPF nor the state machine.

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
use crate::system_error::SystemError;
pub use crate::view::{Family, Role};

use link::Links;

/// Name of the client's interface.
pub const CLIENT_INTERFACE: &str = "veth-client";
/// Name of the server's interface.
pub const SERVER_INTERFACE: &str = "veth-server";

/// Two hosts on one link. Dropping it removes both hosts and the link.
#[derive(Debug)]
pub struct Lab {
    /// The host that opens connections.
    pub client: Host,
    /// The host that accepts connections.
    pub server: Host,
    ipv6: bool,
}

impl Lab {
    /// Builds both hosts on a veth pair and waits until packets pass between them.
    pub fn new() -> Result<Lab, LabError> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        client.run(|| Links::open()?.create_veth(CLIENT_INTERFACE, SERVER_INTERFACE, &server))??;
        let lab = Lab::of(
            Host::new(client, Role::Client, CLIENT_INTERFACE)?,
            Host::new(server, Role::Server, SERVER_INTERFACE)?,
        );
        for host in [&lab.client, &lab.server] {
            host.run(|| Links::open()?.wait_for_carrier(host.interface))??;
        }
        Ok(lab)
    }

    /// Builds both hosts without a link. The caller forwards frames between the two TAP devices: the
    /// client's, the server's.
    pub fn with_taps() -> Result<(Lab, [Tap; 2]), LabError> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let taps = [client.run(|| Tap::create(TAP_INTERFACE))??, server.run(|| Tap::create(TAP_INTERFACE))??];
        let lab = Lab::of(
            Host::new(client, Role::Client, TAP_INTERFACE)?,
            Host::new(server, Role::Server, TAP_INTERFACE)?,
        );
        for host in [&lab.client, &lab.server] {
            // A short queue would drop frames before they reach the TAP device.
            host.run(|| Links::open()?.set_queue_length(TAP_INTERFACE, TAP_QUEUE))??;
        }
        Ok((lab, taps))
    }

    fn of(client: Host, server: Host) -> Lab {
        let ipv6 = client.has_ipv6 && server.has_ipv6;
        Lab { client, server, ipv6 }
    }

    /// The host in this role.
    pub fn host(&self, side: Role) -> &Host {
        match side {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    /// Whether connections of this family can be made. IPv4 always works.
    pub fn supports(&self, family: Family) -> bool {
        family == Family::Ipv4 || self.ipv6
    }

    /// The families of which connections can be made, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.iter().copied().filter(|&family| self.supports(family))
    }

    /// The states of both ends of a connection by their kernels: the client's, the server's.
    pub fn states(&self, client: SocketAddr, server: SocketAddr) -> Result<(State, State), LabError> {
        Ok((self.client.state(client, server)?, self.server.state(server, client)?))
    }
}

/// A host: a network namespace with one interface.
#[derive(Debug)]
pub struct Host {
    /// Name of the host's interface.
    pub interface: &'static str,
    namespace: Namespace,
    side: Role,
    has_ipv6: bool,
    diag: Mutex<Diag>,
}

impl Host {
    fn new(namespace: Namespace, side: Role, interface: &'static str) -> Result<Host, LabError> {
        let (has_ipv6, diag) = namespace.run(|| {
            let mut links = Links::open()?;
            links.add_address(interface, address(Family::Ipv4, side), 24)?;
            let has_ipv6 = match links.add_address(interface, address(Family::Ipv6, side), 64) {
                Err(LabError::System(SystemError::NotSupported { .. })) => false,
                outcome => outcome.map(|()| true)?,
            };
            links.set_up(LOOPBACK)?;
            links.set_up(interface)?;
            Ok::<_, LabError>((has_ipv6, Diag::open()?))
        })??;
        Ok(Host { interface, namespace, side, has_ipv6, diag: Mutex::new(diag) })
    }

    /// Runs `work` on a thread inside this host: see [`Namespace::run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.namespace.run(work)
    }

    /// The host's network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The host's address of this family.
    pub fn address(&self, family: Family) -> IpAddr {
        address(family, self.side)
    }

    /// Every TCP socket of the host.
    pub fn sockets(&self) -> Result<Vec<KernelSocket>, LabError> {
        Ok(self.diag(Diag::sockets)?)
    }

    /// The host's socket with these addresses.
    pub fn socket(&self, local: SocketAddr, remote: SocketAddr) -> Result<Option<KernelSocket>, LabError> {
        Ok(self.diag(|diag| diag.find(local, remote))?)
    }

    /// The state of the host's socket with these addresses. CLOSED if there is none.
    pub fn state(&self, local: SocketAddr, remote: SocketAddr) -> Result<State, LabError> {
        Ok(self.diag(|diag| diag.state(local, remote))?)
    }

    fn diag<T>(&self, ask: impl FnOnce(&mut Diag) -> T) -> T {
        // A request that panicked leaves only replies that the next request skips.
        ask(&mut self.diag.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsRef<Namespace> for Host {
    fn as_ref(&self) -> &Namespace {
        &self.namespace
    }
}

/// 10.9.0.0/24 and fd00:9::/64: host 1 is the client, host 2 the server.
const fn address(family: Family, side: Role) -> IpAddr {
    let host = match side {
        Role::Client => 1,
        Role::Server => 2,
    };
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(10, 9, 0, host)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, host as u16)),
    }
}

const LOOPBACK: &str = "lo";
/// Name of either host's interface where a TAP device replaces the link.
const TAP_INTERFACE: &str = "tap0";
/// Frames.
const TAP_QUEUE: u32 = 20_000;
