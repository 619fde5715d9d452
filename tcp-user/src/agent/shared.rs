//! State that the tasks of the agent share, and the publication of events.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tcp_common::{FlowKey, Rules};
use tokio::sync::broadcast;

use super::change::Change;
use super::interfaces::InterfaceNames;
use super::own::OwnConnections;
use super::slot_cache::StateGauges;
use super::totals::{Snapshot, Totals};
use crate::clock::{Clock, monotonic_ns};
use crate::kernel::{Kernel, KernelError, Table};
use crate::view;
use crate::view::describe::{Describer, Location};

/// State that the tasks of the agent share.
pub struct Shared {
    /// The loaded programs; locked to attach, to change settings and to read counters.
    pub kernel: Mutex<Kernel>,
    /// The flow table.
    pub table: Arc<Table>,
    /// The rules in force.
    pub rules: Rules,
    /// Counters of the agent.
    pub totals: Mutex<Totals>,
    /// State gauges, as of the last scan.
    pub gauges: Mutex<StateGauges>,
    /// Set after flows in the table were changed without an event. The next scan finds them.
    pub unseen_changes: AtomicBool,
    /// Relation of the kernel programs' clock to wall time.
    pub clock: Mutex<Clock>,
    /// Names of interfaces.
    pub names: InterfaceNames,
    /// The agent's own connections.
    pub own: OwnConnections,
    /// Subscribers of `/events`.
    pub watchers: broadcast::Sender<WatchEvent>,
}

/// An event with its connection, to which subscribers apply their filters.
#[derive(Clone)]
pub struct WatchEvent {
    /// The connection after the event.
    pub connection: Arc<view::Connection>,
    /// The event.
    pub event: view::EventRecord,
}

impl Shared {
    /// Reads all counters and gauges.
    pub fn snapshot(&self) -> Result<Snapshot, KernelError> {
        let kernel = self.kernel.lock();
        let (counters, programs) = (kernel.counters()?, kernel.program_runs()?);
        drop(kernel);
        let totals = self.totals.lock().clone();
        let StateGauges { endpoints, used } = self.gauges.lock().clone();
        let table_capacity = self.table.capacities().map(u64::from);
        let own = self.own.accepted();
        Ok(Snapshot { counters, totals, own, endpoints, table_used: used, table_capacity, programs })
    }

    /// A describer for the present time.
    pub fn describer(&self) -> Describer<'_> {
        Describer { rules: &self.rules, clock: *self.clock.lock(), now_ns: monotonic_ns() }
    }

    /// Where a flow was seen, at this hook and in which VLANs.
    pub(super) fn location(&self, key: &FlowKey, hook: u32) -> Location {
        let entry = self.table.find(key).and_then(|index| self.table.read(index));
        let tags = entry.filter(|entry| entry.key == *key).map_or([0; 2], |entry| entry.tags);
        self.names.location(key, hook, tags)
    }

    /// Sends the transitions of a change to the subscribers of `/events`.
    pub(super) fn publish_transitions(&self, change: &Change<'_>) {
        if self.watchers.receiver_count() == 0 || self.own.includes(change.key, change.flow) {
            return;
        }
        let (describer, &Change { key, flow, hook, at_ns, from, to, cause }) = (self.describer(), change);
        let location = self.location(key, hook);
        let transitions =
            describer.transitions(key, flow, location.scope.as_deref(), at_ns, (from, to), cause);
        if transitions.is_empty() {
            return;
        }
        let connection = Arc::new(describer.connection(key, flow, location));
        for transition in transitions {
            // Fails if the last subscriber has gone.
            let _ = self
                .watchers
                .send(WatchEvent { connection: Arc::clone(&connection), event: transition.into() });
        }
    }
}
