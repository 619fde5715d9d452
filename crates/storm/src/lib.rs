//! The socket storm: thousands of real connections between two hosts over a lossy link. It repeatedly
//! compares finwait's view of both ends with both kernels and with the test programs.
//!
//! ```text
//! client host [tap0] ==== link: drops, duplicates, delays ====+==== [tap0] server host
//!      agent (TC)                                             |     agent (XDP)
//!                                    the world's router or network tap, with an agent
//! ```
//!
//! The [`World`] says what lies between the hosts: one cable or two, VLAN tags, a router, a network tap.
//!
//! Either host opens connections. The link is a thread between two TAP interfaces. Each agent sees exactly
//! the packets of its host, and the link knows what neither agent sees. While the link and the programs are
//! paused, a local end's state must equal that of its kernel's socket, even with segments in flight.
//!
//! Modules in the order of a run: `network` builds the `world` from `port`s, `vlan`, `router` and `tap`. `phases`
//! configures the kernels, `plan` draws each connection's plan, and `play` executes it with `sockets`. `wire`
//! forwards segments and keeps the `packet_log` and a `capture`. `agent` runs finwait. `compare` and `closes` search for differences, and `explain` finds which of them have a known
//! cause.

mod agent;
mod capture;
mod closes;
mod compare;
mod conntrack;
mod explain;
mod network;
mod packet_log;
mod phases;
mod plan;
mod play;
mod port;
mod report;
mod router;
mod sockets;
mod tap;
mod vlan;
mod wire;
mod world;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use finwait::lab::{Namespace, Role};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tcp_common::FlowKey;
use tokio::sync::watch;
use tokio::time::Instant;

pub use report::{Checks, Differences, Report};
pub use wire::Impairment;
pub use world::World;

use agent::{Agent, Setup};
use closes::{Attempt, Records};
use compare::{Comparison, Position, Sockets as KernelSockets, connected};
use network::Network;
use packet_log::{is_behind, key};
use phases::PHASES;
use plan::Plan;
use play::Harness;
use sockets::Sockets;
use wire::Wire;

/// Parameters of a storm.
#[derive(Clone, Debug)]
pub struct Options {
    /// What lies between the two hosts.
    pub world: World,
    /// Number of connections.
    pub connections: u64,
    /// Impairment of the link. Its seed also draws the plans.
    pub impairment: Impairment,
    /// The finwait binary under test.
    pub finwait: PathBuf,
    /// Whether to compare `nf_conntrack` too. Needs `nft`.
    pub conntrack: bool,
    /// Folder for the capture, the agents' logs and the close records.
    pub folder: PathBuf,
}

/// Runs a storm and calls `report_progress` after each phase.
pub fn run(options: &Options, mut report_progress: impl FnMut(&str)) -> Result<Report> {
    std::fs::create_dir_all(&options.folder)
        .with_context(|| format!("creating {}", options.folder.display()))?;
    let seed = options.impairment.seed;
    let (network, ports, middle) = Network::build(options.world, seed)?;
    let wire = Wire::start(ports, middle, options.impairment, &options.folder.join("server.pcap"))?;
    let agents = start_agents(&network, options)?;
    network.warm_up()?;
    if options.conntrack {
        conntrack::enable(&network.lab.server)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = (options.world == World::MovingRoute)
            .then(|| scope.spawn(|| keep_moving_routes(&network, seed, &is_over)));
        let outcome = runtime.block_on(async {
            let (quiet, comparisons) = watch::channel(0);
            let harness = Harness {
                network: &network,
                sockets: Sockets::open(scope, &network)?,
                comparisons,
                holding: AtomicUsize::new(0),
            };
            let storm = Storm {
                options,
                network: &network,
                wire: &wire,
                agents: &agents,
                harness: &harness,
                quiet,
                report: Report::default(),
                plans: HashMap::new(),
                attempts: HashMap::new(),
                records: agents.iter().map(|_| Records::default()).collect(),
                finished: Vec::new(),
                rng: fastrand::Rng::with_seed(seed),
            };
            storm.run(&mut report_progress).await
        });
        is_over.store(true, Ordering::Relaxed);
        if let Some(mover) = mover {
            mover.join().map_err(|_| anyhow::anyhow!("moving the routes panicked"))??;
        }
        outcome
    })
}

