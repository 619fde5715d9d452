//! The agent: `finwait run`.
//!
//! Modules in the order of the data: `interfaces` puts programs on hooks, `privileges` gives away what that took, `mirror`
//! takes what they tell and keeps the clock, in the thread of `rounds`; `ledger` is what it remembers; `totals` is what was counted, `shared` what all of them have, `report` and `metrics` say it, `server` answers
//! those who ask on the socket of `query`. `look` checks against the kernel's sockets.

mod change;
mod dry_run;
pub mod interfaces;
pub mod lock;
pub mod metrics;
mod netdev;
mod paced_scan;
pub mod privileges;
pub mod query_socket;
mod reconciler;
pub mod server;
pub mod shared;
pub mod slot_cache;
mod stats;
pub mod totals;
pub mod tracker;
mod worker;

use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

use crate::api::InterfaceStatus;
use crate::kernel::{self, Diagnostics, Events, Kernel, KernelError, LoadOptions};
use crate::options::Options;
use interfaces::{Attachments, Interface, InterfaceNames, Netlink};
use lock::lock;
use privileges::Account;
use query_socket::QuerySocket;
use reconciler::{Adopter, SocketReconciler};
use server::App;
use shared::Shared;
use tracker::Tracker;
use worker::Worker;

/// Runs until SIGTERM or SIGINT. Detaches what is its own when it returns, whatever the reason.
///
/// To be called while the process has one thread: the agent gives its privileges away before it makes others.
pub fn run(options: &Options) -> Result<()> {
    let alone = runtime::Builder::new_current_thread().enable_all().build()?;
    let present = alone.block_on(present_interfaces())?;
    drop(alone);
    let attachments = Attachments::new(options.interfaces.clone(), options.ingress);
    if let Some(missing) = attachments.missing(&present).first() {
        let names: Vec<_> = present.iter().map(|interface| interface.name.as_str()).collect();
        bail!("no interface is named {missing:?} here; there are: {}", names.join(", "));
    }
    if options.dry_run {
        return dry_run::run(options, &attachments, &present);
    }
    let ready = prepare(options, attachments, &present)?;
    runtime::Runtime::new()?.block_on(ready.serve())
}

/// What an agent has when it needs no more privileges than to follow interfaces.
struct Ready {
    metrics: TcpListener,
    query: QuerySocket,
    attachments: Attachments,
    shared: Arc<Shared>,
    events: Events,
    diagnostics: Option<Diagnostics>,
    audit_interval: Option<Duration>,
}

/// Binds, loads, attaches, and gives away the privileges that this took.
fn prepare(options: &Options, mut attachments: Attachments, present: &[Interface]) -> Result<Ready> {
    let account = options.user.as_deref().map(Account::named).transpose()?;
    // What can be taken by others is asked for before anything is attached.
    let metrics = TcpListener::bind(options.listen).with_context(|| {
        format!("listening on {}: choose another address with --listen, port 0 takes any", options.listen)
    })?;
    let query = QuerySocket::bind(&options.socket, account.as_ref())?;
    let mut kernel = load_programs(options)?;
    let events = kernel.take_events().context("the event ring is taken")?;
    let diagnostics = kernel.take_diagnostics();
    let names = InterfaceNames::default();
    names.learn(present);
    present.iter().for_each(|interface| kernel::remove_stale_filters(&interface.name));
    let failures = attachments.follow(&mut kernel, present);
    if attachments.count() == 0 {
        match failures.into_iter().next() {
            Some(failure) => return Err(failure.into()),
            None => return nothing_is_up(),
        }
    }
    for failure in failures {
        tracing::warn!("{failure}");
    }
    privileges::give_away(account.as_ref())?;
    let shared = Arc::new(Shared {
        table: Arc::clone(kernel.table()),
        kernel: Mutex::new(kernel),
        rules: options.rules(),
        totals: Mutex::default(),
        gauges: Mutex::default(),
        unseen_changes: AtomicBool::default(),
        names,
        watchers: broadcast::Sender::new(65_536),
    });
    Ok(Ready {
        metrics,
        query,
        attachments,
        shared,
        events,
        diagnostics,
        audit_interval: options.audit_interval,
    })
}

