//! The cost of each segment in the life of a connection: lives cut off after each segment take turns, and
//! their costs are subtracted. As in [`crate::opens`], the first segment of a connection finds nothing in the
//! cache.

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};
use tcp_common::{End, Flags};

use crate::bpf::Program;
use crate::conversation::Segment;
use crate::report::Series;
use crate::size::Size;
use crate::source::{Action, Delivery, Order, Source};

pub(crate) fn measure(size: &Size) -> Result<Value> {
    let count = *size.opens.first().context("a number of connections")?;
    let options =
        LoadOptions { max_flows: count, max_flows_v6: 64, ring_bytes: 128 << 20, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options)?;
    let mut events = kernel.take_events().context("the ring of events")?;
    let program = Program::find(std::process::id(), ProgramName::Xdp)?;
    let life = LIFE.map(|(_, segment)| segment);
    let source = |steps, then| Source::new(Order::Each(&life[..steps]), then);
    let parse = source(life.len(), Action::Parse)?;
    let lives = (1..=life.len()).map(|steps| source(steps, Action::Program(&program)));
    let lives = lives.collect::<Result<Vec<_>>>()?;
    let mut series = Series::new(format!("XDP alone, each segment of a connection's life, {count} of them"));
    for _ in 0..size.long_rounds {
        series.add(PARSE, parse.all(Delivery::TestRun, 0..count, || {})? / life.len() as f64);
        let mut before = 0.0;
        for ((name, _), life) in LIFE.iter().zip(&lives) {
            kernel.table().clear();
            let read = || {
                events.drain(usize::MAX, |_| {});
            };
            let cost = life.all(Delivery::TestRun, 0..count, read)?;
            series.add(name, cost - before);
            before = cost;
        }
        series.add(ALL, before);
    }
    ensure!(kernel.counters()?.events_lost == 0, "events are part of what is measured");
    Ok(json!({ "title": "The segments of a connection's life", "alone": series.print(PARSE, None) }))
}

/// A opens, sends, and closes first. Every step except the first SYN and the data sends an event. The data is not predicted yet: only
/// its ACK proves that the server is ESTABLISHED.
const LIFE: [(&str, Segment); 9] = [
    ("SYN", (End::A, Flags::SYN, (1000, 0, 0))),
    ("SYN-ACK", (End::B, Flags::SYN | Flags::ACK, (5000, 1001, 0))),
    ("ACK of it", (End::A, Flags::ACK, (1001, 5001, 0))),
    ("data", (End::A, Flags::ACK, (1001, 5001, 100))),
    ("its ACK", (End::B, Flags::ACK, (5001, 1101, 0))),
    ("FIN", (End::A, Flags::FIN | Flags::ACK, (1101, 5001, 0))),
    ("ACK of the FIN", (End::B, Flags::ACK, (5001, 1102, 0))),
    ("the other FIN", (End::B, Flags::FIN | Flags::ACK, (5001, 1102, 0))),
    ("the last ACK", (End::A, Flags::ACK, (1102, 5002, 0))),
];
const PARSE: &str = "bare parse";
const ALL: &str = "all segments";
