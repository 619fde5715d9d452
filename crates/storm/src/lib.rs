//! The socket storm: thousands of real connections at once between two hosts over a bad cable, and at many moments
//! everything that finwait says of both ends beside what both kernels have and what the program did.
//!
//! ```text
//! client host [tap0] ==== wire: loses, doubles, delays ==== [tap0] server host
//!      agent (TC)                                              agent (XDP)
//! ```
//!
//! Either host opens. The cable is a thread between two TAP interfaces, so each agent sees exactly what its host sends
//! and receives, and the cable knows what neither sees. While everything stands still, even with segments on their way,
//! the state of an own end must be that of its kernel's socket.
//!
//! Modules in the order of a run: `phases` sets the kernels, `plan` draws what each connection is to do, `play` does it with
//! `sockets`, `wire` carries the segments and keeps their `trail`, `agent` is finwait, `compare` and `closes` look for
//! differences, `why` says which of them must be.

mod agent;
mod closes;
mod compare;
mod conntrack;
mod phases;
mod plan;
mod play;
mod report;
mod sockets;
mod trail;
mod why;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use finwait::lab::{Family, Lab, Side};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tcp_common::FlowKey;
use tokio::sync::watch;
use tokio::time::Instant;

pub use report::{Differences, Report, Tally};
pub use wire::Weather;

use agent::Agent;
use closes::{Made, Records};
use compare::{Look, Sockets as KernelSockets, connected};
use phases::PHASES;
use plan::Plan;
use play::Stage;
use sockets::{NO_PLANS_DOOR, Sockets};
use trail::{is_behind, key};
use wire::Wire;

/// How to storm.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many connections.
    pub connections: u64,
    /// The cable; its seed also draws the plans.
    pub weather: Weather,
    /// The program under test.
    pub finwait: PathBuf,
    /// Whether to look at `nf_conntrack` too; needs `nft`.
    pub conntrack: bool,
    /// Where the capture, the agents' logs and close records go.
    pub folder: PathBuf,
}

