//! The record of a connection.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tcp_common::{CloseKind, State};

use super::serial::{ByName, by_name, by_text, known_state, micros};
use super::{Confidence, ConnectionId, Family, Fins, Opener, ResetInfo, Role, Roles, Tunnel, schema};

/// One connection (one incarnation of a flow) and the states of both its ends.
// `remote = "Self"` makes the derive produce inherent functions for the bare fields; the trait puts the
// schema before them, and a close record, which is the same fields under its own schema, leaves it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub struct Connection {
    /// IP version of both addresses.
    pub family: Family,
    /// Interface on which the connection was first seen; `None` if a capture does not name it.
    pub interface: Option<String>,
    /// Interface whose link the addresses belong to, if they are link-local (fe80::/10).
    #[serde(default)]
    pub scope: Option<String>,
    /// Outermost tunnel around the connection's packets; `None` without a tunnel. Only `finwait replay` looks
    /// into tunnels.
    pub tunnel: Option<Tunnel>,
    /// Number of this use of the same addresses and ports, from 1.
    pub incarnation: u32,
    /// Id of the connection: the same in all of its records, and in those of no other connection.
    #[serde(with = "by_text")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{16}$"))]
    pub id: ConnectionId,
    /// The end that sent the first SYN. It is a guess if `confidence` is `midstream`.
    pub client: ConnectionEnd,
    /// The other end.
    pub server: ConnectionEnd,
    /// The end that sent the first SYN, if it was seen.
    pub opener: Opener,
    /// How complete the observation is, and so how reliable the record.
    pub confidence: Confidence,
    /// Time of the first SYN; `None` if it was not seen.
    #[serde(with = "micros::option")]
    #[schemars(with = "Option<Timestamp>")]
    pub opened_at: Option<Timestamp>,
    /// Time of the last segment.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub last_seen_at: Timestamp,
    /// Time from the first SYN until both ends were ESTABLISHED, in ms.
    pub handshake_ms: Option<f64>,
    /// How the connection is being closed or was closed; `None` before the first FIN or RST.
    pub close: Option<CloseInfo>,
    /// Why the connection or its TIME-WAIT was reset; `None` if it was not.
    #[serde(default)]
    pub reset: Option<ResetInfo>,
    /// Why the latest RST that was not accepted was not; `None` if there was none. It may have been forged.
    #[serde(default)]
    pub ignored_rst: Option<Cow<'static, str>>,
    /// TIME-WAIT of the connection; `None` if no end is in it.
    pub time_wait: Option<TimeWait>,
    /// The other tuple of a connection that this host translates (NAT); `None` if it does not, as far as is
    /// known. `client` and `server` have the tuple of the original direction.
    #[serde(default)]
    pub nat: Option<Nat>,
    /// Process that owns the local socket; `None` if there is none or it is unknown.
    pub process: Option<Process>,
}

/// Addresses of a socket: local endpoint, remote endpoint.
pub type SocketPair = (SocketAddr, SocketAddr);

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// IP address. IPv4 on an IPv6 socket is written as IPv4.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address { address: address.ip(), port: address.port() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> SocketAddr {
        SocketAddr::new(address.address, address.port)
    }
}

/// How this host translates a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nat {
    /// The tuple that the server's packets have.
    pub reply: NatTuple,
}

/// Addresses and ports of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NatTuple {
    /// The client as the server knows it.
    pub client: Address,
    /// The server by its own address.
    pub server: Address,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionEnd {
    /// IP address of the end.
    pub address: IpAddr,
    /// TCP port of the end.
    pub port: u16,
    /// RFC 9293 state of the end; `None` while no segment of the end was accepted and none that it must have
    /// sent is known. It is `listen` only if the end's socket is known to listen.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub state: State,
    /// Whether the end's own segments, or its socket, confirm the state. If not, it follows from segments sent
    /// to the end.
    pub confirmed: bool,
    /// Whether the end is in the agent's network namespace.
    pub local: bool,
    /// Whether the end is on this host: local, or in another namespace (a container, a pod).
    #[serde(default)]
    pub on_host: bool,
    /// VLAN ids of the end's packets, outermost first, at most two; `None` without a tag.
    #[serde(default)]
    pub vlan: Option<Vec<u16>>,
    /// Number of segments from this end.
    pub segments: u64,
    /// Payload bytes from this end.
    pub bytes: u64,
}

