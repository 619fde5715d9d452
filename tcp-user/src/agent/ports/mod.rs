//! How many local ports a connect() can still choose from, by destination.
//!
//! What holds a port is what the kernel says now: settings, sockets and minisockets of this namespace. The flow
//! table adds what the kernel does not say: which end opened a connection and when, which connections are gone
//! already, and which had timestamps.
//!
//! connect() without bind() tries the ports of `ip_local_port_range` that are not reserved (kernel function
//! `__inet_hash_connect`). It takes a port that no socket has, or that only connections to other destinations
//! have, all of them made by connect(). A port that bind() took is in use for every destination, whatever the
//! address or family, until its TIME-WAIT has ended. The port of a TIME-WAIT may be taken again if `tcp_tw_reuse` permits it
//! (`tcp_twsk_unique`).

mod activity;
mod forecast;
mod gauges;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

use jiff::Timestamp;
use tcp_common::flow::{Initiator, end_fact};
use tcp_common::{End, Flow, State};

use super::shared::Shared;
use super::tuple::ends;
use crate::clock::monotonic_ns;
use crate::sockets::{Diag, EphemeralPorts, KernelSocket, PortSet, scope_of, shows_bound_sockets};
use crate::system_error::SystemError;
use crate::view::{PortBudget, Ports, SocketPair, schema};
use activity::Activity;
use forecast::{Rates, seconds_left};
pub(super) use gauges::DestinationSample;
pub use gauges::PortGauges;

