//! The cost of a packet of an established connection by the number of connections, in random order: finwait,
//! a small tracker on a BPF hash map and nf_conntrack. For comparison, one dependent cache miss in as much
//! memory.

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Ingress, Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};

use crate::bare::{self, HashTracker};
use crate::bpf::Program;
use crate::chase::Chase;
use crate::conversation::{ACK, Conversation, OPENING};
use crate::hosts::Hosts;
use crate::report::Series;
use crate::size::{Size, fitting_in_memory};
use crate::source::{Action, Delivery, Order, Source};

/// Fills every tracker with the highest number of connections. Rounds then use some or all of them.
pub(crate) fn measure(size: &Size) -> Result<Value> {
    let flows = fitting_in_memory(size.flows)?;
    let setup = Setup::new(flows.iter().copied().max().unwrap_or(1))?;
    let mut steps: Vec<Step> = flows.iter().map(|&flows| Step::new(&setup, flows)).collect::<Result<_>>()?;
    let (mut kernel, hand_on) = (setup.kernel, bare::hand_on()?);
    for _ in 0..size.long_rounds {
        for step in &mut steps {
            step.round(&mut kernel, &setup.hosts, &hand_on, size.frames)?;
        }
    }
    let values: Vec<Value> = steps.iter().map(Step::print).collect();
    print_growth(&steps);
    Ok(json!({
        "title": "Growth", "table_bytes": kernel.table().bytes(),
        "flows": flows, "steps": values,
    }))
}

/// The three trackers, filled with all connections.
struct Setup {
    kernel: Kernel,
    finwait: Program,
    hash: HashTracker,
    hosts: Hosts,
}

impl Setup {
    fn new(most: u32) -> Result<Setup> {
        let options = LoadOptions { max_flows: most, max_flows_v6: 64, ..LoadOptions::default() };
        let mut kernel = Kernel::load(&options)?;
        let mut events = kernel.take_events().context("the ring of events")?;
        let finwait = Program::find(std::process::id(), ProgramName::Xdp)?;
        let hash = HashTracker::new(most)?;
        let hosts = Hosts::new(most)?;
        let source = |then| Source::new(Order::Each(&OPENING), then);
        source(Action::Program(&finwait))?.all(Delivery::TestRun, 0..most, || {
            events.drain(usize::MAX, |_| {});
        })?;
        source(Action::Hash(&hash))?.all(Delivery::TestRun, 0..most, || {})?;
        let stack = source(Action::Pass)?;
        hosts.tracked().run(|| stack.all(Delivery::Live, 0..most, || {}))??;
        let setup = Setup { kernel, finwait, hash, hosts };
        setup.check(most)?;
        Ok(setup)
    }

    /// Checks that the trackers have the same connections. finwait may lack a few, which were evicted while
    /// they were half-open.
    fn check(&self, most: u32) -> Result<()> {
        let ours = self.kernel.table().entries().count() as u64;
        println!("\nfinwait has {ours} of {most} connections");
        ensure!(1000 * ours >= 995 * u64::from(most), "too many of finwait's connections are not there");
        let last = Conversation { ipv6: false, number: most - 1 };
        let packets = self.hash.packets(&last.ack())?;
        ensure!(packets == Some(2), "the hash map has {packets:?} of 2 packets of the last connection");
        let tracked = self.hosts.count()?;
        ensure!(tracked == u64::from(most), "nf_conntrack has {tracked} of {most} connections");
        Ok(())
    }
}

/// Measurements with one number of connections.
struct Step {
    flows: u32,
    pass: Source,
    parse: Source,
    hash: Source,
    finwait: Source,
    chase: Chase,
    alone: Series,
    live: Series,
    misses: Series,
}

impl Step {
    fn new(setup: &Setup, flows: u32) -> Result<Step> {
        let source = |then| Source::new(Order::Random(flows, ACK), then);
        let of = format!("established ACK IPv4 of {flows} connections in random order");
        Ok(Step {
            flows,
            pass: source(Action::Pass)?,
            parse: source(Action::Parse)?,
            hash: source(Action::Hash(&setup.hash))?,
            finwait: source(Action::Program(&setup.finwait))?,
            chase: Chase::new(flows, setup.kernel.table().bytes())?,
            alone: Series::new(format!("XDP alone, {of}")),
            live: Series::new(format!("Live frames, {of}, CPU time up to the end of the stack")),
            misses: Series::new(format!("One dependent cache miss among {flows} lines")),
        })
    }

