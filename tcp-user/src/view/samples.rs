//! Connections for the tests of this crate.

use jiff::Timestamp;

use super::*;

/// `minutes` and `seconds` after ten o'clock on the day of the samples.
pub(crate) fn at(minutes: i64, seconds: f64) -> Timestamp {
    let base: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    base + jiff::SignedDuration::from_micros(minutes * 60_000_000 + (seconds * 1e6).round() as i64)
}

/// The example of the documentation: an HTTP request whose client closed first, and waits.
pub(crate) fn time_wait() -> Connection {
    Connection {
        family: Family::Ipv4,
        interface: Some("eth0".into()),
        scope: None,
        tunnel: None,
        incarnation: 1,
        id: "0f3a5b7c9d1e2f40".parse().unwrap(),
        client: ConnectionEnd {
            address: "10.9.0.1".parse().unwrap(),
            port: 43210,
            state: State::TimeWait,
            confirmed: true,
            local: true,
            on_host: true,
            vlan: None,
            segments: 6,
            bytes: 120,
        },
        server: ConnectionEnd {
            address: "10.9.0.2".parse().unwrap(),
            port: 80,
            state: State::Closed,
            confirmed: false,
            local: false,
            on_host: false,
            vlan: None,
            segments: 5,
            bytes: 512,
        },
        opener: Opener::Client,
        confidence: Confidence::Exact,
        opened_at: Some(at(46, 21.120417)),
        last_seen_at: at(46, 21.480003),
        handshake_ms: Some(0.31),
        close: Some(CloseInfo {
            kind: Some(CloseKind::Fin4Seg),
            closer: Some(Roles::Client),
            aborter: None,
            icmp: None,
            fins: Fins::Both,
            complete: true,
            started_at: Some(at(46, 21.470118)),
        }),
        reset: None,
        ignored_rst: None,
        time_wait: Some(TimeWait { holder: Roles::Client, expires_in_ms: 59210, restarts: 0 }),
        nat: None,
        process: Some(Process { pid: 4242, comm: "curl".into(), unit: None }),
    }
}

/// The connection of [`time_wait`], imported from its socket after the close.
pub(crate) fn older() -> Connection {
    let mut connection = time_wait();
    connection.confidence = Confidence::Midstream;
    connection.opened_at = None;
    connection.handshake_ms = None;
    if let Some(close) = &mut connection.close {
        close.kind = None;
        close.started_at = None;
    }
    connection
}

/// A connection over IPv6, first seen midstream and not closed; the server is on this host.
pub(crate) fn established() -> Connection {
    let mut connection = time_wait();
    connection.family = Family::Ipv6;
    connection.interface = None;
    connection.client.address = "2001:db8::17".parse().unwrap();
    connection.client.state = State::Established;
    (connection.client.local, connection.client.on_host) = (false, false);
    connection.server.address = "2001:db8::1".parse().unwrap();
    connection.server.port = 443;
    connection.server.state = State::Established;
    connection.server.confirmed = true;
    (connection.server.local, connection.server.on_host) = (true, true);
    connection.opener = Opener::Unknown;
    connection.confidence = Confidence::Midstream;
    connection.opened_at = None;
    connection.handshake_ms = None;
    connection.close = None;
    connection.time_wait = None;
    connection.process =
        Some(Process { pid: 7, comm: "evil\u{1b}[31m \"x\",y".into(), unit: Some("nginx.service".into()) });
    connection
}

/// The peer has sent its FIN, the local server leaks CLOSE-WAIT.
pub(crate) fn close_wait() -> Connection {
    let mut connection = established();
    connection.confidence = Confidence::Exact;
    connection.opener = Opener::Client;
    connection.opened_at = Some(at(40, 0.0));
    connection.client.state = State::FinWait2;
    connection.client.confirmed = false;
    connection.server.state = State::CloseWait;
    connection.close = Some(CloseInfo {
        kind: Some(CloseKind::Open),
        closer: Some(Roles::Client),
        aborter: None,
        icmp: None,
        fins: Fins::Client,
        complete: false,
        started_at: Some(at(41, 0.0)),
    });
    connection.process = None;
    connection
}

/// The close record of [`time_wait`].
pub(crate) fn close() -> Close {
    Close {
        connection: time_wait(),
        revision: 1,
        closed_at: Some(at(46, 21.480003)),
        durations_ms: Durations {
            handshake: Some(0.31),
            established: Some(349.4),
            closing: Some(9.885),
            time_wait: None,
        },
    }
}

/// The client of [`time_wait`] sends its FIN.
pub(crate) fn transition() -> Transition {
    let connection = time_wait();
    Transition {
        at: at(46, 21.470118),
        scope: None,
        client: EndAddress::from(&connection.client),
        server: EndAddress::from(&connection.server),
        incarnation: 1,
        id: connection.id,
        side: Role::Client,
        from: State::Established,
        to: State::FinWait1,
        cause: tcp_common::Cause::Fin.name().into(),
    }
}

/// The end of its TIME-WAIT.
pub(crate) fn time_wait_end() -> TimeWaitEnd {
    let Transition { scope, client, server, incarnation, id, .. } = transition();
    TimeWaitEnd {
        at: at(47, 21.480003),
        scope,
        client,
        server,
        incarnation,
        id,
        holder: Role::Client,
        ending: TimeWaitEnding::Expired,
        duration_ms: 60000.0,
        restarts: 0,
    }
}

/// A blind RST that seems to come from the server of [`time_wait`].
pub(crate) fn ignored_rst() -> IgnoredRst {
    let Transition { scope, client, server, incarnation, id, .. } = transition();
    let cause = tcp_common::Cause::RstOutOfWindow.name().into();
    IgnoredRst { at: at(46, 21.2), scope, client, server, incarnation, id, sender: Role::Server, cause }
}

/// An event of each kind. After a reset that was taken back, the connection of [`time_wait`] closes for good.
pub(crate) fn events() -> Vec<EventRecord> {
    let Transition { scope, client, server, incarnation, id, .. } = transition();
    let reason = ReopenReason::DataAcknowledged;
    let reopened = Reopened { at: at(46, 21.3), scope, client, server, incarnation, id, reason };
    let closed_again = Close { revision: 2, ..close() };
    let time_wait_end = TimeWaitEnd { restarts: 1, ..time_wait_end() };
    vec![
        reopened.into(),
        transition().into(),
        closed_again.into(),
        Lost { events: 7 }.into(),
        ignored_rst().into(),
        time_wait_end.into(),
    ]
}

/// A range of 100 ports of which two are bound, one destination that runs out and one that does not.
pub(crate) fn ports() -> Ports {
    let budget = |remote_port, live, time_wait, exhausted_in_ms| PortBudget {
        schema: schema::PORT_BUDGET.into(),
        local_address: "10.9.0.1".parse().unwrap(),
        remote_address: "10.9.0.2".parse().unwrap(),
        remote_port,
        scope: None,
        live,
        time_wait,
        reusable: 1,
        free: 99 - live - time_wait,
        opening_per_second: 1.25,
        releasing_per_second: 0.5,
        expiring_per_second: 0.0,
        exhausted_in_ms,
    };
    Ports {
        schema: schema::PORTS.into(),
        as_of: at(47, 0.0),
        first: 40_000,
        last: 40_099,
        reserved: 0,
        bound: 2,
        bound_complete: true,
        available: 98,
        destinations: vec![budget(443, 40, 50, Some(12_500)), budget(80, 1, 2, None)],
    }
}
