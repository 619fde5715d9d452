//! The record of a connection.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tcp_common::{CloseKind, State};

use super::serial::{ByName, by_name, by_text, known_state, micros};
use super::{Confidence, ConnectionId, Family, Fins, Opener, Role, Roles, Tunnel, schema};

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
    /// TIME-WAIT of the connection; `None` if no end is in it.
    pub time_wait: Option<TimeWait>,
    /// Process that owns the local socket; `None` if there is none or it is unknown.
    pub process: Option<Process>,
}

/// Addresses of a socket: local endpoint, remote endpoint.
pub type SocketPair = (SocketAddr, SocketAddr);

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
    /// Whether the end is on this host.
    pub local: bool,
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
    /// The ends whose FIN was seen.
    pub fins: Fins,
    /// Whether both ends are closed or in TIME-WAIT.
    pub complete: bool,
    /// Time of the first FIN or RST; `None` if it was not seen.
    #[serde(with = "micros::option")]
    #[schemars(with = "Option<Timestamp>")]
    pub started_at: Option<Timestamp>,
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

    /// Both addresses, that of one end first.
    pub fn ends_from(&self, side: Role) -> SocketPair {
        (self.end(side).socket_address(), self.end(side.peer()).socket_address())
    }

    /// The close kind: `open` before the first FIN or RST, `None` if the close was not seen.
    pub fn close_kind(&self) -> Option<CloseKind> {
        self.close.as_ref().map_or(Some(CloseKind::Open), |close| close.kind)
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