    fn round(&mut self, kernel: &mut Kernel, hosts: &Hosts, hand_on: &Program, frames: u32) -> Result<()> {
        let cost = |source: &Source, delivery| cost(source, delivery, frames, self.flows);
        let before = kernel.counters()?.predicted[0][0];
        self.alone.add(PARSE, cost(&self.parse, Delivery::TestRun)?);
        self.alone.add(HASH, cost(&self.hash, Delivery::TestRun)?);
        self.alone.add(FINWAIT, cost(&self.finwait, Delivery::TestRun)?);
        hosts.plain().run(|| -> Result<()> {
            self.live.add(STACK, cost(&self.pass, Delivery::Live)?);
            self.live.add(HASH, cost(&self.hash, Delivery::Live)?);
            self.live.add(FINWAIT, cost(&self.finwait, Delivery::Live)?);
            if let Ok(_link) = hand_on.attach_tc(1) {
                self.live.add(PASS_TC, cost(&self.pass, Delivery::Live)?);
            }
            let attachment = kernel.attach("lo", 1, true, Ingress::Tc, false)?;
            self.live.add(FINWAIT_TC, cost(&self.pass, Delivery::Live)?);
            drop(attachment);
            Ok(())
        })??;
        self.live.add(CONNTRACK, hosts.tracked().run(|| cost(&self.pass, Delivery::Live))??);
        self.misses.add(CHASE, self.chase.cost(frames));
        let predicted = kernel.counters()?.predicted[0][0] - before;
        let all = 3 * u64::from(frames + frames.min(self.flows));
        ensure!(predicted >= all / 100 * 99, "finwait predicted {predicted} of {all} ACKs");
        Ok(())
    }

    fn print(&self) -> Value {
        json!({
            "flows": self.flows,
            "alone": self.alone.print(PARSE, None),
            "live": self.live.print(STACK, Some(CONNTRACK)),
            "miss": self.misses.print(CHASE, None),
        })
    }
}

/// Measures the mean of a frame in ns, after as many frames as there are connections.
fn cost(source: &Source, delivery: Delivery, frames: u32, flows: u32) -> Result<f64> {
    source.cost(delivery, frames.min(flows))?;
    source.cost(delivery, frames)
}

/// Prints what each tracker adds, and how that grows.
fn print_growth(steps: &[Step]) {
    println!("\nAdded to a packet, by the number of connections (live frames; ns)");
    println!(
        "{:<14}{:>12}{:>14}{:>12}{:>12}{:>15}{:>12}",
        "", FINWAIT, PASS_TC, FINWAIT_TC, HASH, CONNTRACK, CHASE
    );
    for step in steps {
        let added = |name: &str| step.live.added(name, STACK).unwrap_or(f64::NAN);
        let [ours, hook, tc, hash, conntrack] = [FINWAIT, PASS_TC, FINWAIT_TC, HASH, CONNTRACK].map(added);
        let miss = step.misses.median(CHASE).unwrap_or(f64::NAN);
        println!(
            "{:<14}{ours:>12.1}{hook:>14.1}{tc:>12.1}{hash:>12.1}{conntrack:>15.1}{miss:>12.1}",
            step.flows
        );
    }
    // With fewer connections the table would fit into the CPU's inner caches.
    let (Some(from), Some(to)) = (steps.iter().find(|step| step.flows >= 10_000), steps.last()) else {
        return;
    };
    let [ours, miss] = [|step: &Step| step.live.median(FINWAIT), |step: &Step| step.misses.median(CHASE)]
        .map(|of| of(to).zip(of(from)).map_or(f64::NAN, |(to, from)| to - from));
    println!("from {} to {}: finwait XDP {ours:+.1} ns, a miss {miss:+.1} ns", from.flows, to.flows);
}

const PARSE: &str = "bare parse";
const STACK: &str = "stack only";
const HASH: &str = "BPF HASH";
const FINWAIT: &str = "finwait XDP";
/// A case that is measured only with TCX (Linux 6.6).
const PASS_TC: &str = "TC pass only";
const FINWAIT_TC: &str = "finwait TC";
const CONNTRACK: &str = "nf_conntrack";
const CHASE: &str = "cache miss";
