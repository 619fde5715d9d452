//! The history on disk while 50,000 connections close each second: what the agent loses, and what the disk.
//!
//! The agent runs as its users run it, with the default sizes. Its XDP program processes the frames of connections that are
//! opened and aborted at an even pace. Nothing is asserted of times: the number of events that were lost, and what became
//! of each connection, are printed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::ProgramName;
use finwait::lab::Lab;
use serde_json::{Value, json};
use tcp_common::{End, Flags};

use crate::agent::{Agent, sum};
use crate::bpf::Program;
use crate::conversation::{OPENING, Segment};
use crate::size::Size;
use crate::source::{Action, Delivery, Order, Source};

/// Measures the agent `finwait`, without a history on disk and with one.
pub(crate) fn measure(finwait: &Path, size: &Size) -> Result<Value> {
    let directory = std::env::temp_dir().join(format!("finwait-bench-{}-history", std::process::id()));
    let path = directory.to_str().context("the path of the history")?;
    println!("\nThe history on disk");
    let runs = [run("without", finwait, size, &[]), run("with", finwait, size, &["--history-dir", path])];
    let _ = fs::remove_dir_all(&directory);
    let [without, with] = runs;
    Ok(json!({ "title": "The history on disk", "without": without?, "with": with? }))
}

fn run(name: &str, finwait: &Path, size: &Size, more: &[&str]) -> Result<Value> {
    let lab = Lab::new()?;
    let agent = lab.server.run(|| Agent::start(finwait, "lo", "tc", MAX_FLOWS, size.msl, more))??;
    let program = Program::find(agent.process().id(), ProgramName::Xdp)?;
    let source = Source::new(Order::Each(LIFE), Action::Program(&program))?;
    let (begun, cpu) = (Instant::now(), agent.cpu()?);
    let slices = size.history * SLICES;
    for slice in 0..slices {
        source.all(Delivery::TestRun, slice * CLOSES..(slice + 1) * CLOSES, || {})?;
        let due = Duration::from_secs(1) * (slice + 1) / SLICES;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), agent.cpu()? - cpu);
    let closes = u64::from(slices * CLOSES);
    let count = |page: &str| {
        // Which of them counts depends on the addresses of the host.
        ["finwait_connections_closed_total", "finwait_forwarded_connections_closed_total"]
            .into_iter()
            .map(|name| sum(page, name))
            .sum()
    };
    let page = lab.server.run(|| wait_for(&agent, closes, count))??;
    let lost = sum(&page, "finwait_events_lost_total");
    print!(
        "{name:<8} {closes} closes in {seconds:.1} s ({:.0}/s); events lost: {lost}; CPU of the agent: {:.0} ms/s",
        closes as f64 / seconds,
        cpu / seconds * 1e3,
    );
    let mut row = json!({
        "closes": closes, "seconds": seconds, "events_lost": lost, "cpu_seconds_per_second": cpu / seconds,
    });
    if !more.is_empty() {
        let page = lab.server.run(|| wait_for(&agent, closes, |page| sum(page, OUTCOMES)))??;
        let outcomes = ["written", "queue_full", "disk_full", "failed"];
        let counts = outcomes.map(|name| sum(&page, &format!("{OUTCOMES}{{outcome=\"{name}\"}}")));
        let megabytes = sum(&page, "finwait_history_bytes") as f64 / 1e6;
        for (name, count) in outcomes.into_iter().zip(counts) {
            print!("; {name}: {count}");
            row[name] = count.into();
        }
        print!("; files: {megabytes:.0} MB");
        row["files_mb"] = megabytes.into();
    }
    println!();
    Ok(row)
}

/// Waits until the agent has counted this many closes. Returns its metrics page.
fn wait_for(agent: &Agent, closes: u64, count: impl Fn(&str) -> u64) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let (page, _) = agent.scrape()?;
        if count(&page) >= closes {
            return Ok(page);
        }
        ensure!(Instant::now() < deadline, "{} of {closes} closes are counted", count(&page));
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A connection that is opened, and aborted by its client.
const LIFE: &[Segment] =
    &[OPENING[0], OPENING[1], OPENING[2], (End::A, Flags::RST | Flags::ACK, (1001, 5001, 0))];
/// Parts of a second.
const SLICES: u32 = 100;
/// Closes in a part of a second: 50,000 in all of them.
const CLOSES: u32 = 500;
/// Size of the flow table: closed connections stay there for a while.
const MAX_FLOWS: u32 = 1 << 20;
const OUTCOMES: &str = "finwait_history_connections_total";
