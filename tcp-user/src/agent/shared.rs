//! State that the tasks of the agent share.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};
use tcp_common::{End, Flow, FlowKey, Rules};
use tokio::sync::broadcast;

use super::history::{DiskHistory, Histories};
use super::interfaces::InterfaceNames;
use super::locality::LocalAddresses;
use super::nat::Translations;
use super::on_host::NamespaceAddresses;
use super::own::OwnConnections;
use super::ports::PortGauges;
use super::reset::HostWitness;
use super::slot_cache::StateGauges;
use super::totals::{Snapshot, Totals};
use crate::clock::{Clock, monotonic_ns};
use crate::kernel::{Kernel, KernelError, ResetReasons, Table};
use crate::sockets::HostCounters;
use crate::view::describe::{Describer, address, client_end};
use crate::view::{self, SocketPair};

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
    /// The addresses of this namespace.
    pub local: RwLock<LocalAddresses>,
    /// The addresses in other namespaces of this host.
    pub on_host: Mutex<NamespaceAddresses>,
    /// The connections that this host translates.
    pub translations: Translations,
    /// What is remembered of connections.
    pub histories: Mutex<Histories>,
    /// Sockets on ports of `ip_local_port_range` that a process chose, when the ports were counted last.
    pub(super) chosen_ports: Mutex<HashSet<SocketPair>>,
    /// What the kernel says about its RSTs, or why it says nothing.
    pub reset_reasons: Result<ResetReasons, String>,
    /// What the host's counters have said about its RSTs.
    pub host_witness: Mutex<HostWitness>,
    /// Where closed connections go on disk, if they do.
    pub disk: Option<Arc<DiskHistory>>,
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
    /// The state of an agent that has seen nothing. `metrics` is the address of its metrics endpoint, `watch_buffer` the
    /// number of events that are kept for a subscriber. It remembers no connections.
    pub fn new(mut kernel: Kernel, metrics: SocketAddr, watch_buffer: usize) -> Shared {
        Shared {
            table: Arc::clone(kernel.table()),
            rules: *kernel.rules(),
            reset_reasons: kernel.take_reset_reasons(),
            kernel: Mutex::new(kernel),
            totals: Mutex::default(),
            gauges: Mutex::default(),
            unseen_changes: AtomicBool::default(),
            clock: Mutex::new(Clock::monotonic()),
            names: InterfaceNames::default(),
            own: OwnConnections::new(metrics),
            local: RwLock::default(),
            on_host: Mutex::default(),
            translations: Translations::default(),
            histories: Mutex::new(Histories::new(0, 0)),
            chosen_ports: Mutex::default(),
            host_witness: Mutex::new(HostWitness::new()),
            disk: None,
            watchers: broadcast::Sender::new(watch_buffer),
        }
    }

    /// Reads all counters and gauges, without those of ports.
    pub fn snapshot(&self) -> Result<Snapshot, KernelError> {
        let kernel = self.kernel.lock();
        let (counters, programs) = (kernel.counters()?, kernel.program_runs()?);
        drop(kernel);
        let totals = self.totals.lock().clone();
        let StateGauges { endpoints, used } = self.gauges.lock().clone();
        let table_capacity = self.table.capacities().map(u64::from);
        let own = self.own.accepted();
        Ok(Snapshot {
            counters,
            totals,
            own,
            endpoints,
            table_used: used,
            table_capacity,
            host_time_wait_overflows: HostCounters::read().and_then(|host| host.get("TCPTimeWaitOverflow")),
            programs,
            disk: self.disk.as_ref().map(|disk| disk.counts()).unwrap_or_default(),
            ports: PortGauges::default(),
        })
    }

    /// Reads all counters and gauges.
    pub(super) fn full_snapshot(&self) -> Result<Snapshot, KernelError> {
        let ports = self.ports().inspect_err(|error| tracing::debug!("counting ports: {error}"));
        Ok(Snapshot { ports: ports.as_ref().map(PortGauges::from).unwrap_or_default(), ..self.snapshot()? })
    }

    /// Which ends of a flow are local, A first, where conntrack says more than the flow; `None` if the flow has it
    /// right. If `is_counted`, an open or a close is about to be counted, and conntrack is asked first.
    pub(super) fn corrected_locality(
        &self,
        key: &FlowKey,
        flow: &Flow,
        is_counted: bool,
    ) -> Option<[bool; 2]> {
        let is_local = |address| self.local.read().contains(address);
        let is_untranslated = is_counted && self.translations.ask(key, client_end(key, flow), is_local);
        let ends = if is_untranslated {
            // The previous connection of these addresses may have been translated.
            [End::A, End::B].map(|end| is_local(address(key, end)))
        } else {
            self.translations.locality(key, is_local)?
        };
        (ends != [End::A, End::B].map(|end| flow.is_local(end))).then_some(ends)
    }

    /// A describer for the present time.
    pub fn describer(&self) -> Describer<'_> {
        Describer {
            rules: &self.rules,
            clock: *self.clock.lock(),
            now_ns: monotonic_ns(),
            client: None,
            id: None,
        }
    }
}
