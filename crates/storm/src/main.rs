//! Runs the socket storm: `cargo xtask storm`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use storm::{Impairment, Options, World};

/// Makes many real connections over a lossy link and compares both ends with both kernels. Needs root.
#[derive(Parser)]
#[command(name = "cargo xtask storm")]
struct Arguments {
    /// What lies between the two hosts.
    #[arg(long, value_enum, default_value_t = World::Cable)]
    world: World,
    /// Number of connections.
    #[arg(long, default_value_t = 100_000)]
    connections: u64,
    /// Seed of the plans and the losses [default: random].
    #[arg(long)]
    seed: Option<u64>,
    /// TCP segments dropped, in percent.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    loss: f64,
    /// TCP segments delivered twice, in percent.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    duplicates: f64,
    /// TCP segments delayed so that others overtake them, in percent.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    reorder: f64,
    /// Compare `nf_conntrack` too (needs `nft`, Debian: nftables).
    #[arg(long)]
    conntrack: bool,
    /// Folder for the capture, the close records and the agents' logs.
    #[arg(long, default_value = "target/storm")]
    folder: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "world {}, seed {seed}; the server host's capture is {}",
        arguments.world.name(),
        arguments.folder.join("server.pcap").display()
    );
    let Arguments { world, connections, loss, duplicates, reorder, conntrack, folder, .. } = arguments;
    let finwait = storm::built_finwait()?;
    let examples = folder.join("report.txt");
    let options = Options {
        world,
        connections,
        impairment: Impairment { seed, loss, duplicates, reorder },
        finwait,
        conntrack,
        folder,
    };
    let report = storm::run(&options, |text| {
        eprintln!("{text}");
        let _ = std::io::stderr().flush();
    })?;
    print!("{report}");
    std::fs::write(&examples, format!("world {}, seed {seed}\n{report:#}", world.name()))?;
    println!("the report with examples of explained differences: {}", examples.display());
    Ok(if report.unexplained() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
