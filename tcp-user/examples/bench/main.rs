//! What a packet costs: `cargo xtask bench`. Every time is taken by the kernel or is CPU time inside one system call, so
//! the profile this program is built with does not matter.

mod agent;
mod bare;
mod conversation;
mod live;
mod report;
mod runs;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};

/// Measures the kernel programs beside bare programs and nf_conntrack. Needs root.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Fewer and shorter rounds, fewer flows.
    #[arg(long)]
    quick: bool,
    /// Only one of its two parts.
    #[arg(long)]
    only: Option<Part>,
    /// The binary to measure as the agent.
    #[arg(long)]
    finwait: PathBuf,
    /// Where the numbers go.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a packet costs in the kernel.
    Packets,
    /// What the agent costs with many connections.
    Agent,
}

/// How much is measured.
struct Size {
    /// Interleaved rounds.
    rounds: usize,
    /// Runs of one frame in one system call.
    repeat: u32,
    /// Frames a round where each has its own system call.
    stream: u32,
    /// Numbers of flows, growing.
    flows: &'static [u32],
}

const QUICK: Size = Size { rounds: 7, repeat: 100_000, stream: 10_000, flows: &[1, 10_000, 100_000] };
const WHOLE: Size =
    Size { rounds: 11, repeat: 400_000, stream: 50_000, flows: &[1, 10_000, 100_000, 1_000_000] };

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let size = if arguments.quick { &QUICK } else { &WHOLE };
    let packets = (arguments.only != Some(Part::Agent)).then(|| packets(size)).transpose()?;
    let agent = (arguments.only != Some(Part::Packets))
        .then(|| agent::measure(&arguments.finwait, size.flows))
        .transpose()?;
    let report = json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "load": fs::read_to_string("/proc/loadavg")?.trim(),
        "quick": arguments.quick,
        "packets": packets,
        "agent": agent,
    });
    if let Some(folder) = arguments.json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(&arguments.json, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("writing {}", arguments.json.display()))?;
    println!("\nall rounds: {}", arguments.json.display());
    Ok(())
}

fn packets(size: &Size) -> Result<Value> {
    let most = size.flows.iter().copied().max().unwrap_or(1);
    let mut kernel = Kernel::load(&LoadOptions { max_flows: most * 2, ..LoadOptions::default() })?;
    for (name, count) in kernel.verified_instructions() {
        println!("verifier walked {count:>7} instructions for {name}");
    }
    let mut events = kernel.take_events().context("the ring of events")?;
    let series = [
        runs::hot(&kernel, size, ProgramName::Xdp)?,
        runs::hot(&kernel, size, ProgramName::In)?,
        runs::bulk(&kernel, size)?,
        runs::opens(&kernel, size, &mut events)?,
        live::established(&mut kernel, size)?,
        runs::many(&kernel, size)?,
    ];
    let instructions = kernel.verified_instructions().iter().copied().collect::<BTreeMap<_, _>>();
    Ok(json!({ "verified_instructions": instructions, "series": series }))
}
