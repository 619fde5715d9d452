//! A connection as it stands.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tcp_common::{CloseKind, State};

use super::serial::{by_name, micros};
use super::{Confidence, Family, Fins, Opener, Side, Who, schema};

/// One connection, that is one incarnation of a flow, and the states of both its ends: [`schema::CONNECTION`].
// `remote = "Self"` makes the derive produce inherent functions for the bare fields; the trait puts the schema before
// them, and a close record, which is the same fields under its own schema, leaves it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Connection {
    /// IP version.
    pub family: Family,
    /// Where it was first seen; unknown in captures that do not say.
    pub interface: Option<String>,
    /// Which life of this 4-tuple it is, from 1.
    pub incarnation: u32,
    /// The end that sent the first SYN; guessed if `confidence` is `midstream`.
    pub client: Endpoint,
    /// The other end.
    pub server: Endpoint,
    /// Who sent the first SYN.
    pub opener: Opener,
    /// How far the rest can be trusted.
    pub confidence: Confidence,
    /// When the first SYN was seen; unknown mid-stream.
    #[serde(with = "micros::option")]
    pub opened_at: Option<Timestamp>,
    /// When its last segment was seen.
    #[serde(with = "micros")]
    pub last_seen_at: Timestamp,
    /// From the first SYN to ESTABLISHED at both ends, ms.
    pub handshake_ms: Option<f64>,
    /// How it is being closed or was; `None` while nobody has begun.
    pub close: Option<CloseInfo>,
    /// Who is in TIME-WAIT, if anyone.
    pub time_wait: Option<TimeWait>,
    /// Who owns the socket, if it is on this host and known.
    pub process: Option<Process>,
}

/// Addresses of a socket: local endpoint, remote endpoint.
pub type SocketPair = (SocketAddr, SocketAddr);

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// IP address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// RFC 9293 state.
    #[serde(with = "by_name")]
    pub state: State,
    /// Whether the end's own segments prove the state, and not only what was sent to it.
    pub confirmed: bool,
    /// Whether this end is on this host.
    pub local: bool,
    /// Segments seen from this end.
    pub segments: u64,
    /// Payload octets seen from this end.
    pub bytes: u64,
}

/// How a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseInfo {
    /// In which form; `open` until that is decided, `None` where the deciding segments passed before the agent started.
    #[serde(with = "by_name::option")]
    pub kind: Option<CloseKind>,
    /// Whose FIN came first, causally; `None` if there was none.
    pub closer: Option<Who>,
    /// Who sent the RST that ended it.
    pub aborter: Option<Side>,
    /// Whose FINs were seen.
    pub fins: Fins,
    /// Whether both ends are done, or only wait for TIME-WAIT to pass.
    pub complete: bool,
    /// When the first FIN or RST was seen; `None` if that was before the agent started.
    #[serde(with = "micros::option")]
    pub started_at: Option<Timestamp>,
}

/// TIME-WAIT of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWait {
    /// Who is in it; both after a simultaneous close.
    pub holder: Who,
    /// How long until the last holder leaves it, ms.
    pub expires_in_ms: u64,
    /// How often 2MSL began anew because the last ACK was lost.
    pub restarts: u32,
}

/// The owner of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its command name, at most 15 octets; may hold anything.
    pub comm: String,
    /// The systemd unit it belongs to.
    pub unit: Option<String>,
}

/// What stands for a form of close that was not seen, where people read.
pub const UNSEEN: &str = "unseen";

impl Connection {
    /// One of its ends.
    pub fn end(&self, side: Side) -> &Endpoint {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Both ends, the client first.
    pub fn ends(&self) -> [&Endpoint; 2] {
        [&self.client, &self.server]
    }

    /// Both addresses, that of one end first.
    pub fn ends_from(&self, side: Side) -> SocketPair {
        (self.end(side).socket_address(), self.end(side.peer()).socket_address())
    }

    /// The kind of its close, `open` while nobody has begun; `None` if it was not seen.
    pub fn close_kind(&self) -> Option<CloseKind> {
        self.close.as_ref().map_or(Some(CloseKind::Open), |close| close.kind)
    }

    /// The same in a word.
    pub fn close_word(&self) -> &'static str {
        self.close_kind().map_or(UNSEEN, CloseKind::name)
    }
}

impl Endpoint {
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

/// The schema's name is not looked at: it costs a second pass over every record of a long list, whose header has been
/// checked already.
impl<'de> Deserialize<'de> for Connection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Connection, D::Error> {
        Connection::deserialize(deserializer)
    }
}