fn nothing_is_up<T>() -> Result<T> {
    bail!("no interface is up: nothing to watch. Bring one up (`ip link set eth0 up`), or name one with -i")
}

/// Loads the programs; where that is refused, says which capability is missing.
fn load_programs(options: &Options) -> Result<Kernel, KernelError> {
    let load = LoadOptions {
        rules: options.rules(),
        max_flows: options.max_flows,
        max_flows_v6: options.max_flows / 2,
        diagnostics: tracing::enabled!(tracing::Level::DEBUG),
        ..LoadOptions::default()
    };
    Kernel::load(&load).map_err(privileges::explain)
}

impl Ready {
    async fn serve(self) -> Result<()> {
        let Ready { metrics, query, attachments, shared, events, diagnostics, audit_interval } = self;
        let watched = Arc::new(Mutex::new(attachments.watched(&shared.names)));
        let app =
            App { shared: Arc::clone(&shared), started_at: Timestamp::now(), watched: Arc::clone(&watched) };
        let adopter = Adopter::new(&app);
        tracing::info!(
            "watching {} interfaces; metrics on http://{}/metrics, queries on {}",
            attachments.count(),
            metrics.local_addr()?,
            query.path().display()
        );
        metrics.set_nonblocking(true)?;
        let metrics = tokio::net::TcpListener::from_std(metrics)?;
        let queries = query.listener()?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stopped = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Its end, when this function returns, waits for the thread: what detaches the programs goes last.
        let mut rounds = Worker::start(Tracker::new(Arc::clone(&shared), events), diagnostics)?;
        notify(NotifyState::Ready);
        let result = tokio::select! {
            () = stopped => Ok(()),
            result = axum::serve(metrics, server::metrics_routes(app.clone())) => result.context("serving metrics"),
            result = axum::serve(queries, server::query_routes(app)) => result.context("serving queries"),
            result = rounds.ended() => result,
            () = reconcile(adopter, audit_interval) => Ok(()),
            result = follow_forever(attachments, shared, watched) => result,
        };
        notify(NotifyState::Stopping);
        result
    }
}

/// Tells systemd; without it there is nobody to tell.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

/// Runs the socket reconciler every `interval`; never returns if there is no interval.
async fn reconcile(adopter: Adopter, interval: Option<Duration>) {
    match interval {
        Some(interval) => SocketReconciler::new(adopter, interval).run().await,
        None => std::future::pending().await,
    }
}

/// Follows interfaces that come and go, and keeps the kernel's two clocks related.
async fn follow_forever(
    mut attachments: Attachments,
    shared: Arc<Shared>,
    watched: Arc<Mutex<Vec<InterfaceStatus>>>,
) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let mut clocks = tokio::time::interval(CLOCK_INTERVAL);
    loop {
        match netlink.list().await {
            Ok(present) => {
                shared.names.learn(&present);
                for failure in attachments.follow(&mut lock(&shared.kernel), &present) {
                    tracing::warn!("{failure}");
                }
                *lock(&watched) = attachments.watched(&shared.names);
            }
            Err(error) => tracing::warn!("listing the interfaces: {error}"),
        }
        tokio::select! {
            heard = netlink.changed() => if !heard {
                tokio::time::sleep(RETRY_INTERVAL).await;
                netlink = Netlink::open()?;
            },
            _ = clocks.tick() => if let Err(error) = lock(&shared.kernel).relate_clocks() {
                tracing::warn!("relating the kernel's clocks: {error}");
            },
        }
    }
}

async fn present_interfaces() -> Result<Vec<Interface>> {
    Netlink::open()?.list().await.context("listing the interfaces")
}

/// The clock is steered by half a millisecond a second at most. What no message told of is listed then, too.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// Between a netlink socket that overflowed and the next one.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
