//! One record for both legs of a translated connection.
//!
//! The client is described by the leg nearer to it, the server by the other one, both under the addresses of
//! the original direction.

use tcp_common::table::NO_SLOT;
use tcp_common::{Flow, FlowKey};

use super::Leg;
use crate::agent::shared::Shared;
use crate::kernel::Entry;
use crate::view::describe::{Describer, Location};
use crate::view::{
    Address, Close, CloseInfo, Connection, ConnectionId, EndAddress, IgnoredRst, Nat, NatTuple, Role, Roles,
    TimeWait, TimeWaitEnd, Transition,
};

impl Shared {
    /// The record of a flow for a list of connections. Only the leg nearer the client stands for a translated
    /// connection, unless its flow is not in the table. `None` for the other leg, and for a connection that is
    /// over, unless `all` are listed.
    pub(in crate::agent) fn listed(
        &self,
        describer: &Describer<'_>,
        entry: &Entry,
        all: bool,
    ) -> Option<Connection> {
        let leg = self.translations.leg(&entry.key);
        let other = leg.and_then(|leg| self.entry(&leg.other?));
        if leg.is_some_and(|leg| !leg.is_original) && other.is_some() {
            return None;
        }
        let is_over = entry.flow.is_over() && other.is_none_or(|other| other.flow.is_over());
        (all || !is_over).then(|| self.joined(describer, entry))
    }

    /// The record of a flow, or of a translated connection if the flow is one of its legs.
    pub(in crate::agent) fn joined(&self, describer: &Describer<'_>, entry: &Entry) -> Connection {
        let describe = |entry: &Entry, leg: Option<&Leg>| {
            let describer = Describer { client: leg.map(|leg| leg.client), ..*describer };
            let location = self.names.location(&entry.key, entry.hook, entry.tags);
            let mut connection = describer.connection(&entry.key, &entry.flow, location);
            if let (Some(info), Some(known)) = (&mut connection.reset, self.reset_of(&entry.key, &entry.flow))
            {
                known.complete(info);
            }
            connection
        };
        let Some(leg) = self.translations.leg(&entry.key) else {
            return self.with_hosts(describe(entry, None));
        };
        let own = describe(entry, Some(&leg));
        let other = leg.other.and_then(|key| self.translations.leg(&key).zip(self.entry(&key)));
        let mut joined = match other.map(|(leg, entry)| describe(&entry, Some(&leg))) {
            None => own,
            Some(other) if leg.is_original => join(own, other),
            Some(other) => join(other, own),
        };
        leg.rename(&mut joined);
        self.with_hosts(joined)
    }

    /// The connection with [`ConnectionEnd::on_host`] set.
    fn with_hosts(&self, mut connection: Connection) -> Connection {
        let mut on_host = self.on_host.lock();
        let [client, server] = [Role::Client, Role::Server]
            .map(|side| connection.end(side).local || on_host.contains(connection.socket_of(side).0.ip()));
        (connection.client.on_host, connection.server.on_host) = (client, server);
        connection
    }

    /// Those of a flow's transitions that belong to its connection. With NAT, each end's are those of the leg
    /// nearer to it, if both legs are known, and have the addresses of the original direction.
    pub(in crate::agent) fn joined_transitions(
        &self,
        key: &FlowKey,
        mut transitions: Vec<Transition>,
    ) -> Vec<Transition> {
        let Some(leg) = self.translations.leg(key) else { return transitions };
        transitions.retain(|transition| self.speaks_for(&leg, transition.side));
        for transition in &mut transitions {
            leg.rename_ends(&mut transition.client, &mut transition.server);
        }
        transitions
    }

    /// The end of a TIME-WAIT, unless the other leg of its translated connection is nearer to the end.
    pub(in crate::agent) fn joined_time_wait_end(
        &self,
        key: &FlowKey,
        mut ended: TimeWaitEnd,
    ) -> Option<TimeWaitEnd> {
        let Some(leg) = self.translations.leg(key) else { return Some(ended) };
        leg.rename_ends(&mut ended.client, &mut ended.server);
        self.speaks_for(&leg, ended.holder).then_some(ended)
    }

    /// A RST that was not accepted, unless the other leg of its translated connection is nearer to its sender.
    pub(in crate::agent) fn joined_ignored_rst(
        &self,
        key: &FlowKey,
        mut ignored: IgnoredRst,
    ) -> Option<IgnoredRst> {
        let Some(leg) = self.translations.leg(key) else { return Some(ignored) };
        leg.rename_ends(&mut ignored.client, &mut ignored.server);
        self.speaks_for(&leg, ignored.sender).then_some(ignored)
    }

    /// Whether a leg says what becomes of this end: it is nearer to it, or the other leg is not known.
    fn speaks_for(&self, leg: &Leg, side: Role) -> bool {
        let nearer = if leg.is_original { Role::Client } else { Role::Server };
        side == nearer || leg.other.is_none_or(|key| self.entry(&key).is_none())
    }

