//! Measures what a packet costs: `cargo xtask bench`. Every time is measured by the kernel or is CPU time
//! inside one system call, so this program's build profile does not matter.

mod agent;
mod assembler;
mod background;
mod bare;
mod bpf;
mod chase;
mod connects;
mod conversation;
mod flood;
mod growth;
mod history;
mod hosts;
mod opens;
mod page;
mod report;
mod runs;
mod size;
mod source;
mod steps;
mod web;
mod worlds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};
use size::{QUICK, Size, WHOLE};
use worlds::World;

/// Measures the kernel programs, compared with bare programs and nf_conntrack. Needs root.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Run fewer and shorter rounds with fewer connections.
    #[arg(long)]
    quick: bool,
    /// Run one part only.
    #[arg(long)]
    only: Option<Part>,
    /// Compare an ACK of an established connection with a bare parse only. Exit 1 if it costs more than 3
    /// parses, a bound measured on AMD Zen 4.
    #[arg(long)]
    gate: bool,
    /// The finwait binary to measure as the agent.
    #[arg(long, default_value = "target/release/finwait")]
    finwait: PathBuf,
    /// Output file; the plots go to a file with the extension html.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Packets of one connection in the kernel, and the next four parts.
    Packets,
    /// Packets by the number of connections.
    Growth,
    /// New connections.
    Opens,
    /// Each segment in the life of a connection.
    Steps,
    /// A SYN flood.
    Flood,
    /// Real connections without a tracker, with finwait and with nf_conntrack.
    Traffic,
    /// The agent with many connections.
    Agent,
    /// The history on disk, with 50,000 closes a second.
    History,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.gate {
        return gate();
    }
    let size = if arguments.quick { &QUICK } else { &WHOLE };
    // Each part loads its own table.
    let want = |part| arguments.want(part);
    let one = want(Part::Packets).then(|| one_flow(size)).transpose()?;
    let growth = want(Part::Growth).then(|| growth::measure(size)).transpose()?;
    let opens = want(Part::Opens).then(|| opens::measure(size)).transpose()?;
    let steps = want(Part::Steps).then(|| steps::measure(size)).transpose()?;
    let flood = want(Part::Flood).then(|| flood::measure(size)).transpose()?;
    let traffic = want(Part::Traffic).then(|| traffic(&arguments.finwait, size)).transpose()?;
    let agent = want(Part::Agent).then(|| agent::measure(&arguments.finwait, size)).transpose()?;
    let history = want(Part::History).then(|| history::measure(&arguments.finwait, size)).transpose()?;
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
        "history": history,
    });
    if let Some(folder) = arguments.json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(&arguments.json, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("writing {}", arguments.json.display()))?;
    let html = arguments.json.with_extension("html");
    fs::write(&html, page::page(&report)?).with_context(|| format!("writing {}", html.display()))?;
    println!("\nresults: {}; plots and tables: {}", arguments.json.display(), html.display());
    Ok(())
}

fn cpu_model() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("reading the CPU model")?;
    let line = text.lines().find(|line| line.starts_with("model name"));
    Ok(line.and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, model)| model).to_owned())
}

/// Checks that an ACK of an established connection takes the short path, by its cost relative to a bare parse
/// in the same run. The ratio depends on the processor.
fn gate() -> Result<()> {
    let ratio = runs::gate(&Kernel::load(&LoadOptions::default())?)?;
    println!("processor: {}", cpu_model()?);
    println!(
        "an established ACK costs {ratio:.2} bare parses; bound: {GATE:.1}, measured on {GATE_PROCESSOR}"
    );
    if ratio > GATE {
        bail!(
            "the ACK exceeds the bound: it does not take the short path, or the processor is not {GATE_PROCESSOR}"
        );
    }
    Ok(())
}

/// Measures packets of one connection.
fn one_flow(size: &Size) -> Result<Value> {
    let kernel = Kernel::load(&LoadOptions::default())?;
    for (name, count) in kernel.verified_instructions() {
        println!("the verifier processed {count:>7} instructions of {name}");
    }
    let series = [
        runs::hot(&kernel, size, ProgramName::Xdp)?,
        runs::hot(&kernel, size, ProgramName::In)?,
        runs::bulk(&kernel, size)?,
    ];
    let instructions = kernel.verified_instructions().iter().copied().collect::<BTreeMap<_, _>>();
    Ok(json!({ "verified_instructions": instructions, "series": series }))
}

/// Measures real connections.
fn traffic(finwait: &Path, size: &Size) -> Result<Value> {
    let worlds = World::all(finwait)?;
    Ok(json!([connects::measure(&worlds, size)?, web::measure(&worlds, size)?]))
}

/// Bare parses that an established ACK may cost, about twice the measured ratio. Without the short path it
/// costs 10.6.
const GATE: f64 = 3.0;
const GATE_PROCESSOR: &str = "AMD EPYC (Zen 4)";