/// Runs a storm. `say` is told how far it is.
pub fn run(options: &Options, mut say: impl FnMut(&str)) -> Result<Report> {
    std::fs::create_dir_all(&options.folder)
        .with_context(|| format!("making {}", options.folder.display()))?;
    let (lab, taps) = Lab::with_taps().context("making two hosts")?;
    let wire = Wire::start(taps, options.weather, &options.folder.join("server.pcap"))?;
    // Far more than there will be: an eviction, which is right where space is short, would be a difference here.
    let flows = (options.connections * 8).next_power_of_two().max(1 << 16);
    let start = |side: Side, ingress: &str| {
        Agent::start(lab.host(side), &options.finwait, &options.folder, ingress, flows)
    };
    let agents = [start(Side::Client, "tc")?, start(Side::Server, "xdp")?];
    knock(&lab, &agents)?;
    if options.conntrack {
        conntrack::switch_on(&lab.server)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::scope(|scope| {
        runtime.block_on(async {
            let (quiet, comparisons) = watch::channel(0);
            let stage = Stage {
                lab: &lab,
                sockets: Sockets::open(scope, &lab)?,
                comparisons,
                holding: AtomicUsize::new(0),
            };
            let storm = Storm {
                options,
                lab: &lab,
                wire: &wire,
                agents: &agents,
                stage: &stage,
                quiet,
                report: Report::default(),
                plans: HashMap::new(),
                made: HashMap::new(),
                records: [Records::default(), Records::default()],
                finished: Vec::new(),
                dice: fastrand::Rng::with_seed(options.weather.seed),
            };
            storm.rage(&mut say).await
        })
    })
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

/// Tries a door at which nobody is until both agents tell of it: from then on they miss no close.
fn knock(lab: &Lab, agents: &[Agent; 2]) -> Result<()> {
    let nobody = SocketAddr::new(lab.server.address(Family::Ipv4), NO_PLANS_DOOR);
    let until = Instant::now() + KNOCK_LIMIT;
    while !(agents[0].watches()? && agents[1].watches()?) {
        ensure!(Instant::now() < until, "the agents tell of no close");
        // Refused, as it must be.
        let _ = lab.client.run(|| std::net::TcpStream::connect_timeout(&nobody, KNOCK_LIMIT))?;
    }
    Ok(())
}

struct Storm<'a> {
    options: &'a Options,
    lab: &'a Lab,
    wire: &'a Wire,
    agents: &'a [Agent; 2],
    stage: &'a Stage<'a>,
    quiet: watch::Sender<u64>,
    report: Report,
    plans: HashMap<FlowKey, Vec<Plan>>,
    made: HashMap<FlowKey, Vec<Made>>,
    records: [Records; 2],
    /// Plans whose tuple may be used again.
    finished: Vec<Plan>,
    dice: fastrand::Rng,
}

impl Storm<'_> {
    async fn rage(mut self, say: &mut impl FnMut(&str)) -> Result<Report> {
        let mut running = FuturesUnordered::new();
        let mut next = 0;
        let mut phase = 0;
        while next < self.options.connections {
            let settings = &PHASES[phase % PHASES.len()];
            for host in [&self.lab.client, &self.lab.server] {
                settings.apply(host)?;
            }
            let until = self.options.connections.min(next + self.phase_length());
            let mut next_look = Instant::now() + self.between_looks();
            loop {
                while next < until && running.len() < AT_ONCE + self.stage.holding.load(Ordering::Relaxed) {
                    let plan = self.draw(next, settings.cookies());
                    next += 1;
                    running.push(perform(plan, self.stage));
                }
                if next == until && running.len() <= self.stage.holding.load(Ordering::Relaxed) {
                    break;
                }
                tokio::select! {
                    Some((plan, outcome)) = running.next() => self.note(plan, outcome),
                    () = tokio::time::sleep_until(next_look) => {
                        self.compare()?;
                        next_look = Instant::now() + self.between_looks();
                    }
                    // Who begins to hold still wakes nobody.
                    () = tokio::time::sleep(BREATH) => {}
                }
            }
            self.calm_down().await;
            self.compare()?;
            self.quiet.send_modify(|count| *count += 1);
            phase += 1;
            say(&format!(
                "{next} of {} connections, {} comparisons, {} unexplained so far",
                self.options.connections,
                self.report.comparisons,
                self.report.unexplained()
            ));
        }
        while let Some((plan, outcome)) = running.next().await {
            self.note(plan, outcome);
        }
        self.calm_down().await;
        self.compare()?;
        self.compare_closes()?;
        Ok(self.report)
    }

    /// The plan with this number; now and then on a tuple that was used before.
    fn draw(&mut self, number: u64, cookies: bool) -> Plan {
        let mut plan = Plan::draw(self.options.weather.seed, number, self.lab.supports(Family::Ipv6));
        plan.cookies = cookies;
        if self.dice.u8(0..20) == 0 && self.finished.len() > AT_ONCE {
            // Not the latest: Linux uses a TIME-WAIT again after a second at the earliest (tcp_tw_reuse_delay).
            let index = self.dice.usize(0..self.finished.len() - AT_ONCE / 2);
            let earlier = self.finished[index];
            // Linux takes a tuple out of FIN-WAIT-2 too, and then resets what its peer still sends.
            if self.is_through(&earlier) {
                self.finished.swap_remove(index);
                (plan.family, plan.opener, plan.ports) = (earlier.family, earlier.opener, earlier.ports);
                if matches!(plan.ending, plan::Ending::Refused) {
                    plan.ending = plan::Ending::Fins;
                }
            }
        }
        let (client, server) = plan.addresses(self.lab);
        self.plans.entry(key(client, server)).or_default().push(plan);
        self.report.connections += 1;
        plan
    }

    /// Whether everything that its hosts have sent has come.
    fn is_through(&self, plan: &Plan) -> bool {
        let (client, server) = plan.addresses(self.lab);
        let ways = self.wire.with_trails(|trails| trails.ways(client, server));
        [Side::Client, Side::Server].into_iter().all(|side| !is_behind(&ways, side))
    }

    fn note(&mut self, plan: Plan, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => self.report.as_planned += 1,
            Err(why) => {
                *self.report.otherwise.entry(format!("{}: {why}", plan.ending.name())).or_default() += 1
            }
        }
        if outcome.is_ok() && plan.ending != plan::Ending::Refused {
            self.finished.push(plan);
        }
        if outcome.as_ref().is_err_and(|why| why.contains(NOT_SENT)) {
            return;
        }
        let (client, server) = plan.addresses(self.lab);
        self.made.entry(key(client, server)).or_default().push(Made { plan, outcome });
    }

    /// Waits until nothing is under way any more, or only what waits for a long timer.
    async fn calm_down(&self) {
        let limit = Instant::now() + CALM_LIMIT;
        while self.wire.silence() < CALM && Instant::now() < limit {
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Stops the cable and compares everything. No program runs meanwhile: they share this thread.
    fn compare(&mut self) -> Result<()> {
        self.wire.stop();
        // What was delivered is dealt with, what the agents were handed is applied.
        std::thread::sleep(SETTLE);
        let before = self.kernels()?;
        let asked_at = std::time::Instant::now();
        let ours = [self.agents[0].list()?, self.agents[1].list()?];
        let conntrack = self.options.conntrack.then(|| conntrack::states(&self.lab.server)).transpose()?;
        let after = self.kernels()?;
        self.wire.with_trails(|trails| {
            let kernels = before.into_iter().zip(after).map(|(before, after)| [before, after]);
            let kernels: Vec<_> = kernels.collect();
            let Ok(kernels) = <[_; 2]>::try_from(kernels) else { return };
            let look = Look { kernels, asked_at, ours, conntrack, trails, plans: &self.plans };
            look.compare(Side::Client, &mut self.report);
            look.compare(Side::Server, &mut self.report);
            for (records, connections) in self.records.iter_mut().zip(look.ours) {
                connections.into_iter().for_each(|connection| records.note(connection));
            }
        });
        self.report.comparisons += 1;
        self.wire.go_on();
        Ok(())
    }

    fn kernels(&self) -> Result<[KernelSockets; 2]> {
        Ok([connected(self.lab.client.sockets()?), connected(self.lab.server.sockets()?)])
    }

    fn compare_closes(&mut self) -> Result<()> {
        self.wire.flush()?;
        for (agent, records) in self.agents.iter().zip(&mut self.records) {
            for (what, count) in agent.losses()? {
                self.report.closes.differ(None, format!("an agent says {what}"), || count.to_string());
            }
            agent.closes()?.into_iter().for_each(|connection| records.note(connection));
            self.wire.with_trails(|trails| {
                records.compare(self.lab, &self.made, trails, &mut self.report.closes);
            });
        }
        self.wire.with_trails(|trails| self.report.frames = trails.totals());
        Ok(())
    }

    fn phase_length(&self) -> u64 {
        (self.options.connections / 12).clamp(500, 10_000)
    }

    fn between_looks(&mut self) -> Duration {
        Duration::from_millis(self.dice.u64(300..1500))
    }
}

async fn perform(plan: Plan, stage: &Stage<'_>) -> (Plan, Result<(), String>) {
    (plan, plan.perform(stage).await.map_err(|error| format!("{error:#}")))
}

/// The kernel sends no SYN where it may not use the tuple again yet (EADDRNOTAVAIL).
const NOT_SENT: &str = "Cannot assign requested address";
/// Connections at once, besides those that hold still.
const AT_ONCE: usize = 400;
const BREATH: Duration = Duration::from_millis(20);
/// Longer than the first retransmission timer.
const CALM: Duration = Duration::from_millis(450);
const KNOCK_LIMIT: Duration = Duration::from_secs(30);
const CALM_LIMIT: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_millis(40);