    /// Whether the close of a flow is that of its connection: with NAT, of the leg that is done last.
    pub(in crate::agent) fn closes_connection(&self, key: &FlowKey, flow: &Flow) -> bool {
        let Some(leg) = self.translations.leg(key) else { return true };
        let other = leg.other.and_then(|key| self.entry(&key));
        // A FIN that was sent again may have put an end of the other leg back into LAST-ACK, and the leg may have the
        // next connection by now.
        let is_done = |other: &Flow| other.was_finished() || other.opened_ns() > flow.last_ns();
        let is_last = other.is_none_or(|other| is_done(&other.flow));
        is_last && self.translations.claim_close(key, &leg)
    }

    /// The close record of a flow, or of the translated connection that it is a leg of.
    pub(in crate::agent) fn joined_close(&self, key: &FlowKey, flow: &Flow, hook: u32, at_ns: u64) -> Close {
        let client = self.translations.client(key);
        let describer = Describer { client, now_ns: at_ns, ..self.describer() };
        let close = describer.close(key, flow, Location::default(), at_ns);
        let entry = self.changed_entry(key, flow, hook);
        Close { connection: self.joined(&describer, &entry), ..close }
    }

    /// The id of the connection that a flow is the leg nearer the server of: that of the other leg. `None` if
    /// the flow is no such leg, or the other one is not in the table.
    pub(in crate::agent) fn joined_id(&self, key: &FlowKey) -> Option<ConnectionId> {
        let leg = self.translations.leg(key).filter(|leg| !leg.is_original)?;
        let other = self.entry(&leg.other?)?;
        Some(self.describer().id(&other.key, &other.flow))
    }

    /// A flow after a change as an entry of the table. Its VLAN tags are those that the table has now.
    pub(in crate::agent) fn changed_entry(&self, key: &FlowKey, flow: &Flow, hook: u32) -> Entry {
        let tags = self.entry(key).map_or([0; 2], |entry| entry.tags);
        Entry { index: NO_SLOT, key: *key, hook, tags, flow: *flow }
    }

    fn entry(&self, key: &FlowKey) -> Option<Entry> {
        self.table.read(self.table.find(key)?).filter(|entry| entry.key == *key)
    }
}

impl Leg {
    fn original_addresses(&self) -> [EndAddress; 2] {
        let address = |socket: std::net::SocketAddr| EndAddress {
            address: socket.ip(),
            port: socket.port(),
            local: false,
        };
        [address(self.original.0), address(self.original.1)]
    }

    /// Gives both ends the addresses of the original direction.
    fn rename_ends(&self, client: &mut EndAddress, server: &mut EndAddress) {
        let [original_client, original_server] = self.original_addresses();
        *client = EndAddress { local: client.local, ..original_client };
        *server = EndAddress { local: server.local, ..original_server };
    }

    /// Puts the original tuple at the top of a record, and the other one into `nat`.
    fn rename(&self, connection: &mut Connection) {
        let [client, server] = self.original_addresses();
        (connection.client.address, connection.client.port) = (client.address, client.port);
        (connection.server.address, connection.server.port) = (server.address, server.port);
        let (client, server) = self.reply;
        let reply = NatTuple { client: Address::from(client), server: Address::from(server) };
        connection.nat = Some(Nat { reply });
    }
}

/// Joins the record of the leg nearer the client with that of the leg nearer the server.
fn join(near: Connection, far: Connection) -> Connection {
    Connection {
        server: far.server,
        last_seen_at: near.last_seen_at.max(far.last_seen_at),
        close: join_closes(near.close, far.close),
        reset: near.reset.or(far.reset),
        ignored_rst: near.ignored_rst.or(far.ignored_rst),
        time_wait: join_time_waits(near.time_wait, far.time_wait),
        ..near
    }
}

/// The close as the leg nearer the client shows it, if it has begun there; complete if it is so on both legs.
fn join_closes(near: Option<CloseInfo>, far: Option<CloseInfo>) -> Option<CloseInfo> {
    let complete = [&near, &far].iter().all(|close| close.as_ref().is_some_and(|close| close.complete));
    let close = near.or(far)?;
    Some(CloseInfo { complete, ..close })
}

/// Each end's TIME-WAIT, as the leg nearer to it shows it.
fn join_time_waits(near: Option<TimeWait>, far: Option<TimeWait>) -> Option<TimeWait> {
    let near = near.filter(|near| near.holder != Roles::Server);
    let far = far.filter(|far| far.holder != Roles::Client);
    match (near, far) {
        (Some(near), Some(far)) => Some(TimeWait {
            holder: Roles::Both,
            expires_in_ms: near.expires_in_ms.max(far.expires_in_ms),
            restarts: near.restarts + far.restarts,
        }),
        (Some(near), None) => Some(TimeWait { holder: Roles::Client, ..near }),
        (None, Some(far)) => Some(TimeWait { holder: Roles::Server, ..far }),
        (None, None) => None,
    }
}
