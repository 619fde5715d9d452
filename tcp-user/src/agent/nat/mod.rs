//! Connections that this host translates (DNAT, SNAT, masquerade), as conntrack knows them.
//!
//! A translated connection is up to two flows on the wire, its *legs*: the one nearer the client has the tuple
//! of the original direction, the one nearer the server that of the reply direction. Which ends are local
//! follows from where their sockets are: the client's at the source of the original direction, the server's
//! at the source of the reply direction. The address of a leg alone does not say it: a published port of a
//! container is an address of the host, and no socket of the host has it.
//!
//! The host translates what its own sockets send before an interface sends it, and what they receive after an
//! interface received it. So a connection of a local socket has one leg only: the one nearer the other end. The
//! tuple of the missing leg may be that of another connection on the wire: two connections with equal tuples before
//! or after translation get different ones by it.
//!
//! Conntrack is asked once for each connection, when its open is counted, or its close if it never opened.
//! It is asked only while it tracks connections in this namespace, so that no module is loaded.

mod join;

use std::collections::HashMap;
use std::iter;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tcp_common::{End, FlowKey};

use super::tuple::{ends, key};
use crate::clock::monotonic_ns;
use crate::kernel::Table;
use crate::sockets::{ConntrackLookup, Tracked, is_conntrack_in_use};
use crate::view::SocketPair;

/// Translated connections whose flows are in the table.
#[derive(Default)]
pub struct Translations {
    legs: RwLock<HashMap<FlowKey, Leg>>,
    conntrack: Mutex<ConntrackLookup>,
    /// Until when conntrack is taken to track nothing, ns: reading that for each open would cost more than all else
    /// that an open costs.
    unused_until_ns: AtomicU64,
}

/// One flow of a translated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leg {
    /// Client and server as the client's packets have them: the tuple of the original direction.
    original: SocketPair,
    /// Client and server as the server's packets have them: the tuple of the reply direction, reversed.
    reply: SocketPair,
    /// Whether it is the leg of the original direction.
    is_original: bool,
    /// Key of the connection's other leg.
    other: Option<FlowKey>,
    /// The client's end in the leg's key.
    client: End,
    learned_at: Instant,
    /// Whether the close of the connection was published.
    is_closed: bool,
}

impl Leg {
    /// The legs of a connection that pass interfaces, each with its key. `is_local` is true for the addresses of this
    /// namespace.
    fn on_the_wire(
        tracked: &Tracked,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = (FlowKey, Leg)> {
        let (original, reply) = (tracked.original, (tracked.reply.1, tracked.reply.0));
        let [client_is_local, server_is_local] = [original.0, reply.1].map(|socket| is_local(socket.ip()));
        let legs = [(original, true, !client_is_local), (reply, false, client_is_local || !server_is_local)];
        let is_only = client_is_local || server_is_local;
        legs.into_iter().filter(|(.., is_on_the_wire)| *is_on_the_wire).map(move |(tuple, is_original, _)| {
            let (key, client) = key(tuple);
            let other = (!is_only).then(|| self::key(if is_original { reply } else { original }).0);
            let learned_at = Instant::now();
            (key, Leg { original, reply, is_original, other, client, learned_at, is_closed: false })
        })
    }

    /// Addresses of an end's socket: its own first.
    fn socket_of(&self, end: End) -> SocketPair {
        if end == self.client { self.original } else { (self.reply.1, self.reply.0) }
    }
}

impl Translations {
    /// Asks conntrack whether it translates a flow, unless it has just been asked. `client` is the end that
    /// probably opened the connection, `is_local` is true for the addresses of this namespace. Returns whether
    /// conntrack has the flow, and does not translate it.
    pub(super) fn ask(&self, key: &FlowKey, client: End, is_local: impl Fn(IpAddr) -> bool) -> bool {
        let is_new = |leg: &Leg| leg.learned_at.elapsed() < FRESH && !leg.is_closed;
        if !self.is_in_use() || self.legs.read().get(key).is_some_and(is_new) {
            return false;
        }
        // The packets of the leg nearer the client have the tuple of the original direction; those of the
        // other leg, in the direction of the client, that of the reply direction.
        for source in [client, client.peer()] {
            let (source, destination) = ends(key, source);
            match self.conntrack.lock().find(source, destination) {
                Ok(Some(tracked)) if !tracked.is_translated() => {
                    self.forget(key);
                    return true;
                }
                Ok(Some(tracked)) if Leg::on_the_wire(&tracked, &is_local).any(|(leg, _)| leg == *key) => {
                    self.legs.write().extend(Leg::on_the_wire(&tracked, &is_local));
                    return false;
                }
                // None, or a connection whose packets have other addresses on the wire.
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!("asking conntrack about {source}: {error}");
                    return false;
                }
            }
        }
        false
    }

    /// Whether conntrack tracks any connection.
    fn is_in_use(&self) -> bool {
        let now_ns = monotonic_ns();
        if now_ns < self.unused_until_ns.load(Relaxed) {
            return false;
        }
        let in_use = is_conntrack_in_use();
        if !in_use {
            self.unused_until_ns.store(now_ns + UNUSED_NS, Relaxed);
        }
        in_use
    }

    /// Notes that a flow is not translated.
    fn forget(&self, key: &FlowKey) {
        if !self.legs.read().is_empty() {
            self.legs.write().remove(key);
        }
    }

    /// The client's end of a translated flow.
    pub(super) fn client(&self, key: &FlowKey) -> Option<End> {
        Some(self.leg(key)?.client)
    }

    /// Whether a flow is known to be translated.
    pub(super) fn is_translated(&self, key: &FlowKey) -> bool {
        self.leg(key).is_some()
    }

    fn leg(&self, key: &FlowKey) -> Option<Leg> {
        let legs = self.legs.read();
        if legs.is_empty() { None } else { legs.get(key).copied() }
    }

    /// Which ends of a translated flow are local, A first. `is_local` is true for the addresses of this
    /// namespace.
    pub(super) fn locality(&self, key: &FlowKey, is_local: impl Fn(IpAddr) -> bool) -> Option<[bool; 2]> {
        let leg = self.leg(key)?;
        Some([End::A, End::B].map(|end| is_local(leg.socket_of(end).0.ip())))
    }

    /// Addresses of the socket of an end of a translated flow: its own first.
    pub(super) fn socket_of(&self, key: &FlowKey, end: End) -> Option<SocketPair> {
        Some(self.leg(key)?.socket_of(end))
    }

    /// Marks a connection as closed. Returns `false` if it was marked before.
    fn claim_close(&self, key: &FlowKey, leg: &Leg) -> bool {
        let mut legs = self.legs.write();
        let mut is_first = true;
        for key in iter::once(*key).chain(leg.other) {
            if let Some(leg) = legs.get_mut(&key) {
                is_first &= !std::mem::replace(&mut leg.is_closed, true);
            }
        }
        is_first
    }

    /// Forgets the connections that have no flow in the table any more.
    pub(super) fn forget_missing(&self, table: &Table) {
        if !self.legs.read().is_empty() {
            let is_there = |key: &FlowKey| table.find(key).is_some();
            self.legs.write().retain(|key, leg| is_there(key) || leg.other.as_ref().is_some_and(is_there));
        }
    }
}

/// Time for which conntrack is taken to track nothing after it did not, ns. A connection that opens within this time of
/// the first one that conntrack tracks is counted by its addresses alone.
const UNUSED_NS: u64 = 100_000_000;

/// Time for which an answer holds for both legs of a new connection.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
