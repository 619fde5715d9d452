//! Costs by `BPF_PROG_TEST_RUN`: the program alone, without the network stack.

use anyhow::{Context as _, Result};
use finwait::kernel::{Kernel, ProgramName};
use serde_json::Value;
use tcp_common::{End, Flags};

use crate::bare;
use crate::bpf::ProgramType;
use crate::conversation::Conversation;
use crate::report::Series;
use crate::size::Size;

const ONE_V4: Conversation = Conversation { ipv6: false, number: 0 };
const ONE_V6: Conversation = Conversation { ipv6: true, number: 0 };

/// Repeats one frame, with everything in the cache.
pub(crate) fn hot(kernel: &Kernel, size: &Size, program: ProgramName) -> Result<Value> {
    let (program_type, title) = match program {
        ProgramName::Xdp => (ProgramType::Xdp, "XDP, one flow, the same frame again"),
        _ => (ProgramType::Tc, "TC, one flow, the same frame again"),
    };
    let (pass, parse_v4, parse_v6) =
        (bare::pass(program_type)?, bare::parse(program_type, false)?, bare::parse(program_type, true)?);
    kernel.table().clear();
    for frame in ONE_V4.opening().iter().chain(&ONE_V6.opening()) {
        kernel.test_run(program, frame, 1)?;
    }
    let mut arp = ONE_V4.ack();
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut series = Series::new(title);
    for _ in 0..size.rounds {
        let ours = |frame: &[u8]| -> Result<f64> { Ok(ns(kernel.test_run(program, frame, size.repeat)?.1)) };
        series.add("pass only", pass.run(&ONE_V4.ack(), size.repeat)?);
        series.add("bare parse IPv4", parse_v4.run(&ONE_V4.ack(), size.repeat)?);
        series.add("bare parse IPv6", parse_v6.run(&ONE_V6.ack(), size.repeat)?);
        series.add("finwait, ARP", ours(&arp)?);
        series.add("finwait, established ACK IPv4", ours(&ONE_V4.ack())?);
        series.add("finwait, established ACK IPv6", ours(&ONE_V6.ack())?);
    }
    Ok(series.print("bare parse IPv4", None))
}

/// Time of an established ACK as a multiple of a bare parse, the fastest round of each, with everything in
/// the cache.
pub(crate) fn gate(kernel: &Kernel) -> Result<f64> {
    let parse = bare::parse(ProgramType::Xdp, false)?;
    open(kernel, ONE_V4)?;
    let (mut ours, mut floor) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..GATE_ROUNDS {
        floor = floor.min(parse.run(&ONE_V4.ack(), GATE_REPEAT)?);
        ours = ours.min(ns(kernel.test_run(ProgramName::Xdp, &ONE_V4.ack(), GATE_REPEAT)?.1));
    }
    Ok(ours / floor)
}

const GATE_ROUNDS: usize = 15;
const GATE_REPEAT: u32 = 100_000;

/// Bulk data, each segment a new one: one run per system call, timed by the kernel.
pub(crate) fn bulk(kernel: &Kernel, size: &Size) -> Result<Value> {
    let pass = bare::pass(ProgramType::Xdp)?;
    let mut series = Series::new("XDP, one flow, a new segment each run");
    for _ in 0..size.rounds {
        for (name, half_closed) in [("open", false), ("half-closed", true)] {
            kernel.table().clear();
            open(kernel, ONE_V4)?;
            if half_closed {
                run(kernel, &ONE_V4.frame(End::A, Flags::FIN | Flags::ACK, (1101, 5001, 0)))?;
                run(kernel, &ONE_V4.frame(End::B, Flags::ACK, (5001, 1102, 0)))?;
            }
            let next_a = 1101 + u32::from(half_closed);
            let (mut ours, mut floor) = (0.0, 0.0);
            for number in 0..size.stream {
                let seq = 5001 + number * 1000;
                let data = ONE_V4.frame(End::B, Flags::ACK, (seq, next_a, 1000));
                floor += pass.run(&data, 1)?;
                ours += run(kernel, &data)?;
                if number % 16 == 15 {
                    run(kernel, &ONE_V4.frame(End::A, Flags::ACK, (next_a, seq + 1000, 0)))?;
                }
            }
            if !half_closed {
                series.add("pass only", floor / f64::from(size.stream));
            }
            series.add(&format!("finwait, data, {name}"), ours / f64::from(size.stream));
        }
    }
    Ok(series.print("pass only", None))
}

fn open(kernel: &Kernel, conversation: Conversation) -> Result<()> {
    for frame in conversation.opening() {
        run(kernel, &frame)?;
    }
    Ok(())
}

fn run(kernel: &Kernel, frame: &[u8]) -> Result<f64> {
    Ok(ns(kernel.test_run(ProgramName::Xdp, frame, 1).context("a run")?.1))
}

fn ns(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64
}
