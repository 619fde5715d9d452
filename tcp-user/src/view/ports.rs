//! The budget of local ports: how many a connect() can still choose from, by destination.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::serial::micros;

/// The ports of a network namespace that connect() can choose from, and the destinations that hold some of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ports {
    /// `finwait.ports/1`.
    pub schema: Cow<'static, str>,
    /// Time of the reading.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub as_of: Timestamp,
    /// The first port of `net.ipv4.ip_local_port_range`, which holds for IPv6 too.
    pub first: u16,
    /// The last port of the range.
    pub last: u16,
    /// Number of ports in the range that `net.ipv4.ip_local_reserved_ports` takes out.
    pub reserved: u32,
    /// Number of other ports in the range that bind() has taken: of sockets that listen, of connections that they
    /// have accepted, and of sockets that chose their port. connect() uses such a port for no destination.
    pub bound: u32,
    /// Whether `bound` is complete. `false` where the kernel does not show sockets that are bound and neither
    /// connected nor listening (before Linux 6.8): `bound` is then at least, `free` at most what is given.
    pub bound_complete: bool,
    /// Number of ports for a destination that holds none.
    pub available: u32,
    /// The destinations to which connections of this namespace hold ports of the range.
    pub destinations: Vec<PortBudget>,
}

/// The ports that connections from a local address to one destination hold, and those that are left for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortBudget {
    /// `finwait.port_budget/1`.
    pub schema: Cow<'static, str>,
    /// Local address of the connections.
    pub local_address: IpAddr,
    /// Remote address of the connections.
    pub remote_address: IpAddr,
    /// Remote port of the connections.
    pub remote_port: u16,
    /// Interface whose link the addresses belong to, if they are link-local (fe80::/10).
    pub scope: Option<String>,
    /// Number of ports held by connections in other states than TIME-WAIT.
    pub live: u32,
    /// Number of ports held by connections in TIME-WAIT.
    pub time_wait: u32,
    /// Number of those in TIME-WAIT that connect() may take already, because `net.ipv4.tcp_tw_reuse` permits it and
    /// the connection had timestamps.
    pub reusable: u32,
    /// Number of ports that connect() can choose from at this moment, `reusable` included. A connect() without any
    /// fails with EADDRNOTAVAIL.
    pub free: u32,
    /// Connections that were opened, per second. The rate of the last 10 s or of the last 60 s, whichever is higher,
    /// each from its first connection on.
    pub opening_per_second: f64,
    /// Connections that were closed without a TIME-WAIT at this end, per second, in the same time.
    pub releasing_per_second: f64,
    /// Ports that TIME-WAIT gives back, per second, in the next 10 s.
    pub expiring_per_second: f64,
    /// Time until no port is free if connections go on to open and close at these rates, in ms; `null` if that
    /// would not happen within a day.
    pub exhausted_in_ms: Option<u64>,
}

impl PortBudget {
    /// Remote address and port.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_address, self.remote_port)
    }

    /// Number of ports that connect() could have for the destination if no connection held one.
    pub fn capacity(&self) -> u32 {
        (self.live + self.time_wait + self.free).saturating_sub(self.reusable)
    }
}
