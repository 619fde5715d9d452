//! What the tasks of the agent share, and what is said with it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tcp_common::Rules;
use tokio::sync::broadcast;

use super::change::Change;
use super::interfaces::Names;
use super::lock::lock;
use super::slot_cache::Census;
use super::totals::{Snapshot, Tally};
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
    pub tally: Mutex<Tally>,
    /// How many ends are where, as of the last turn of the mirror.
    pub census: Mutex<Census>,
    /// Set by who has changed flows in the table, which no event tells of: the mirror is to find them.
    pub unseen_changes: AtomicBool,
    /// Names of interfaces by index.
    pub names: Names,
    /// Who watches.
    pub watchers: broadcast::Sender<Told>,
}

/// What happened, and to which connection: a watcher may want only some.
#[derive(Clone)]
pub struct Told {
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
        let tally = lock(&self.tally).clone();
        let Census { endpoints, used } = lock(&self.census).clone();
        let table_capacity = self.table.capacities().map(u64::from);
        Ok(Snapshot { counters, tally, endpoints, table_used: used, table_capacity, programs })
    }

    /// How to describe flows now.
    pub fn describer(&self) -> Describer<'_> {
        Describer { rules: &self.rules, clock: Clock::monotonic(), now_ns: monotonic_ns() }
    }

    /// Tells those who watch.
    pub(super) fn tell_transitions(&self, change: &Change<'_>) {
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
            let _ =
                self.watchers.send(Told { connection: Arc::clone(&connection), event: transition.into() });
        }
    }
}
