//! The cost of a spoofed SYN in a SYN flood, with room in the table and with a full table. Half-open
//! connections evict each other; established connections must stay.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::{Events, Kernel, LoadOptions, ProgramName};
use serde_json::{Value, json};

use crate::bpf::Program;
use crate::conversation::{ACK, OPENING, Segment};
use crate::hosts::{self, Hosts};
use crate::report::Series;
use crate::size::Size;
use crate::source::{Action, Delivery, Order, Source};

/// Measures the flood. finwait's table has the capacity of nf_conntrack's.
pub(crate) fn measure(size: &Size) -> Result<Value> {
    // Number ranges of the connections, without overlap.
    let most = hosts::most_tracked()?.min(1 << 20);
    let options = LoadOptions { max_flows: most, max_flows_v6: 64, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options)?;
    let events = kernel.take_events().context("the ring of events")?;
    let mut setup = Setup {
        kernel,
        events,
        finwait: Program::find(std::process::id(), ProgramName::Xdp)?,
        hosts: Hosts::new(0)?,
        most,
        flood: size.flood,
    };
    let title = |what| format!("Live frames, a spoofed SYN, {what}, CPU time up to the end of the stack");
    let mut room = Series::new(title("with room in the table"));
    let mut full = Series::new(title("with a full table"));
    let mut stayed = LIVE;
    for _ in 0..size.long_rounds {
        stayed = stayed.min(setup.round(&mut room, &mut full)?);
    }
    let values = [&room, &full].map(|series| series.print(STACK, Some(CONNTRACK)));
    println!(
        "tables for {most} connections; of {LIVE} established ones, at least {stayed} remain after each flood"
    );
    Ok(json!({ "title": "Flood", "most": most, "live": LIVE, "stayed": stayed, "series": values }))
}

struct Setup {
    kernel: Kernel,
    events: Events,
    finwait: Program,
    hosts: Hosts,
    most: u32,
    flood: u32,
}

impl Setup {
    /// Number of the established connections that finwait still has.
    fn round(&mut self, room: &mut Series, full: &mut Series) -> Result<u32> {
        self.kernel.table().clear();
        self.hosts.forget()?;
        let (plain, tracked) = (self.hosts.plain(), self.hosts.tracked());
        let Setup { events, finwait, most, flood, .. } = self;
        let mut read = || {
            events.drain(usize::MAX, |_| {});
        };
        let finwait = Action::Program(finwait);
        for (name, host, then) in
            [(STACK, plain, Action::Pass), (FINWAIT, plain, finwait), (CONNTRACK, tracked, Action::Pass)]
        {
            let (while_room, when_full) = host.run(|| -> Result<(f64, f64)> {
                Source::new(Order::Each(&OPENING), then)?.all(Delivery::Live, 0..LIVE, &mut read)?;
                let source = Source::new(Order::Each(&[SYN]), then)?;
                let mut next = LIVE;
                let mut some = |count: u32| -> Result<f64> {
                    let numbers: Range<u32> = next..next + count;
                    next += count;
                    source.all(Delivery::Live, numbers, &mut read)
                };
                let while_room = some(*most / 2)?;
                some(*most)?;
                Ok((while_room, some(*flood)?))
            })??;
            room.add(name, while_room);
            full.add(name, when_full);
        }
        let before = self.kernel.counters()?.predicted[0][0];
        Source::new(Order::Each(&[ACK]), finwait)?.all(Delivery::TestRun, 0..LIVE, || {})?;
        let stayed = self.kernel.counters()?.predicted[0][0] - before;
        ensure!(self.hosts.count()? > u64::from(*most) / 2, "nf_conntrack has not taken up the flood");
        Ok(u32::try_from(stayed)?)
    }
}

const SYN: Segment = OPENING[0];
/// Established connections.
const LIVE: u32 = 1000;
const STACK: &str = "stack only";
const FINWAIT: &str = "finwait XDP, with an event";
const CONNTRACK: &str = "nf_conntrack";