/// Starts an agent on each host, in the order of [`Position`].
fn start_agents(network: &Network, options: &Options) -> Result<Vec<Agent>> {
    let start = |name, host: &Namespace, interfaces, ingress, rules| {
        let setup = Setup {
            name,
            binary: &options.finwait,
            folder: &options.folder,
            interfaces,
            ingress,
            rules,
            // Far more than needed: an eviction, which is correct where space is short, would be a difference.
            max_flows: (options.connections * 8).next_power_of_two().max(1 << 16),
        };
        Agent::start(host, &setup)
    };
    let (lab, interfaces) = (&network.lab, network.interfaces());
    let mut agents = vec![
        start("client", lab.client.namespace(), interfaces, "tc", &[])?,
        start("server", lab.server.namespace(), interfaces, "xdp", &[])?,
    ];
    if let Some(third) = &network.third {
        // Both ends are remote, and Linux.
        let rules = &["--tw-restart", "linux"];
        agents.push(start("third", &third.namespace, third.interfaces, "tc", rules)?);
    }
    agents.iter().try_for_each(Agent::wait_for_watch)?;
    Ok(agents)
}

/// Moves the routes of both hosts, at random, until the storm is over.
fn keep_moving_routes(network: &Network, seed: u64, is_over: &AtomicBool) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    while !is_over.load(Ordering::Relaxed) {
        let side = if rng.bool() { Role::Client } else { Role::Server };
        network.move_route(side, rng.usize(0..2))?;
        std::thread::sleep(Duration::from_millis(rng.u64(5..100)));
    }
    Ok(())
}

/// The `finwait` program of the build that the running program belongs to.
///
/// # Errors
///
/// Fails if that build has no `finwait` yet.
pub fn built_finwait() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding the running program")?;
    // A test is one folder deeper than a program.
    let candidates = program.ancestors().skip(1).take(2).map(|folder| folder.join("finwait"));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .context("no finwait beside this program. Build it: cargo build --package tcp-user")
}

struct Storm<'a> {
    options: &'a Options,
    network: &'a Network,
    wire: &'a Wire,
    agents: &'a [Agent],
    harness: &'a Harness<'a>,
    quiet: watch::Sender<u64>,
    report: Report,
    plans: HashMap<FlowKey, Vec<Plan>>,
    attempts: HashMap<FlowKey, Vec<Attempt>>,
    /// The records of each agent.
    records: Vec<Records>,
    /// Plans whose tuple may be reused.
    finished: Vec<Plan>,
    rng: fastrand::Rng,
}

