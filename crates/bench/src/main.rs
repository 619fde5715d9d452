//! What a packet costs: `cargo xtask bench`. Every time is taken by the kernel or is CPU time inside one system call, so
//! the profile this program is built with does not matter.

mod agent;
mod assembler;
mod bare;
mod bpf;
mod chase;
mod connects;
mod conversation;
mod flood;
mod growth;
mod hosts;
mod kept;
mod opens;
mod page;
mod report;
mod runs;
mod source;
mod steps;
mod web;
mod worlds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};
use worlds::World;

/// Measures the kernel programs beside bare programs and nf_conntrack. Needs root.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Fewer and shorter rounds, fewer flows.
    #[arg(long)]
    quick: bool,
    /// Only one of its parts.
    #[arg(long)]
    only: Option<Part>,
    /// Only looks whether a packet of an established connection keeps to its short way: exit 1 if it costs more than 3
    /// bare parses.
    #[arg(long)]
    gate: bool,
    /// The binary to measure as the agent.
    #[arg(long, default_value = "target/release/finwait")]
    finwait: PathBuf,
    /// Where the numbers go.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a packet costs in the kernel: of one connection, and the next four parts.
    Packets,
    /// By how many connections there are.
    Growth,
    /// Of a new connection.
    Opens,
    /// Of each segment from the first to the last.
    Steps,
    /// Of a SYN that nothing follows.
    Flood,
    /// Real connections, with nothing, finwait and nf_conntrack.
    Traffic,
    /// What the agent costs with many connections.
    Agent,
}

impl Arguments {
    fn want(&self, part: Part) -> bool {
        match self.only {
            None => true,
            Some(Part::Packets) => {
                matches!(part, Part::Packets | Part::Growth | Part::Opens | Part::Steps | Part::Flood)
            }
            Some(only) => part == only,
        }
    }
}

/// How much is measured.
struct Size {
    /// Interleaved rounds.
    rounds: usize,
    /// The same of what takes long.
    long_rounds: usize,
    /// Runs of one frame in one system call.
    repeat: u32,
    /// Frames a round where each has its own system call.
    stream: u32,
    /// Frames a round and case of many connections.
    frames: u32,
    /// Numbers of connections in the kernel programs alone, growing.
    flows: &'static [u32],
    /// Of new connections a round, growing: the highest for which there is memory.
    opens: &'static [u32],
    /// SYNs a round.
    flood: u32,
    /// Real connections a round.
    connects: usize,
    /// Seconds of load a round.
    wrk: u32,
    /// As `flows`, of the agent; each group in a table for the most of it.
    agent: &'static [&'static [u32]],
    /// The agent's `--msl`: half as long as its TIME-WAITs last.
    msl: &'static str,
}

const QUICK: Size = Size {
    rounds: 7,
    long_rounds: 7,
    repeat: 100_000,
    stream: 10_000,
    frames: 50_000,
    flows: &[1, 10_000, 100_000],
    opens: &[50_000],
    flood: 100_000,
    connects: 5_000,
    wrk: 1,
    agent: &[&[1, 100_000]],
    msl: "6s",
};
const WHOLE: Size = Size {
    rounds: 11,
    long_rounds: 7,
    repeat: 400_000,
    stream: 50_000,
    frames: 200_000,
    flows: &[1, 10_000, 100_000, 1_000_000, 4_000_000],
    opens: &[100_000, 1_000_000],
    flood: 400_000,
    connects: 20_000,
    wrk: 2,
    agent: &[&[1, 10_000, 100_000, 1_000_000], &[1, 4_000_000]],
    msl: agent::MSL,
};

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.gate {
        return gate();
    }
    let size = if arguments.quick { &QUICK } else { &WHOLE };
    // Each part has a table of its own.
    let want = |part| arguments.want(part);
    let one = want(Part::Packets).then(|| one_flow(size)).transpose()?;
    let growth = want(Part::Growth).then(|| growth::measure(size)).transpose()?;
    let opens = want(Part::Opens).then(|| opens::measure(size)).transpose()?;
    let steps = want(Part::Steps).then(|| steps::measure(size)).transpose()?;
    let flood = want(Part::Flood).then(|| flood::measure(size)).transpose()?;
    let traffic = want(Part::Traffic).then(|| traffic(&arguments.finwait, size)).transpose()?;
    let agent = want(Part::Agent).then(|| agent::measure(&arguments.finwait, size)).transpose()?;
    let report = json!({
        "cpu": cpu_model()?,
        "cpus": std::thread::available_parallelism()?,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "load": fs::read_to_string("/proc/loadavg")?.trim(),
        "quick": arguments.quick,
        "packets": one,
        "growth": growth,
        "opens": opens,
        "steps": steps,
        "flood": flood,
        "traffic": traffic,
        "agent": agent,
    });
    if let Some(folder) = arguments.json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(&arguments.json, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("writing {}", arguments.json.display()))?;
    let html = arguments.json.with_extension("html");
    fs::write(&html, page::page(&report)?).with_context(|| format!("writing {}", html.display()))?;
    println!("\nall rounds: {}; plots and tables: {}", arguments.json.display(), html.display());
    Ok(())
}

fn cpu_model() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("asking for the CPU's model")?;
    let line = text.lines().find(|line| line.starts_with("model name"));
    Ok(line.and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, model)| model).to_owned())
}

/// The one number of all these that says something of the code whatever the machine.
fn gate() -> Result<()> {
    let ratio = runs::gate(&Kernel::load(&LoadOptions::default())?)?;
    println!("an established ACK costs {ratio:.2} bare parses; more than {GATE:.1} are too many");
    ensure!(ratio <= GATE, "packets of established connections no longer keep to their short way");
    Ok(())
}

/// What a packet of one connection costs.
fn one_flow(size: &Size) -> Result<Value> {
    let kernel = Kernel::load(&LoadOptions::default())?;
    for (name, count) in kernel.verified_instructions() {
        println!("verifier walked {count:>7} instructions for {name}");
    }
    let series = [
        runs::hot(&kernel, size, ProgramName::Xdp)?,
        runs::hot(&kernel, size, ProgramName::In)?,
        runs::bulk(&kernel, size)?,
    ];
    let instructions = kernel.verified_instructions().iter().copied().collect::<BTreeMap<_, _>>();
    Ok(json!({ "verified_instructions": instructions, "series": series }))
}

/// Real connections.
fn traffic(finwait: &Path, size: &Size) -> Result<Value> {
    let worlds = World::all(finwait)?;
    Ok(json!([connects::measure(&worlds, size)?, web::measure(&worlds, size)?]))
}

/// Those numbers of connections for which there is memory twice, in all that is compared.
fn that_fit(flows: &[u32]) -> Result<Vec<u32>> {
    let text = fs::read_to_string("/proc/meminfo").context("asking for the memory that is free")?;
    let available =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("MemAvailable")?;
    let kib: u64 = available.trim().trim_end_matches(" kB").parse().context("MemAvailable")?;
    let (fit, left_out): (Vec<u32>, Vec<u32>) =
        flows.iter().partition(|&&flows| 2 * u64::from(flows) * BYTES_PER_CONNECTION < kib * 1024);
    if !left_out.is_empty() {
        println!("left out for want of memory: {left_out:?} connections");
    }
    Ok(fit)
}

/// About twice what it is; 10.6 were measured with every packet sent through the machine.
const GATE: f64 = 3.0;
/// finwait's, the hash map's and nf_conntrack's together, and as much memory as the first for the cache misses.
const BYTES_PER_CONNECTION: u64 = 1500;
