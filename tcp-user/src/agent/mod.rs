//! The agent: `finwait run`.
//!
//! Modules in the order of the data:
//!
//! - [`interfaces`] lists interfaces and attaches the kernel programs, [`privileges`] drops what that needed,
//!   and [`follow`] keeps up with interfaces and addresses that come and go.
//! - [`locality`] says which endpoints belong to this host, [`descriptors`] how many files may be open.
//! - [`worker`] is the event thread. It runs the [`tracker`], which reads the kernel's events and scans the
//!   flow table at the pace of [`paced_scan`].
//! - [`slot_cache`] remembers each slot of the table as last seen, [`change`] is what an event or a scan
//!   found.
//! - [`on_host`] knows the addresses of containers, [`nat`] the connections that this host translates.
//! - [`reconciler`] compares the table with the kernel's sockets.
//! - [`report`] counts and publishes what a change of a flow reports; [`totals`] are the counters, [`shared`]
//!   is the state that the tasks share.
//! - [`stats`] and [`metrics`] present the counters, [`server`] answers on the socket of [`query_socket`].
//! - [`ports`] counts the local ports that a connect() can still choose from.
//! - [`own`] recognizes the agent's own connections, which are counted apart.
//! - [`history`] remembers connections in memory and hands closed ones to the files on disk, [`disk_query`] reads these.
//! - [`dry_run`] only shows what would be attached; [`netdev`] asks the kernel for the features of a driver.

mod change;
mod descriptors;
mod disk_query;
mod dry_run;
pub mod error;
pub mod exemplar;
mod follow;
pub mod history;
pub mod interfaces;
pub mod locality;
pub mod metrics;
pub mod nat;
mod netdev;
mod on_host;
pub mod own;
mod paced_scan;
pub mod ports;
pub mod privileges;
pub mod query_socket;
mod reconciler;
mod report;
mod reset;
pub mod server;
pub mod shared;
pub mod slot_cache;
mod stats;
pub mod totals;
pub mod tracker;
mod tuple;
mod why;
mod worker;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use sd_notify::NotifyState;
use tcp_common::record::FRAGMENT_NS;
use tcp_common::{Rules, State};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::kernel::{self, Diagnostics, Events, Kernel, KernelError, LoadOptions, ProgramNotices, Table};
use crate::options::{KeyBy, Options};
pub use error::AgentError;
use follow::Follower;
use history::{DiskHistory, DiskThread, Histories, MemoryBudget};
use interfaces::{Attachments, Interface, InterfaceChange, InterfaceNames, Netlink};
use locality::LocalAddresses;
use own::OwnKind;
use privileges::Account;
use query_socket::QuerySocket;
use reconciler::{Adopter, SocketReconciler};
use server::App;
use shared::Shared;
use tracker::Tracker;
use worker::Worker;

/// Runs until SIGTERM or SIGINT. Detaches its programs when it returns, whatever the reason.
///
/// Must be called while the process has one thread: the agent drops privileges before it starts others.
pub fn run(options: &Options) -> Result<(), AgentError> {
    let single = runtime::Builder::new_current_thread().enable_all().build().map_err(starting())?;
    let present = single.block_on(present_interfaces())?;
    drop(single);
    let attachments = Attachments::new(options.interfaces.clone(), options.ingress);
    if let Some(name) = attachments.missing(&present).into_iter().next() {
        let present = present.into_iter().map(|interface| interface.name).collect();
        return Err(AgentError::NoSuchInterface { name, present });
    }
    descriptors::raise_limit().map_err(AgentError::system("raising the limit of open files"))?;
    if options.dry_run {
        return dry_run::run(options, &attachments, &present);
    }
    let ready = prepare(options, attachments, &present)?;
    runtime::Runtime::new().map_err(starting())?.block_on(ready.serve())
}

fn starting() -> impl FnOnce(io::Error) -> AgentError {
    AgentError::system("starting the runtime")
}

/// An agent that needs no more privileges than to attach to later interfaces.
struct Ready {
    metrics: TcpListener,
    query: QuerySocket,
    attachments: Attachments,
    notices: Option<ProgramNotices>,
    shared: Arc<Shared>,
    events: Events,
    diagnostics: Option<Diagnostics>,
    audit_interval: Option<Duration>,
}