/// How a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloseInfo {
    /// Close kind; `open` until it is decided, `None` if the agent started while the connection was closing.
    #[serde(with = "by_name::option")]
    #[schemars(with = "Option<ByName<CloseKind>>")]
    pub kind: Option<CloseKind>,
    /// The end that closed first: it sent its FIN before it had received one. `None` without a FIN.
    pub closer: Option<Roles>,
    /// The end whose RST ended the connection; `None` without such a RST.
    pub aborter: Option<Role>,
    /// The ICMP error that ended the connection attempt; `None` without one.
    pub icmp: Option<IcmpMessage>,
    /// The ends whose FIN was seen.
    pub fins: Fins,
    /// Whether both FINs were sent and acknowledged.
    pub complete: bool,
    /// Time of the first FIN or RST; `None` if it was not seen.
    #[serde(with = "micros::option")]
    #[schemars(with = "Option<Timestamp>")]
    pub started_at: Option<Timestamp>,
}

/// Type and code of an ICMP message (RFC 792), or of ICMPv6 (RFC 4443) for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IcmpMessage {
    /// Type: 3 is destination unreachable, in IPv6 1.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code: 3 is port unreachable, in IPv6 4.
    pub code: u8,
}

impl fmt::Display for IcmpMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.code)
    }
}

/// TIME-WAIT of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWait {
    /// The end in TIME-WAIT; both after a simultaneous close.
    pub holder: Roles,
    /// Time until TIME-WAIT ends at the last end, in ms.
    pub expires_in_ms: u64,
    /// Number of times that TIME-WAIT was restarted because the last ACK was lost.
    pub restarts: u32,
}

/// The owner of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Command name, at most 15 bytes. It may contain any character.
    pub comm: String,
    /// Systemd unit of the process.
    pub unit: Option<String>,
}

/// The close kind that people read if the kind was not seen.
pub const UNSEEN: &str = "unseen";

impl Connection {
    /// One of its ends.
    pub fn end(&self, side: Role) -> &ConnectionEnd {
        match side {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    /// Both ends, the client first.
    pub fn ends(&self) -> [&ConnectionEnd; 2] {
        [&self.client, &self.server]
    }

    /// The end that `src` means, as in `ss`: the local one, or the client if both or neither are local.
    pub fn source(&self) -> Role {
        if self.server.local && !self.client.local { Role::Server } else { Role::Client }
    }

    /// Both addresses, that of one end first.
    pub fn ends_from(&self, side: Role) -> SocketPair {
        (self.end(side).socket_address(), self.end(side.peer()).socket_address())
    }

    /// Addresses of an end's socket, its own first: without NAT, those that its packets have.
    pub fn socket_of(&self, side: Role) -> SocketPair {
        match (self.nat, side) {
            (Some(Nat { reply }), Role::Server) => (reply.server.into(), reply.client.into()),
            _ => self.ends_from(side),
        }
    }

    /// Addresses by which an end is known: one, or with NAT that of each tuple.
    pub fn addresses_of(&self, side: Role) -> impl Iterator<Item = SocketAddr> {
        let translated = self.nat.map(|Nat { reply }| match side {
            Role::Client => reply.client.into(),
            Role::Server => reply.server.into(),
        });
        let own = self.end(side).socket_address();
        std::iter::once(own).chain(translated.filter(move |&other| other != own))
    }

    /// The close kind: `open` before the first FIN or RST, `None` if the close was not seen.
    pub fn close_kind(&self) -> Option<CloseKind> {
        self.close.as_ref().map_or(Some(CloseKind::Open), |close| close.kind)
    }

    /// Whether the close has begun and is not complete: an end is neither in TIME-WAIT nor CLOSED.
    pub fn is_closing(&self) -> bool {
        let is_done = |end: &ConnectionEnd| matches!(end.state, State::TimeWait | State::Closed);
        self.close.is_some() && !self.ends().into_iter().all(is_done)
    }

    /// The close kind as a word: [`UNSEEN`] if the close was not seen.
    pub fn close_word(&self) -> &'static str {
        self.close_kind().map_or(UNSEEN, CloseKind::name)
    }
}

impl ConnectionEnd {
    /// Address and port together.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

#[derive(Serialize)]
struct WithSchema<'a> {
    schema: &'static str,
    #[serde(flatten, with = "Connection")]
    connection: &'a Connection,
}

impl Serialize for Connection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WithSchema { schema: schema::CONNECTION, connection: self }.serialize(serializer)
    }
}

/// Ignores the name of the schema: checking it would take a second pass over every record of a long list.
impl<'de> Deserialize<'de> for Connection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Connection, D::Error> {
        Connection::deserialize(deserializer)
    }
}
