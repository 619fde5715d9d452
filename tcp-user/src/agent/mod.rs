//! The agent: `finwait run`.
//!
//! Modules in the order of the data: `interfaces` puts programs on hooks, `mirror` takes what they tell and keeps the
//! clock, `tally` is what was counted, `report` and `metrics` say it, `server` answers those who ask.

pub mod interfaces;
pub mod metrics;
pub mod mirror;
pub mod report;
pub mod server;
pub mod tally;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use tcp_common::Rules;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

use crate::kernel::{Ingress, Kernel, LoadOptions};
use interfaces::{Keeper, Names};
use mirror::{Mirror, Shared, lock};
use server::App;

/// How the agent is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces to watch; none = every one that is up.
    pub interfaces: Vec<String>,
    /// How to watch ingress.
    pub ingress: Ingress,
    /// Where Prometheus scrapes.
    pub listen: SocketAddr,
    /// The query socket.
    pub socket: PathBuf,
    /// Places in the flow table.
    pub max_flows: u32,
    /// Rules of the state machine.
    pub rules: Rules,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// Runs until SIGTERM or SIGINT. Detaches what is its own when it returns, whatever the reason.
pub async fn run(options: Options) -> Result<()> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
    tokio::spawn(connection);
    let present = interfaces::list(&netlink).await.context("listing the interfaces")?;
    let mut keeper = Keeper::new(options.interfaces.clone(), options.ingress);
    if let Some(missing) = keeper.missing(&present).first() {
        let names: Vec<_> = present.iter().map(|interface| interface.name.as_str()).collect();
        bail!("no interface is named {missing:?} here; there are: {}", names.join(", "));
    }
    if options.dry_run {
        for interface in present.iter().filter(|interface| keeper.wants(interface)) {
            let xdp =
                options.ingress == Ingress::Xdp || (options.ingress == Ingress::Auto && interface.physical);
            println!(
                "would watch {} (ingress {}, egress tcx)",
                interface.name,
                if xdp { "xdp-native" } else { "tcx" }
            );
        }
        return Ok(());
    }
    // What can be taken by others is asked for before anything is attached.
    let metrics = TcpListener::bind(options.listen).await.with_context(|| {
        format!("listening on {}: choose another address with --listen, port 0 takes any", options.listen)
    })?;
    let query = bind_socket(&options.socket).await?;

    let load = LoadOptions { rules: options.rules, max_flows: options.max_flows, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&load)?;
    let events = kernel.take_events().context("the event ring is taken")?;
    let names = Names::default();
    names.learn(&present);
    let failures = keeper.follow(&mut kernel, &present);
    for failure in &failures {
        tracing::warn!("{failure}");
    }
    if keeper.count() == 0 {
        match failures.into_iter().next() {
            Some(failure) => return Err(failure.into()),
            None => bail!("no interface is up: nothing to watch"),
        }
    }
    let shared = Arc::new(Shared {
        table: Arc::clone(kernel.table()),
        kernel: Mutex::new(kernel),
        rules: options.rules,
        tally: Mutex::default(),
        names: names.clone(),
        watchers: broadcast::Sender::new(65_536),
    });
    let watched = Arc::new(Mutex::new(keeper.watched(&names)));
    let app =
        App { shared: Arc::clone(&shared), started_at: Timestamp::now(), watched: Arc::clone(&watched) };
    let address = metrics.local_addr()?;
    tracing::info!(
        "watching {} interfaces; metrics on http://{address}/metrics, queries on {}",
        keeper.count(),
        options.socket.display()
    );

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let result = tokio::select! {
        () = stopped => Ok(()),
        result = axum::serve(metrics, server::metrics_routes(app.clone())) => result.context("serving metrics"),
        result = axum::serve(query, server::query_routes(app)) => result.context("serving queries"),
        () = mirror_forever(Mirror::new(Arc::clone(&shared), events)) => Ok(()),
        () = follow_forever(netlink, keeper, Arc::clone(&shared), watched) => Ok(()),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = std::fs::remove_file(&options.socket);
    result
}

/// Drains the ring every few milliseconds, sweeps the whole table once a second.
async fn mirror_forever(mut mirror: Mirror) {
    let mut interval = tokio::time::interval(DRAIN_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut turns, mut last_watchdog) = (0u32, 0u32);
    loop {
        interval.tick().await;
        while mirror.drain() == mirror::BATCH {
            tokio::task::yield_now().await;
        }
        mirror.sweep_part(TURNS_A_SWEEP);
        turns = turns.wrapping_add(1);
        if turns.wrapping_sub(last_watchdog) > TURNS_A_SWEEP {
            last_watchdog = turns;
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// Looks for interfaces that came or went.
async fn follow_forever(
    netlink: rtnetlink::Handle,
    mut keeper: Keeper,
    shared: Arc<Shared>,
    watched: Arc<Mutex<Vec<interfaces::Watched>>>,
) {
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        match interfaces::list(&netlink).await {
            Ok(present) => {
                shared.names.learn(&present);
                for failure in keeper.follow(&mut lock(&shared.kernel), &present) {
                    tracing::warn!("{failure}");
                }
                *lock(&watched) = keeper.watched(&shared.names);
            }
            Err(error) => tracing::warn!("listing the interfaces: {error}"),
        }
    }
}

/// Binds the query socket: in place of a stale file, never of a living agent's.
async fn bind_socket(path: &Path) -> Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making {}: choose another place with --socket", folder.display()))?;
    }
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            bail!("another agent answers on {}: stop it first, or choose another --socket", path.display());
        }
        std::fs::remove_file(path)
            .with_context(|| format!("removing the stale socket {}", path.display()))?;
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("binding {}: choose another place with --socket", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("setting the mode of {}", path.display()))?;
    Ok(listener)
}

const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
const TURNS_A_SWEEP: u32 = 200;
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
