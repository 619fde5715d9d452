//! What a packet costs: `cargo xtask bench`. Every time is taken by the kernel or is CPU time inside one system call, so
//! the profile this program is built with does not matter.

mod bare;
mod conversation;
mod live;
mod report;
mod runs;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use serde_json::json;

/// Measures the kernel programs beside bare programs and nf_conntrack. Needs root.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Fewer and shorter rounds, fewer flows.
    #[arg(long)]
    quick: bool,
    /// Where the numbers go.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
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
    let report = json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "load": fs::read_to_string("/proc/loadavg")?.trim(),
        "quick": arguments.quick,
        "verified_instructions": kernel.verified_instructions().iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        "series": series,
    });
    if let Some(folder) = arguments.json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(&arguments.json, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("writing {}", arguments.json.display()))?;
    println!("\nall rounds: {}", arguments.json.display());
    Ok(())
}
