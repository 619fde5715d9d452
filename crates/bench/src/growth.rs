//! What a packet of an established connection costs by how many connections there are, each time in random order: finwait, a
//! small tracker on a BPF hash map, nf_conntrack, and beside them one dependent cache miss in as much memory.

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Ingress, Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};

use crate::bare::{self, HashTracker};
use crate::bpf::Program;
use crate::chase::Chase;
use crate::conversation::{ACK, Conversation, OPENING};
use crate::hosts::Hosts;
use crate::report::Series;
use crate::source::{Order, Source, Then, Way};
use crate::{Size, that_fit};

/// Everything is full of the highest number of connections; rounds then take some or all of them.
pub(crate) fn measure(size: &Size) -> Result<Value> {
    let flows = that_fit(size.flows)?;
    let ground = Ground::new(flows.iter().copied().max().unwrap_or(1))?;
    let mut steps: Vec<Step> = flows.iter().map(|&flows| Step::new(&ground, flows)).collect::<Result<_>>()?;
    let (mut kernel, hand_on) = (ground.kernel, bare::hand_on()?);
    for _ in 0..size.long_rounds {
        for step in &mut steps {
            step.round(&mut kernel, &ground.hosts, &hand_on, size.frames)?;
        }
    }
    let values: Vec<Value> = steps.iter().map(Step::print).collect();
    print_growth(&steps);
    Ok(json!({
        "title": "Growth", "table_bytes": kernel.table().bytes(),
        "flows": flows, "steps": values,
    }))
}

/// The three trackers with all connections in them.
struct Ground {
    kernel: Kernel,
    finwait: Program,
    hash: HashTracker,
    hosts: Hosts,
}

impl Ground {
    fn new(most: u32) -> Result<Ground> {
        let options = LoadOptions { max_flows: most, max_flows_v6: 64, ..LoadOptions::default() };
        let mut kernel = Kernel::load(&options)?;
        let mut events = kernel.take_events().context("the ring of events")?;
        let finwait = Program::find(std::process::id(), ProgramName::Xdp)?;
        let hash = HashTracker::new(most)?;
        let hosts = Hosts::new(most)?;
        let source = |then| Source::new(Order::Each(&OPENING), then);
        source(Then::Program(&finwait))?.all(Way::TestRun, 0..most, || {
            events.drain(usize::MAX, |_| {});
        })?;
        source(Then::Hash(&hash))?.all(Way::TestRun, 0..most, || {})?;
        let stack = source(Then::Pass)?;
        hosts.tracked().run(|| stack.all(Way::Live, 0..most, || {}))??;
        let ground = Ground { kernel, finwait, hash, hosts };
        ground.check(most)?;
        Ok(ground)
    }

    /// What is compared has the same connections in it; but for a few of finwait's, which made room for others while they
    /// were half open.
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

/// One number of connections.
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
    fn new(ground: &Ground, flows: u32) -> Result<Step> {
        let source = |then| Source::new(Order::Random(flows, ACK), then);
        let of = format!("established ACK IPv4 of {flows} connections in random order");
        Ok(Step {
            flows,
            pass: source(Then::Pass)?,
            parse: source(Then::Parse)?,
            hash: source(Then::Hash(&ground.hash))?,
            finwait: source(Then::Program(&ground.finwait))?,
            chase: Chase::new(flows, ground.kernel.table().bytes())?,
            alone: Series::new(format!("XDP alone, {of}")),
            live: Series::new(format!("Live frames, {of}, CPU time of the whole way")),
            misses: Series::new(format!("One dependent cache miss among {flows} lines")),
        })
    }

    fn round(&mut self, kernel: &mut Kernel, hosts: &Hosts, hand_on: &Program, frames: u32) -> Result<()> {
        let cost = |source: &Source, way| cost(source, way, frames, self.flows);
        let before = kernel.counters()?.predicted[0][0];
        self.alone.add(PARSE, cost(&self.parse, Way::TestRun)?);
        self.alone.add(HASH, cost(&self.hash, Way::TestRun)?);
        self.alone.add(FINWAIT, cost(&self.finwait, Way::TestRun)?);
        hosts.plain().run(|| -> Result<()> {
            self.live.add(STACK, cost(&self.pass, Way::Live)?);
            self.live.add(HASH, cost(&self.hash, Way::Live)?);
            self.live.add(FINWAIT, cost(&self.finwait, Way::Live)?);
            if let Ok(_link) = hand_on.attach_tc(1) {
                self.live.add(PASS_TC, cost(&self.pass, Way::Live)?);
            }
            let attachment = kernel.attach("lo", 1, true, Ingress::Tc, false)?;
            self.live.add(FINWAIT_TC, cost(&self.pass, Way::Live)?);
            drop(attachment);
            Ok(())
        })??;
        self.live.add(CONNTRACK, hosts.tracked().run(|| cost(&self.pass, Way::Live))??);
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

/// Mean of a frame, ns, once as many have passed as there are connections.
fn cost(source: &Source, way: Way, frames: u32, flows: u32) -> Result<f64> {
    source.cost(way, frames.min(flows))?;
    source.cost(way, frames)
}

/// What each adds, side by side, and how it grows.
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
    // In fewer the table would be in the caches nearest to the CPU.
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
/// Where there is TCX.
const PASS_TC: &str = "TC pass only";
const FINWAIT_TC: &str = "finwait TC";
const CONNTRACK: &str = "nf_conntrack";
const CHASE: &str = "a miss";
