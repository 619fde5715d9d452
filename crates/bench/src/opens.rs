//! The cost of a new connection: SYN, SYN-ACK and ACK of unknown connections, into tables that are empty at
//! first and full at the end. finwait reports each connection by an event in its ring, which is read
//! meanwhile.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Events, Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};

use crate::bare::HashTracker;
use crate::bpf::Program;
use crate::conversation::{OPENING, Segment};
use crate::hosts::Hosts;
use crate::report::Series;
use crate::size::{Size, fitting_in_memory};
use crate::source::{Action, Delivery, Order, Source, thread_ns};

/// Opens as many connections per round as memory allows.
pub(crate) fn measure(size: &Size) -> Result<Value> {
    let connections = *fitting_in_memory(size.opens)?
        .last()
        .context("the memory is too small for this number of connections")?;
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
    let mut setup = Setup {
        pass: source(Action::Pass)?,
        parse: source(Action::Parse)?,
        finwait: source(Action::Program(&program))?,
        kernel,
        events,
        hosts: Hosts::new(connections)?,
        connections,
        told: 0,
        reading_ns: 0.0,
        writing_ns: Vec::new(),
    };
    let mut series = [
        ("XDP alone, a new connection (SYN, SYN-ACK, ACK)", Delivery::TestRun),
        (
            "Live frames, a new connection (SYN, SYN-ACK, ACK), CPU time up to the end of the stack",
            Delivery::Live,
        ),
    ]
    .map(|(title, delivery)| (Series::new(format!("{title}, {connections} of them")), delivery));
    for _ in 0..size.long_rounds {
        for (series, delivery) in &mut series {
            setup.round(series, *delivery)?;
        }
    }
    let reading = setup.reading_ns / setup.told as f64;
    setup.writing_ns.sort_by(f64::total_cmp);
    let writing = setup.writing_ns[setup.writing_ns.len() / 2];
    println!("\nan event: {writing:.1} ns to write, {reading:.1} ns to read; {} read, none lost", setup.told);
    let [alone, live] = &series;
    Ok(json!({
        "title": "New connections", "connections": connections, "ns_to_read_an_event": reading,
        "ns_to_write_an_event": writing,
        "alone": alone.0.print(PARSE, None), "live": live.0.print(STACK, Some(CONNTRACK)),
    }))
}

struct Setup {
    kernel: Kernel,
    events: Events,
    pass: Source,
    parse: Source,
    finwait: Source,
    hosts: Hosts,
    connections: u32,
    told: u64,
    /// CPU time of reading the events, in ns.
    reading_ns: f64,
    /// CPU time saved by an event, where the ring is full.
    writing_ns: Vec<f64>,
}

impl Setup {
    fn round(&mut self, series: &mut Series, delivery: Delivery) -> Result<()> {
        let connections = self.connections;
        let hash = HashTracker::new(connections)?;
        let hash = Source::new(Order::Each(HANDSHAKE), Action::Hash(&hash))?;
        self.kernel.table().clear();
        let plain = self.hosts.plain();
        let base = if delivery == Delivery::Live { (STACK, &self.pass) } else { (PARSE, &self.parse) };
        for (name, source) in [base, (HASH, &hash)] {
            series.add(name, plain.run(|| source.all(delivery, 0..connections, || {}))??);
        }
        let (events, told, reading_ns) = (&mut self.events, &mut self.told, &mut self.reading_ns);
        let read = || {
            let before = thread_ns();
            *told += events.drain(usize::MAX, |event| {
                // Reads every field, as a consumer would.
                black_box(*event);
            }) as u64;
            *reading_ns += thread_ns() - before;
        };
        let before = self.kernel.counters()?;
        let cost = plain.run(|| self.finwait.all(delivery, 0..connections, read))??;
        series.add(FINWAIT, cost);
        let after = self.kernel.counters()?;
        let events = after.events - before.events;
        ensure!(events > 0 && after.events_lost == before.events_lost, "events are part of what is measured");
        // A few connections evict others while they are half-open.
        let listed = self.kernel.table().entries().count() as u64;
        ensure!(
            1000 * listed >= 995 * u64::from(connections),
            "finwait has {listed} of {connections} connections"
        );
        if delivery == Delivery::TestRun {
            self.without_room()?;
            let full = self.without_room()?;
            self.writing_ns.push((cost - full) * f64::from(connections) / events as f64);
            self.events.drain(usize::MAX, |_| {});
        }
        if delivery == Delivery::Live {
            let theirs = || self.pass.all(delivery, 0..connections, || {});
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

    /// Cost of new connections with a full ring.
    fn without_room(&self) -> Result<f64> {
        self.kernel.table().clear();
        self.finwait.all(Delivery::TestRun, 0..self.connections, || {})
    }
}

const HANDSHAKE: &[Segment] = OPENING.split_at(3).0;
const PARSE: &str = "bare parse, three frames";
const STACK: &str = "stack only";
const HASH: &str = "BPF HASH (no event)";
const FINWAIT: &str = "finwait XDP, with an event";
const CONNTRACK: &str = "nf_conntrack";
