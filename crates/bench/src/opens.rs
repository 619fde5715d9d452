//! What a new connection costs: SYN, SYN-ACK and ACK of connections never seen before, into tables that are empty at first and
//! in the end as full as they may be. finwait tells each in its ring, which is read between.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Events, Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};

use crate::bare::HashTracker;
use crate::bpf::Program;
use crate::conversation::{OPENING, Segment};
use crate::hosts::Hosts;
use crate::report::Series;
use crate::source::{Order, Source, Then, Way, thread_ns};
use crate::{Size, that_fit};

/// Each round as many connections with each as there is memory for.
pub(crate) fn measure(size: &Size) -> Result<Value> {
    let connections = *that_fit(size.opens)?.last().context("there is no memory for so many connections")?;
    let options = LoadOptions {
        max_flows: connections,
        max_flows_v6: 64,
        ring_bytes: 64 << 20,
        ..LoadOptions::default()
    };
    let mut kernel = Kernel::load(&options)?;
    let events = kernel.take_events().context("the ring of events")?;
    let program = Program::find(std::process::id(), ProgramName::Xdp)?;
    let source = |then| Source::new(Order::Each(HANDSHAKE), then);
    let mut ground = Ground {
        pass: source(Then::Pass)?,
        parse: source(Then::Parse)?,
        finwait: source(Then::Program(&program))?,
        kernel,
        events,
        hosts: Hosts::new(connections)?,
        connections,
        told: 0,
        reading_ns: 0.0,
        writing_ns: Vec::new(),
    };
    let mut series = [
        ("XDP alone, a new connection (SYN, SYN-ACK, ACK)", Way::TestRun),
        ("Live frames, a new connection (SYN, SYN-ACK, ACK), CPU time of the whole way", Way::Live),
    ]
    .map(|(title, way)| (Series::new(format!("{title}, {connections} of them")), way));
    for _ in 0..size.long_rounds {
        for (series, way) in &mut series {
            ground.round(series, *way)?;
        }
    }
    let reading = ground.reading_ns / ground.told as f64;
    ground.writing_ns.sort_by(f64::total_cmp);
    let writing = ground.writing_ns[ground.writing_ns.len() / 2];
    println!(
        "\nan event: {writing:.1} ns to write, {reading:.1} ns to read; {} read, none lost",
        ground.told
    );
    let [alone, live] = &series;
    Ok(json!({
        "title": "New connections", "connections": connections, "ns_to_read_an_event": reading,
        "ns_to_write_an_event": writing,
        "alone": alone.0.print(PARSE, None), "live": live.0.print(STACK, Some(CONNTRACK)),
    }))
}

struct Ground {
    kernel: Kernel,
    events: Events,
    pass: Source,
    parse: Source,
    finwait: Source,
    hosts: Hosts,
    connections: u32,
    told: u64,
    /// CPU time for that.
    reading_ns: f64,
    /// What is saved, an event, where the ring is full.
    writing_ns: Vec<f64>,
}

impl Ground {
    fn round(&mut self, series: &mut Series, way: Way) -> Result<()> {
        let connections = self.connections;
        let hash = HashTracker::new(connections)?;
        let hash = Source::new(Order::Each(HANDSHAKE), Then::Hash(&hash))?;
        self.kernel.table().clear();
        let plain = self.hosts.plain();
        let base = if way == Way::Live { (STACK, &self.pass) } else { (PARSE, &self.parse) };
        for (name, source) in [base, (HASH, &hash)] {
            series.add(name, plain.run(|| source.all(way, 0..connections, || {}))??);
        }
        let (events, told, reading_ns) = (&mut self.events, &mut self.told, &mut self.reading_ns);
        let read = || {
            let before = thread_ns();
            *told += events.drain(usize::MAX, |event| {
                // All of it, whatever of it somebody needs.
                black_box(*event);
            }) as u64;
            *reading_ns += thread_ns() - before;
        };
        let before = self.kernel.counters()?;
        let cost = plain.run(|| self.finwait.all(way, 0..connections, read))??;
        series.add(FINWAIT, cost);
        let after = self.kernel.counters()?;
        let events = after.events - before.events;
        ensure!(events > 0 && after.events_lost == before.events_lost, "events are part of what is measured");
        // A few make room for others while they are half open.
        let listed = self.kernel.table().entries().count() as u64;
        ensure!(
            1000 * listed >= 995 * u64::from(connections),
            "finwait has {listed} of {connections} connections"
        );
        if way == Way::TestRun {
            self.without_room()?;
            let full = self.without_room()?;
            self.writing_ns.push((cost - full) * f64::from(connections) / events as f64);
            self.events.drain(usize::MAX, |_| {});
        }
        if way == Way::Live {
            let theirs = || self.pass.all(way, 0..connections, || {});
            series.add(CONNTRACK, self.hosts.tracked().run(theirs)??);
            let tracked = self.hosts.count()?;
            ensure!(
                tracked == u64::from(connections),
                "nf_conntrack has {tracked} of {connections} connections"
            );
            self.hosts.forget()?;
        }
        Ok(())
    }

    /// The same where nobody reads.
    fn without_room(&self) -> Result<f64> {
        self.kernel.table().clear();
        self.finwait.all(Way::TestRun, 0..self.connections, || {})
    }
}

const HANDSHAKE: &[Segment] = OPENING.split_at(3).0;
const PARSE: &str = "bare parse, three frames";
const STACK: &str = "stack only";
const HASH: &str = "BPF HASH (no event)";
const FINWAIT: &str = "finwait XDP, with its event";
const CONNTRACK: &str = "nf_conntrack";