/// Binds the sockets, loads and attaches the programs, and drops the privileges that this needs.
fn prepare(
    options: &Options,
    mut attachments: Attachments,
    present: &[Interface],
) -> Result<Ready, AgentError> {
    let account = options.user.as_deref().map(Account::named).transpose()?;
    // What another process may hold is bound before anything is attached.
    let metrics = TcpListener::bind(options.listen)
        .map_err(|source| AgentError::Listen { address: options.listen, source })?;
    let metrics_address = metrics.local_addr().map_err(AgentError::system("listening for scrapes"))?;
    let query = QuerySocket::bind(&options.socket, account.as_ref())?;
    let disk = options
        .history_dir
        .as_deref()
        .map(|path| DiskHistory::prepare(path, options.retention(), account.as_ref()));
    let disk = disk.transpose()?;
    let mut kernel = load_programs(options)?;
    let events = kernel.take_events().expect("the event rings are taken once");
    let diagnostics = kernel.take_diagnostics();
    let names = InterfaceNames::default();
    names.learn(present);
    present.iter().for_each(|interface| kernel::remove_stale_filters(&interface.name));
    log_settings(options, kernel.table());
    let mut local = LocalAddresses::default();
    local.refresh(&mut kernel, present)?;
    let changes = attachments.follow(&mut kernel, present);
    if attachments.count() == 0 {
        let failure = changes.into_iter().find_map(|change| match change {
            InterfaceChange::Failed(error) => Some(error),
            _ => None,
        });
        return Err(failure.map_or(AgentError::NothingUp, AgentError::Attach));
    }
    changes.iter().for_each(InterfaceChange::log);
    let notices = ProgramNotices::open();
    let notices = notices.inspect_err(|error| tracing::debug!("no notice of other programs: {error}")).ok();
    privileges::drop_privileges(account.as_ref())?;
    disk.as_ref().map_or(Ok(()), DiskHistory::check_access)?;
    let budget = MemoryBudget::of_host(options.history_memory.map(|size| size.as_u64()));
    let histories = Mutex::new(Histories::new(kernel.table().slot_count(), budget.histories));
    let local = RwLock::new(local);
    let disk = disk.map(Arc::new);
    let shared =
        Shared { names, local, histories, disk, ..Shared::new(kernel, metrics_address, WATCH_BUFFER) };
    let shared = Arc::new(shared);
    Ok(Ready {
        metrics,
        query,
        attachments,
        notices,
        shared,
        events,
        diagnostics,
        audit_interval: options.audit_interval,
    })
}

/// Logs the size of the flow table and the rules.
fn log_settings(options: &Options, table: &Table) {
    let [v4, v6] = table.capacities();
    let mebibytes = table.bytes() as f64 / f64::from(1 << 20);
    tracing::info!("flow table: {v4} IPv4 and {v6} IPv6 connections, {mebibytes:.1} MiB");
    let Rules { time_wait_local_ns, time_wait_remote_ns, silence_ns, .. } = options.rules();
    let duration = |ns: u64| humantime::format_duration(Duration::from_nanos(ns));
    let untimed = [State::Closed, State::Listen, State::TimeWait, State::Unknown];
    let timed = State::ALL.into_iter().filter(|state| !untimed.contains(state));
    let limits = timed.map(|state| match silence_ns[state as usize] {
        0 => format!("{} never", state.name()),
        ns => format!("{} {}", state.name(), duration(ns)),
    });
    tracing::info!(
        "rules: TIME-WAIT {} at local and {} at remote endpoints; idle timeouts: {}",
        duration(time_wait_local_ns),
        duration(time_wait_remote_ns),
        limits.collect::<Vec<_>>().join(", ")
    );
}

/// Loads the programs. An error names the missing capabilities.
fn load_programs(options: &Options) -> Result<Kernel, KernelError> {
    let load = LoadOptions {
        rules: options.rules(),
        max_flows: options.max_flows,
        max_flows_v6: options.max_flows / 2,
        ring_bytes: MemoryBudget::of_host(None).rings,
        diagnostics: tracing::enabled!(tracing::Level::DEBUG),
        key_by_vlan: options.key == KeyBy::Vlan,
        reset_reasons: true,
        ..LoadOptions::default()
    };
    Kernel::load(&load).map_err(privileges::explain)
}

