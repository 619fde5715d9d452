//! What the tasks of the agent share, and what is said with it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tcp_common::Rules;
use tokio::sync::broadcast;

use super::change::Change;
use super::interfaces::InterfaceNames;
use super::lock::lock;
use super::slot_cache::StateGauges;
use super::totals::{Snapshot, Totals};
use crate::clock::{Clock, monotonic_ns};
use crate::kernel::{Kernel, Table};
use crate::view;
use crate::view::describe::Describer;

/// What the tasks of the agent share.
pub struct Shared {
    /// The kernel side; taken for attaching, settings and counters.
    pub kernel: Mutex<Kernel>,
    /// The flow table.
    pub table: Arc<Table>,
    /// The rules in force.
    pub rules: Rules,
    /// What was counted.
    pub totals: Mutex<Totals>,
    /// How many ends are where, as of the last turn of the tracker.
    pub gauges: Mutex<StateGauges>,
    /// Set by who has changed flows in the table, which no event tells of: the mirror is to find them.
    pub unseen_changes: AtomicBool,
    /// InterfaceNames of interfaces by index.
    pub names: InterfaceNames,
    /// Who watches.
    pub watchers: broadcast::Sender<WatchEvent>,
}

/// What happened, and to which connection: a watcher may want only some.
#[derive(Clone)]
pub struct WatchEvent {
    /// The connection after it.
    pub connection: Arc<view::Connection>,
    /// What happened.
    pub event: view::Event,
}

impl Shared {
    /// Everything that can be told now.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let kernel = lock(&self.kernel);
        let (counters, programs) = (kernel.counters()?, kernel.program_runs()?);
        drop(kernel);
        let totals = lock(&self.totals).clone();
        let StateGauges { endpoints, used } = lock(&self.gauges).clone();
        let table_capacity = self.table.capacities().map(u64::from);
        Ok(Snapshot { counters, totals, endpoints, table_used: used, table_capacity, programs })
    }

    /// How to describe flows now.
    pub fn describer(&self) -> Describer<'_> {
        Describer { rules: &self.rules, clock: Clock::monotonic(), now_ns: monotonic_ns() }
    }

    /// Tells those who watch.
    pub(super) fn publish_transitions(&self, change: &Change<'_>) {
        if self.watchers.receiver_count() == 0 {
            return;
        }
        let (describer, &Change { key, flow, hook, at_ns, from, to, cause }) = (self.describer(), change);
        let transitions = describer.transitions(key, flow, at_ns, from, to, cause);
        if transitions.is_empty() {
            return;
        }
        let connection = Arc::new(describer.connection(key, flow, self.names.of_hook(hook)));
        for transition in transitions {
            // Nobody listening any more is no error.
            let _ = self
                .watchers
                .send(WatchEvent { connection: Arc::clone(&connection), event: transition.into() });
        }
    }
}