impl Storm<'_> {
    async fn run(mut self, report_progress: &mut impl FnMut(&str)) -> Result<Report> {
        let mut running = FuturesUnordered::new();
        let mut next = 0;
        let mut phase = 0;
        while next < self.options.connections {
            let settings = &PHASES[phase % PHASES.len()];
            for host in [&self.network.lab.client, &self.network.lab.server] {
                settings.apply(host)?;
            }
            let until = self.options.connections.min(next + self.phase_length());
            let mut next_comparison = Instant::now() + self.comparison_pause();
            loop {
                while next < until && running.len() < AT_ONCE + self.harness.holding.load(Ordering::Relaxed) {
                    let plan = self.draw(next, settings.cookies());
                    next += 1;
                    running.push(perform(plan, self.harness));
                }
                if next == until && running.len() <= self.harness.holding.load(Ordering::Relaxed) {
                    break;
                }
                tokio::select! {
                    Some((plan, outcome)) = running.next() => self.record_outcome(plan, outcome),
                    () = tokio::time::sleep_until(next_comparison) => {
                        self.compare()?;
                        next_comparison = Instant::now() + self.comparison_pause();
                    }
                    // A connection that starts to hold does not wake this task.
                    () = tokio::time::sleep(POLL) => {}
                }
            }
            self.quiesce().await;
            self.compare()?;
            self.quiet.send_modify(|count| *count += 1);
            phase += 1;
            report_progress(&format!(
                "{next} of {} connections, {} comparisons, {} unexplained so far",
                self.options.connections,
                self.report.comparisons,
                self.report.unexplained()
            ));
        }
        while let Some((plan, outcome)) = running.next().await {
            self.record_outcome(plan, outcome);
        }
        self.quiesce().await;
        self.compare()?;
        self.compare_closes()?;
        Ok(self.report)
    }

    /// Draws the plan with this number, sometimes on a tuple that was used before.
    fn draw(&mut self, number: u64, cookies: bool) -> Plan {
        let both_families = self.network.families().count() > 1;
        let mut plan = Plan::draw(self.options.impairment.seed, number, both_families);
        plan.cookies = cookies;
        if self.rng.u8(0..20) == 0 && self.finished.len() > AT_ONCE {
            // Not the latest: Linux reuses a TIME-WAIT after one second at the earliest (tcp_tw_reuse_delay).
            let index = self.rng.usize(0..self.finished.len() - AT_ONCE / 2);
            let earlier = self.finished[index];
            // Linux also reuses a tuple in FIN-WAIT-2, and then resets what the peer still sends.
            if self.is_through(&earlier) {
                self.finished.swap_remove(index);
                (plan.family, plan.opener, plan.ports) = (earlier.family, earlier.opener, earlier.ports);
                if matches!(plan.ending, plan::Ending::Refused) {
                    plan.ending = plan::Ending::Fins;
                }
            }
        }
        let (client, server) = plan.addresses(&self.network.lab);
        self.plans.entry(key(client, server)).or_default().push(plan);
        self.report.connections += 1;
        plan
    }

    /// Whether everything that both hosts have sent has arrived.
    fn is_through(&self, plan: &Plan) -> bool {
        let (client, server) = plan.addresses(&self.network.lab);
        let directions = self.wire.with_log(|packet_log| packet_log.directions(client, server));
        [Role::Client, Role::Server].into_iter().all(|side| !is_behind(&directions, side))
    }

    fn record_outcome(&mut self, plan: Plan, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => self.report.as_planned += 1,
            Err(reason) => {
                *self.report.not_as_planned.entry(format!("{}: {reason}", plan.ending.name())).or_default() +=
                    1
            }
        }
        if outcome.is_ok() && plan.ending != plan::Ending::Refused {
            self.finished.push(plan);
        }
        if outcome.as_ref().is_err_and(|reason| reason.contains(NOT_SENT)) {
            return;
        }
        let (client, server) = plan.addresses(&self.network.lab);
        self.attempts.entry(key(client, server)).or_default().push(Attempt { plan, outcome });
    }

    /// Waits until no segment is in flight, or only a long timer is pending.
    async fn quiesce(&self) {
        let limit = Instant::now() + QUIESCE_LIMIT;
        while self.wire.idle_time() < QUIET && Instant::now() < limit {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Pauses the link and compares everything. No program runs meanwhile: they share this thread.
    fn compare(&mut self) -> Result<()> {
        self.wire.pause();
        // The hosts process what was delivered, and the agents apply their events.
        std::thread::sleep(PROCESSING_TIME);
        let before = self.kernels()?;
        let asked_at = std::time::Instant::now();
        let ours = self.agents.iter().map(Agent::list).collect::<Result<Vec<_>>>()?;
        let conntrack =
            self.options.conntrack.then(|| conntrack::states(&self.network.lab.server)).transpose()?;
        let after = self.kernels()?;
        self.wire.with_log(|packet_log| {
            let kernels = before.into_iter().zip(after).map(|(before, after)| [before, after]);
            let kernels: Vec<_> = kernels.collect();
            let Ok(kernels) = <[_; 2]>::try_from(kernels) else { return };
            let comparison = Comparison {
                network: self.network,
                kernels,
                asked_at,
                ours,
                conntrack,
                packet_log,
                plans: &self.plans,
            };
            comparison.compare_all(&mut self.report);
            for (records, connections) in self.records.iter_mut().zip(comparison.ours) {
                connections.into_iter().for_each(|connection| records.store(connection));
            }
        });
        self.report.comparisons += 1;
        self.wire.resume();
        Ok(())
    }

    fn kernels(&self) -> Result<[KernelSockets; 2]> {
        let lab = &self.network.lab;
        Ok([connected(lab.client.sockets()?), connected(lab.server.sockets()?)])
    }

    fn compare_closes(&mut self) -> Result<()> {
        self.wire.flush()?;
        let agents = Position::ALL.into_iter().zip(self.agents).zip(&mut self.records);
        for ((observer, agent), records) in agents {
            for (what, count) in agent.losses()? {
                self.report.closes.differ(None, format!("an agent reports {what}"), || count.to_string());
            }
            agent.closes()?.into_iter().for_each(|connection| records.store(connection));
            self.wire.with_log(|packet_log| {
                let lab = &self.network.lab;
                records.compare(lab, observer, &self.attempts, packet_log, &mut self.report.closes);
            });
        }
        self.wire.with_log(|packet_log| self.report.frames = packet_log.totals());
        (self.report.cables, self.report.fragments) = self.wire.traffic();
        Ok(())
    }

    fn phase_length(&self) -> u64 {
        (self.options.connections / 12).clamp(500, 10_000)
    }

    fn comparison_pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(300..1500))
    }
}

async fn perform(plan: Plan, harness: &Harness<'_>) -> (Plan, Result<(), String>) {
    (plan, plan.perform(harness).await.map_err(|error| format!("{error:#}")))
}

/// The kernel sends no SYN while it may not reuse the tuple (EADDRNOTAVAIL).
const NOT_SENT: &str = "Cannot assign requested address";
/// Concurrent connections, not counting those that hold.
const AT_ONCE: usize = 400;
const POLL: Duration = Duration::from_millis(20);
/// Longer than the first retransmission timer.
const QUIET: Duration = Duration::from_millis(450);
const QUIESCE_LIMIT: Duration = Duration::from_secs(2);
const PROCESSING_TIME: Duration = Duration::from_millis(100);