/// Why the ports cannot be counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortsError {
    /// A setting of the kernel is not readable.
    #[error("reading which local ports connect() may choose")]
    Settings(#[from] io::Error),
    /// The kernel does not list its sockets.
    #[error(transparent)]
    Sockets(#[from] SystemError),
}

/// Local address with port 0, and remote address.
type Destination = SocketPair;

/// What the flow table says about connections whose local port is in the range.
#[derive(Default)]
struct Flows {
    activity: HashMap<Destination, Activity>,
    /// Connections that the other end opened.
    accepted: HashSet<SocketPair>,
    /// Connections of which both ends sent timestamps.
    with_timestamps: HashSet<SocketPair>,
}

/// What holds the ports of one destination.
#[derive(Default)]
struct Holders {
    live: u32,
    time_wait: u32,
    reusable: u32,
    /// Ports that connect() may not choose for this destination.
    taken: Vec<u16>,
    /// Time until each of the other TIME-WAITs gives its port back, in s.
    waits_s: Vec<f64>,
    /// Whether the kernel gives the port of a TIME-WAIT away before its end.
    is_reused: bool,
}

impl Shared {
    /// Counts the ports of this namespace.
    ///
    /// # Errors
    ///
    /// If the kernel's settings or sockets cannot be read.
    pub(super) fn ports(&self) -> Result<Ports, PortsError> {
        let settings = EphemeralPorts::read()?;
        let mut diag = Diag::open()?;
        let (mut bound, mut chosen, mut sockets) = (PortSet::default(), HashSet::new(), Vec::new());
        diag.with_chosen_ports(&settings.range, |socket| {
            bound.insert(socket.local.port());
            chosen.insert((socket.local, socket.remote));
        })?;
        diag.on_ports(&settings.range, |socket| {
            if matches!(socket.state, State::Closed | State::Listen) {
                bound.insert(socket.local.port());
            } else {
                sockets.push(socket);
            }
        })?;
        let flows = if sockets.is_empty() { Flows::default() } else { self.flows_on(&settings) };
        let pair = |socket: &KernelSocket| (socket.local, socket.remote);
        sockets.retain(|socket| {
            let is_accepted = flows.accepted.contains(&pair(socket));
            if is_accepted {
                bound.insert(socket.local.port());
            }
            !is_accepted
        });
        // The kernel does not say of a TIME-WAIT how its socket got the port.
        let mut before = self.chosen_ports.lock();
        let waits = sockets.iter().filter(|socket| socket.state == State::TimeWait).map(pair);
        chosen.extend(waits.filter(|pair| before.contains(pair)));
        chosen.iter().for_each(|(local, _)| bound.insert(local.port()));
        *before = chosen;
        drop(before);
        Ok(self.describe(&settings, bound, flows, &sockets))
    }

    /// Reads what the flow table says about connections on ports of the range.
    fn flows_on(&self, settings: &EphemeralPorts) -> Flows {
        let (mut flows, now_ns) = (Flows::default(), monotonic_ns());
        for entry in self.table.entries() {
            for end in [End::A, End::B].into_iter().filter(|&end| entry.flow.is_local(end)) {
                let translated = self.translations.socket_of(&entry.key, end);
                let pair = translated.unwrap_or_else(|| ends(&entry.key, end));
                if settings.range.contains(&pair.0.port()) {
                    flows.add(&entry.flow, end, pair, now_ns);
                }
            }
        }
        flows
    }

    fn describe(
        &self,
        settings: &EphemeralPorts,
        mut bound: PortSet,
        mut flows: Flows,
        sockets: &[KernelSocket],
    ) -> Ports {
        let two_msl_ns = self.rules.time_wait_local_ns;
        let mut by_destination: HashMap<Destination, Holders> = HashMap::new();
        for socket in sockets {
            let destination = (without_port(socket.local), socket.remote);
            let activity = flows.activity.entry(destination).or_default();
            let has_timestamps = flows.with_timestamps.contains(&(socket.local, socket.remote));
            let holders = by_destination.entry(destination).or_default();
            holders.add(socket, settings, has_timestamps, two_msl_ns, activity);
        }
        for port in chosen_by_bind(&by_destination, settings, &bound) {
            bound.insert(port);
        }
        let is_bound = |&port: &u16| settings.contains(port) && bound.contains(port);
        let bound_count = settings.range.clone().filter(is_bound).count() as u32;
        let reserved = settings.reserved.count_in(settings.range.clone());
        let available = settings.len() - reserved - bound_count;
        let budget = |(destination, holders): (Destination, Holders)| {
            let taken =
                holders.taken.iter().filter(|&&port| settings.contains(port) && !bound.contains(port));
            let free = available.saturating_sub(taken.count() as u32);
            let rates = flows.activity.get(&destination).map(Activity::rates).unwrap_or_default();
            let reuse_ns = u64::from(settings.reuse_delay_ms) * 1_000_000;
            let hold_ns = if holders.is_reused { reuse_ns.min(two_msl_ns) } else { two_msl_ns };
            holders.budget(destination, free, &rates, hold_ns as f64 / 1e9)
        };
        let mut destinations: Vec<_> = by_destination.into_iter().map(budget).collect();
        destinations.sort_by_key(|budget| {
            (budget.exhausted_in_ms.unwrap_or(u64::MAX), budget.free, budget.local_address, budget.remote())
        });
        Ports {
            schema: Cow::Borrowed(schema::PORTS),
            as_of: Timestamp::now(),
            first: *settings.range.start(),
            last: *settings.range.end(),
            reserved,
            bound: bound_count,
            bound_complete: shows_bound_sockets(),
            available,
            destinations,
        }
    }
}

/// The ports that bind() must have chosen. connect() takes a port with the parity of the first one in the range as
/// long as there is one, bind() to port 0 one with the other parity, so that neither is in the other's way (kernel
/// functions `__inet_hash_connect`, `inet_csk_find_open_port`). There is no other way to distinguish them.
///
/// If fewer than half of the ports that connect() prefers are free for a destination, none may have been when it
/// chose a port.
fn chosen_by_bind(
    by_destination: &HashMap<Destination, Holders>,
    settings: &EphemeralPorts,
    bound: &PortSet,
) -> Vec<u16> {
    let is_preferred = |port: &u16| (port ^ settings.range.start()) & 1 == 0;
    let is_choice = |port: &u16| settings.contains(*port) && !bound.contains(*port);
    let preferred = settings.range.clone().filter(is_choice).filter(is_preferred).count();
    let mut chosen = Vec::new();
    for holders in by_destination.values() {
        let taken = holders.taken.iter().copied().filter(is_choice);
        let (held, other): (Vec<u16>, Vec<u16>) = taken.partition(is_preferred);
        if held.len() < preferred / 2 {
            chosen.extend(other);
        }
    }
    chosen
}

impl Flows {
    /// Adds a flow, seen from an end of this host whose socket has these addresses.
    fn add(&mut self, flow: &Flow, end: End, pair: SocketPair, now_ns: u64) {
        if matches!(flow.initiator(), Initiator::One(other) if other != end) {
            self.accepted.insert(pair);
            return;
        }
        let has_timestamps = |end: End| flow.end(end).facts() & end_fact::TIMESTAMP != 0;
        if has_timestamps(End::A) && has_timestamps(End::B) {
            self.with_timestamps.insert(pair);
        }
        let activity = self.activity.entry((without_port(pair.0), pair.1)).or_default();
        if !flow.is_midstream() && !flow.is_adopted() {
            activity.opened(now_ns.saturating_sub(flow.opened_ns()));
        }
        if flow.state(end) == State::Closed && !flow.end(end).has_left_time_wait() {
            activity.released(now_ns.saturating_sub(flow.last_ns()));
        }
    }
}

impl Holders {
    fn add(
        &mut self,
        socket: &KernelSocket,
        settings: &EphemeralPorts,
        has_timestamps: bool,
        two_msl_ns: u64,
        activity: &mut Activity,
    ) {
        let left_ns = u64::from(socket.expires_ms.unwrap_or(0)) * 1_000_000;
        if socket.state != State::TimeWait {
            self.live += 1;
            self.taken.push(socket.local.port());
            return;
        }
        self.time_wait += 1;
        let age_ns = two_msl_ns.saturating_sub(left_ns);
        activity.waiting(age_ns);
        let is_reused = has_timestamps && settings.permits_reuse(socket);
        self.is_reused |= is_reused;
        let until_reused_ns = (u64::from(settings.reuse_delay_ms) * 1_000_000).saturating_sub(age_ns);
        let until_ns = if is_reused { until_reused_ns.min(left_ns) } else { left_ns };
        if is_reused && until_ns == 0 {
            self.reusable += 1;
        } else {
            self.taken.push(socket.local.port());
            self.waits_s.push(until_ns as f64 / 1e9);
        }
    }

    fn budget(mut self, (local, remote): Destination, free: u32, rates: &Rates, hold_s: f64) -> PortBudget {
        self.waits_s.sort_by(f64::total_cmp);
        let left_s = seconds_left(free, rates, &self.waits_s, hold_s);
        let soon = self.waits_s.partition_point(|&until_s| until_s <= EXPIRING_S);
        PortBudget {
            schema: Cow::Borrowed(schema::PORT_BUDGET),
            local_address: local.ip(),
            remote_address: remote.ip(),
            remote_port: remote.port(),
            scope: scope_of(local),
            live: self.live,
            time_wait: self.time_wait,
            reusable: self.reusable,
            free,
            opening_per_second: rounded(rates.opening),
            releasing_per_second: rounded(rates.releasing),
            expiring_per_second: rounded(soon as f64 / EXPIRING_S),
            exhausted_in_ms: left_s.map(|left_s| (left_s * 1e3) as u64),
        }
    }
}

/// A rate with three decimals.
fn rounded(rate: f64) -> f64 {
    (rate * 1e3).round() / 1e3
}

fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

/// Time in which TIME-WAITs that end count as expiring, in s.
const EXPIRING_S: f64 = 10.0;
