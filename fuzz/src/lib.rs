//! The fuzz targets: functions that take any bytes and panic only if something is wrong.
//!
//! `cargo xtask fuzz TARGET SECONDS` drives one with libFuzzer; `tests/corpus.rs` runs all of them over
//! the kept corpus and over mutations of it.

use std::io::Cursor;
use std::path::Path;

use finwait::filter::Filter;
use finwait::options::ConfigFile;
use finwait::replay::{Input, Options, run_input};
use tcp_common::flow::{Closer, SocketReport};
use tcp_common::wire::{self, FirstHeader};
use tcp_common::{End, Flow, FlowKey, Outcome, Rules, Segment, State};

mod query;

use testkit::model::{Hostile, Script, World};

/// A function that must accept any bytes.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also the name of its folder in `corpus`.
pub const TARGETS: [(&str, Target); 8] = [
    ("parser", parser),
    ("machine", machine),
    ("adopted", adopted),
    ("endpoints", endpoints),
    ("capture", capture),
    ("filter", filter),
    ("config", config),
    ("query", query::query),
];

/// Parses frames with and without an Ethernet header, and checks the invariants of the result.
fn parser(bytes: &[u8]) {
    for link in [FirstHeader::Ethernet, FirstHeader::Ip] {
        let Ok(packet) = wire::parse(bytes, link, None) else { continue };
        let FlowKey { address_a, address_b, port_a, port_b, .. } = packet.key;
        assert!((address_a, port_a) <= (address_b, port_b), "end A is the lower one");
        assert!(packet.segment.wscale <= 14, "RFC 7323 2.3");
        assert!(packet.segment.wire_segments >= 1);
    }
}

/// Feeds hostile segments and the clock to the machine: it never panics, is symmetric in the ends, and
/// the clock ends the flow.
fn machine(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let hostile = Hostile::new(&mut script);
    feed_both(&mut script, hostile, Flow::EMPTY, Flow::EMPTY);
}

/// Feeds hostile segments to a flow that was adopted from a socket in any state.
fn adopted(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let state = State::ALL[script.below(State::ALL.len())];
    let wscale = (script.below(2) == 0).then_some([7, 14]);
    let hostile = Hostile::new(&mut script);
    let report = SocketReport { state, last_ns: hostile.now_ns, time_wait_at_ns: hostile.now_ns, wscale };
    if let (Some(flow), Some(mirror)) =
        (Flow::adopted(hostile.now_ns, End::A, &report), Flow::adopted(hostile.now_ns, End::B, &report))
    {
        feed_both(&mut script, hostile, flow, mirror);
    }
}

/// Feeds the same segments to a flow and, with the ends swapped, to its mirror image.
fn feed_both(script: &mut Script, mut hostile: Hostile, mut flow: Flow, mut mirror: Flow) {
    while !script.is_over() {
        let (sender, segment) = hostile.next(script);
        let outcome = feed(&mut flow, hostile.now_ns, sender, &segment);
        let mirrored = feed(&mut mirror, hostile.now_ns, sender.peer(), &segment);
        assert_eq!(outcome.cause, mirrored.cause);
        assert_eq!([outcome.to[1], outcome.to[0]], mirrored.to);
        assert_eq!(flow.close_kind(), mirror.close_kind());
        let closers = (flow.closer(), mirror.closer());
        assert!(
            match closers {
                (Closer::One(end), Closer::One(mirrored)) => end == mirrored.peer(),
                (one, other) => one == other,
            },
            "{closers:?}"
        );
    }
    let mut now_ns = hostile.now_ns;
    for _ in 0..6 {
        now_ns = flow.next_deadline_ns(&Rules::AGENT).map_or(now_ns, |deadline_ns| deadline_ns.max(now_ns));
        flow.tick(now_ns, &Rules::AGENT);
    }
    assert!(flow.is_empty() || flow.is_over(), "no deadline ends {flow:?}");
}

fn feed(flow: &mut Flow, now_ns: u64, sender: End, segment: &Segment) -> Outcome {
    flow.on_segment(now_ns, sender, segment, &Rules::AGENT)
}

/// Runs two endpoints over a bad network: the assumed state of the local end is its true state.
fn endpoints(bytes: &[u8]) {
    let plain = |state| if state == State::Listen { State::Closed } else { state };
    let mut script = Script::new(bytes);
    let mut world = World::new(&mut script);
    let mut flow = Flow::EMPTY;
    while !script.is_over() {
        for seen in world.step(&mut script) {
            flow.on_segment(seen.at_ns, seen.sender, &seen.segment, &Rules::RFC);
        }
        flow.tick(world.now_ns, &Rules::RFC);
        if world.beyond {
            return;
        }
        assert_eq!(plain(flow.state(End::A)), plain(world.state(End::A)));
    }
}

/// Replays captures of both formats, cut and damaged. Compressed ones are skipped: libraries decompress
/// them.
fn capture(bytes: &[u8]) {
    if bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return;
    }
    for (zeek, verify_checksums) in [(false, false), (true, true)] {
        let Ok(input) = Input::new(Cursor::new(bytes.to_vec())) else { return };
        let options = Options { zeek, verify_checksums, ..Options::default() };
        let Ok(report) = run_input(input, &options, &mut |_| Ok(())) else { return };
        let statistics = report.statistics;
        let ignored: u64 = statistics.ignored().map(|(_, count)| count).sum();
        assert_eq!(statistics.frames, statistics.tracked + ignored, "each frame has one counter");
    }
}

/// Parses filters: an accepted filter survives printing and parsing, and an error has a message.
fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Filter::parse(text) {
        Ok(filter) => assert_eq!(Filter::parse(&filter.to_string()).as_ref(), Ok(&filter)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Parses configuration files: an error has a message.
fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = ConfigFile::parse(Path::new("finwait.toml"), text) {
        assert!(!error.to_string().is_empty());
    }
}
