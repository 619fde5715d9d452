//! Replay of generated captures: every scenario in both file formats, every link type and timestamp unit,
//! sections and concatenated files, compressed and broken files, and timeouts.

mod broken;
mod concatenated;
mod cut;
mod formats;
mod fragments;
mod headers;
mod identity;
mod mirror;
mod scenarios;
mod scopes;
mod sections;
mod stamps;
mod time;
mod tunnels;
mod unheard;
mod vlans;

use std::collections::HashMap;
use std::io::{Cursor, Write as _};
use std::path::Path;

use finwait::filter::Filter;
use finwait::replay::{
    Fault, Frame, Input, LinkType, Options, Output, Replay, ReplayReport, Selection, run, run_input,
};
use finwait::view::{Confidence, Connection, EventRecord, Opener, Role, Roles, TimeWaitEnding};
use tcp_common::{End, Flags, Ignored, Rules, Segment, State};
use testkit::captures::{
    Captured, Interface, Order, Unit, add_simple_packet, arp, cut_pcap, into_packet_blocks, pcap, pcapng,
    relink,
};
use testkit::frames;
use testkit::scenario::{Close, Expected, Scenario, Step, Variant, load};

const SECOND_NS: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn options(rules: Rules) -> Options {
    Options { rules, ..Options::default() }
}

/// A report and the connections of a replay.
struct Replayed {
    connections: Vec<Connection>,
    warnings: Vec<String>,
    report: ReplayReport,
}

impl std::ops::Deref for Replayed {
    type Target = ReplayReport;

    fn deref(&self) -> &ReplayReport {
        &self.report
    }
}

fn replay(file: Vec<u8>, rules: Rules) -> Replayed {
    let replayed = replay_broken(file, &options(rules));
    if let Some(fault) = replayed.report.fault {
        panic!("{fault}");
    }
    replayed
}

/// Replays a capture that may have a fault.
fn replay_broken(file: Vec<u8>, options: &Options) -> Replayed {
    let input = Input::new(Cursor::new(file)).expect("the input can be opened");
    let (mut connections, mut warnings) = (Vec::new(), Vec::new());
    let report = run_input(input, options, &mut |output| {
        match output {
            Output::Connection(listed) => connections.push(listed.connection),
            Output::Warning(warning) => warnings.push(warning.to_string()),
            Output::Event(event) => panic!("no events were wanted: {event:?}"),
        }
        Ok(())
    });
    Replayed { connections, warnings, report: report.expect("a capture") }
}

fn events(file: Vec<u8>, options: Options) -> Vec<EventRecord> {
    let input = Input::new(Cursor::new(file)).expect("the input can be opened");
    let mut events = Vec::new();
    let options = Options { events: true, ..options };
    let report = run_input(input, &options, &mut |output| {
        match output {
            Output::Event(event) => events.push(event),
            other => panic!("no {other:?} was wanted"),
        }
        Ok(())
    });
    assert!(report.expect("a capture").fault.is_none());
    events
}

fn fault(file: Vec<u8>) -> Fault {
    let input = match Input::new(Cursor::new(file)) {
        Ok(input) => input,
        Err(fault) => return fault,
    };
    match run_input(input, &Options::default(), &mut |_| Ok(())) {
        Ok(report) => report.fault.expect("a fault").fault,
        Err(fault) => fault,
    }
}

/// Returns the frames of a scenario's first steps. A tick is a frame that is not TCP.
fn steps(scenario: &Scenario, variant: Variant, count: usize) -> Vec<Captured> {
    let mut frames = Vec::new();
    for step in &scenario.steps[..count] {
        if step.is_tick() {
            frames.push(arp(step.at_ns()));
        } else if let Some(frame) = step.frame(variant) {
            let captured = Captured { at_ns: step.at_ns(), frame };
            frames.extend(std::iter::repeat_n(captured, if variant.doubled { 2 } else { 1 }));
        }
    }
    frames
}

fn all_steps(scenario: &Scenario) -> Vec<Captured> {
    steps(scenario, Variant::PLAIN, scenario.steps.len())
}

fn scenario(id: &str) -> Scenario {
    load().into_iter().find(|scenario| scenario.id == id).expect("it is in a file")
}

fn segment_of(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment { seq, ack, window: 65_535, flags: Flags(flags), wire_segments: 1, ..Segment::default() }
}

fn syn_of(port: u16) -> Vec<u8> {
    with_port(frames::frame(End::A, &segment_of(Flags::SYN, 1_000, 0)), End::A, port)
}

fn with_port(mut frame: Vec<u8>, sender: End, port: u16) -> Vec<u8> {
    let at = if sender == End::A { 34 } else { 36 };
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

/// Makes a whole connection from this client port, 60 ms long, closed by the client.
fn connection_of(port: u16, start_ns: u64) -> Vec<Captured> {
    const A: u8 = Flags::ACK;
    let segments = [
        (End::A, segment_of(Flags::SYN, 1_000, 0)),
        (End::B, segment_of(Flags::SYN | A, 5_000, 1_001)),
        (End::A, segment_of(A, 1_001, 5_001)),
        (End::A, segment_of(Flags::FIN | A, 1_001, 5_001)),
        (End::B, segment_of(Flags::FIN | A, 5_001, 1_002)),
        (End::A, segment_of(A, 1_002, 5_002)),
    ];
    let captured = |(index, (sender, segment)): (usize, (End, Segment))| Captured {
        at_ns: start_ns + index as u64 * 10 * MS,
        frame: with_port(frames::frame(sender, &segment), sender, port),
    };
    segments.into_iter().enumerate().map(captured).collect()
}