impl Ready {
    async fn serve(self) -> Result<(), AgentError> {
        let Ready { metrics, query, attachments, notices, shared, events, diagnostics, audit_interval } =
            self;
        let interfaces = Arc::new(Mutex::new(attachments.status()));
        let app = App {
            shared: Arc::clone(&shared),
            started_at: Timestamp::now(),
            interfaces: Arc::clone(&interfaces),
        };
        let adopter = Adopter::new(&app);
        let failed = || AgentError::system("listening for queries and scrapes");
        let started = format!(
            "watching {}; metrics on http://{}/metrics, queries on {}",
            count_of_interfaces(attachments.count()),
            metrics.local_addr().map_err(failed())?,
            query.path().display()
        );
        metrics.set_nonblocking(true).map_err(failed())?;
        let metrics = tokio::net::TcpListener::from_std(metrics).map_err(failed())?;
        let queries = query.listener().map_err(failed())?;
        let (of_scrapes, of_queries) = (Arc::clone(&shared), Arc::clone(&shared));
        let metrics = metrics.tap_io(move |_| of_scrapes.own.accept(OwnKind::Scrape));
        let queries = queries.tap_io(move |_| of_queries.own.accept(OwnKind::Query));
        let waiting = || AgentError::system("waiting for signals");
        let mut terminate = signal(SignalKind::terminate()).map_err(waiting())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(waiting())?;
        let stopped = async {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("received {name}");
        };
        // Dropped after the event thread, whose last closes it writes.
        let _disk = DiskThread::start(&shared)?;
        // Dropped when this function returns, which waits for the thread. The programs are detached before
        // that.
        let mut worker = Worker::start(Tracker::new(Arc::clone(&shared), events), diagnostics)?;
        let fragments = expire_fragments(Arc::clone(&shared));
        let serving = async {
            // Until older connections are imported, queries and scrapes wait in the queues of their sockets.
            let reconciler = match audit_interval {
                Some(interval) => SocketReconciler::new(adopter, interval).check().await,
                None => None,
            };
            tracing::info!("{started}");
            notify(NotifyState::Ready);
            tokio::select! {
                result = axum::serve(metrics, server::metrics_routes(app.clone())) =>
                    result.map_err(AgentError::system("serving metrics")),
                result = axum::serve(queries, server::query_routes(app)) =>
                    result.map_err(AgentError::system("serving queries")),
                () = reconcile(reconciler) => Ok(()),
                result = Follower { attachments, notices, shared, statuses: Arc::clone(&interfaces) }.run() => result,
            }
        };
        let result = tokio::select! {
            () = stopped => Ok(()),
            result = worker.ended() => result,
            () = fragments => Ok(()),
            result = serving => result,
        };
        notify(NotifyState::Stopping);
        let watched = interfaces.lock().iter().filter(|status| status.error.is_none()).count();
        tracing::info!("detached from {}", count_of_interfaces(watched));
        result
    }
}

fn count_of_interfaces(count: usize) -> String {
    if count == 1 { "1 interface".into() } else { format!("{count} interfaces") }
}

/// Notifies systemd, if it started the agent.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

/// Runs the socket reconciler; never returns if there is none.
async fn reconcile(reconciler: Option<SocketReconciler>) {
    match reconciler {
        Some(reconciler) => reconciler.run().await,
        None => std::future::pending().await,
    }
}

/// Ends the wait of fragments whose datagram does not become whole.
async fn expire_fragments(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(Duration::from_nanos(FRAGMENT_NS));
    loop {
        interval.tick().await;
        if let Err(error) = shared.kernel.lock().expire_fragments() {
            tracing::warn!("ending the wait of fragments: {error}");
        }
    }
}

async fn present_interfaces() -> Result<Vec<Interface>, AgentError> {
    Ok(open_netlink()?.list().await?)
}

fn open_netlink() -> Result<Netlink, AgentError> {
    Netlink::open().map_err(AgentError::system("opening a netlink socket"))
}

/// Number of events that are kept for a client that follows them.
const WATCH_BUFFER: usize = 65_536;
