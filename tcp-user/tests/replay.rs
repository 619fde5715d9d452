//! Replay of captures that are made here: every scenario through both file formats, every link type and stamp,
//! compressed and broken files, and what time does.

#![allow(unreachable_pub, reason = "modules that several tests share")]

mod captures;
#[path = "../../tcp-common/tests/common/mod.rs"]
mod common;
mod frames;

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Write as _};
use std::path::Path;

use captures::{Captured, Interface, Order, Unit, add_simple_packet, arp, pcap, pcapng, relink};
use common::{Close, ISN_PAIRS, Scenario, Variant, at_ns, end_of, load, rules, segment};
use finwait::filter::Filter;
use finwait::replay::{
    Fault, Frame, Input, LinkType, Listed, Options, Output, Replay, Report, Wanted, run, run_input,
};
use finwait::view::{Connection, Event, Opener, Side, Who};
use serde::Deserialize;
use tcp_common::{End, Flags, Rules, Segment};

const PLAIN: Variant = Variant { isn: (1_000, 5_000), swapped: false, doubled: false, local: [false; 2] };
const SECOND_NS: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn options(rules: Rules) -> Options {
    Options { rules, ..Options::default() }
}

/// A report and the connections that were told.
struct Replayed {
    connections: Vec<Connection>,
    report: Report,
}

impl std::ops::Deref for Replayed {
    type Target = Report;

    fn deref(&self) -> &Report {
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

/// The same of a capture that may have a fault.
fn replay_broken(file: Vec<u8>, options: &Options) -> Replayed {
    let (listed, report) = list(file, options);
    Replayed { connections: listed.into_iter().map(|listed| listed.connection).collect(), report }
}

fn list(file: Vec<u8>, options: &Options) -> (Vec<Listed>, Report) {
    let input = Input::new(Cursor::new(file)).expect("the input can be opened");
    let mut listed = Vec::new();
    let report = run_input(input, options, &mut |output| {
        match output {
            Output::Connection(connection) => listed.push(*connection),
            Output::Event(event) => panic!("no events were wanted: {event:?}"),
        }
        Ok(())
    });
    (listed, report.expect("a capture"))
}

fn events(file: Vec<u8>, options: Options) -> Vec<Event> {
    let input = Input::new(Cursor::new(file)).expect("the input can be opened");
    let mut events = Vec::new();
    let options = Options { events: true, ..options };
    let report = run_input(input, &options, &mut |output| {
        match output {
            Output::Event(event) => events.push(event),
            Output::Connection(listed) => panic!("no connections were wanted: {listed:?}"),
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

/// The frames of a scenario's first steps; a tick is a frame that is no TCP.
fn steps(scenario: &Scenario, variant: Variant, count: usize) -> Vec<Captured> {
    let mut frames = Vec::new();
    for step in &scenario.steps[..count] {
        if step.tick {
            frames.push(arp(at_ns(step)));
        } else if let Some((sender, segment)) = segment(step, variant) {
            let captured = Captured { at_ns: at_ns(step), frame: frames::frame(sender, &segment) };
            frames.extend(std::iter::repeat_n(captured, if variant.doubled { 2 } else { 1 }));
        }
    }
    frames
}

fn all_steps(scenario: &Scenario) -> Vec<Captured> {
    steps(scenario, PLAIN, scenario.steps.len())
}

/// What the scenario file expects, read for itself: `common` keeps it for flows, here it is held against records.
#[derive(Deserialize)]
struct File {
    scenario: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    steps: Vec<ExpectedStep>,
}

#[derive(Deserialize)]
struct ExpectedStep {
    at_ms: u64,
    #[serde(default)]
    tick: bool,
    #[serde(default = "yes")]
    captured: bool,
    expect: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    tw_deadline_ms: BTreeMap<String, u64>,
}

fn yes() -> bool {
    true
}

fn expectations() -> Vec<Expected> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/scenarios.toml");
    let text = std::fs::read_to_string(path).expect("the scenarios");
    toml::from_str::<File>(&text).expect("well formed").scenario
}

/// Which side of a connection an end of the scenario is: end A of the frames has port 40000.
fn side_of(connection: &Connection, name: &str, variant: Variant) -> Side {
    let is_client = (connection.client.port == 40_000) == (end_of(name, variant.swapped) == End::A);
    if is_client { Side::Client } else { Side::Server }
}

fn name_of(connection: &Connection, side: Side, variant: Variant) -> &'static str {
    if side_of(connection, "a", variant) == side { "a" } else { "b" }
}

fn check_step(step: &ExpectedStep, connections: &[Connection], variant: Variant) -> Result<(), String> {
    let Some(expect) = &step.expect else { return Ok(()) };
    let current = connections.last();
    for (name, acceptable) in expect {
        let state = current.map_or("closed", |c| c.end(side_of(c, name, variant)).state.name());
        if !acceptable.contains(&state.to_ascii_uppercase()) {
            return Err(format!("{name} is {state}, expected one of {acceptable:?}"));
        }
    }
    let time_wait = current.and_then(|c| Some((c, c.time_wait.as_ref()?)));
    let deadline = time_wait.map(|(_, time_wait)| step.at_ms + time_wait.expires_in_ms);
    let wanted = step.tw_deadline_ms.values().max().copied();
    if deadline != wanted {
        return Err(format!("TIME-WAIT ends at {deadline:?}, expected {wanted:?}"));
    }
    if let Some((connection, time_wait)) = time_wait {
        let holders: Vec<&str> = step.tw_deadline_ms.keys().map(String::as_str).collect();
        let holder = who(connection, Some(time_wait.holder), variant);
        if holder != if holders.len() == 2 { "both" } else { holders[0] } {
            return Err(format!("TIME-WAIT is held by {holder}, expected {holders:?}"));
        }
    }
    Ok(())
}

fn who(connection: &Connection, who: Option<Who>, variant: Variant) -> &'static str {
    match who {
        None => "none",
        Some(Who::Both) => "both",
        Some(Who::Client) => name_of(connection, Side::Client, variant),
        Some(Who::Server) => name_of(connection, Side::Server, variant),
    }
}

fn check_close(connection: &Connection, expected: &Close, variant: Variant) -> Result<(), String> {
    let close = connection.close.as_ref();
    let opener = match connection.opener {
        Opener::Client => name_of(connection, Side::Client, variant),
        Opener::Server => name_of(connection, Side::Server, variant),
        Opener::Both => "both",
        Opener::Unknown => "unknown",
    };
    let closer = who(connection, close.and_then(|close| close.closer), variant);
    let aborter =
        close.and_then(|close| close.aborter).map_or("none", |side| name_of(connection, side, variant));
    let kind = connection.close_kind().name();
    let complete = close.is_some_and(|close| close.complete);
    let sent = |name: &str| {
        let (word, side) =
            (close.map_or("none", |close| close.fins.name()), side_of(connection, name, variant));
        word == "both" || word == side.name()
    };
    let fins: String = ["a", "b"].into_iter().filter(|name| sent(name)).collect();
    let right = expected.kind.iter().any(|k| k == kind)
        && expected.opener == opener
        && expected.closer.iter().any(|c| c == closer)
        && expected.aborter == aborter
        && expected.fins == fins
        && expected.complete == complete;
    let got = format!("{kind} opener {opener} closer {closer} aborter {aborter} fins {fins:?} {complete}");
    if right { Ok(()) } else { Err(got) }
}

fn check_scenario(scenario: &Scenario, variant: Variant, connections: &[Connection]) -> Result<(), String> {
    if connections.len() != scenario.close.len() {
        return Err(format!("{} connections, expected {}", connections.len(), scenario.close.len()));
    }
    for (index, (connection, expected)) in connections.iter().zip(&scenario.close).enumerate() {
        check_close(connection, expected, variant).map_err(|got| format!("connection {index} is {got}"))?;
    }
    Ok(())
}

#[test]
fn every_step_of_every_scenario() {
    let (mut failures, mut checked) = (Vec::new(), 0);
    for (scenario, expected) in load().iter().zip(expectations()) {
        if !scenario.cfg.holds(PLAIN.local) {
            continue;
        }
        for (swapped, doubled) in [(false, false), (true, false), (false, true), (true, true)] {
            let variant = Variant { swapped, doubled, ..PLAIN };
            for (index, step) in expected.steps.iter().enumerate() {
                if !step.tick && !step.captured {
                    continue;
                }
                checked += 1;
                let file = pcap(Order::Little, Unit::Nano, 1, &steps(scenario, variant, index + 1));
                let report = replay(file, rules(&scenario.cfg));
                if let Err(message) = check_step(step, &report.connections, variant) {
                    failures.push(format!("{} {variant:?} step {index}: {message}", scenario.id));
                }
            }
        }
    }
    assert!(checked > 3_500, "only {checked} steps");
    assert!(failures.is_empty(), "{} of {checked} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_connections_of_every_scenario() {
    let mut failures = Vec::new();
    for scenario in load().into_iter().filter(|scenario| scenario.cfg.holds(PLAIN.local)) {
        for isn in ISN_PAIRS.into_iter().chain(scenario.isn.map(|isn| (isn.a, isn.b))) {
            for (swapped, doubled) in [(false, false), (true, false), (false, true), (true, true)] {
                let variant = Variant { isn, swapped, doubled, ..PLAIN };
                let frames = steps(&scenario, variant, scenario.steps.len());
                let report = replay(pcap(Order::Little, Unit::Micro, 1, &frames), rules(&scenario.cfg));
                let statistics = report.statistics;
                assert_eq!(statistics.frames, frames.len() as u64);
                let ignored: u64 = statistics.ignored().map(|(_, count)| count).sum();
                assert_eq!(statistics.frames, statistics.tracked + ignored, "every frame in one number");
                if let Err(message) = check_scenario(&scenario, variant, &report.connections) {
                    failures.push(format!("{} {variant:?}: {message}", scenario.id));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Every incarnation is closed once, transitions go from where the last one went, time goes on.
#[test]
fn the_events_of_every_scenario() {
    for scenario in load() {
        for doubled in [false, true] {
            let variant = Variant { doubled, ..PLAIN };
            let file = pcap(Order::Little, Unit::Nano, 1, &steps(&scenario, variant, scenario.steps.len()));
            let connections = replay(file.clone(), rules(&scenario.cfg)).connections;
            let mut states = HashMap::new();
            let mut closes: Vec<Connection> = Vec::new();
            let mut last_at = jiff::Timestamp::UNIX_EPOCH;
            for event in events(file, options(rules(&scenario.cfg))) {
                let at = match event {
                    Event::Transition(transition) => {
                        let port = match transition.side {
                            Side::Client => transition.client.port,
                            Side::Server => transition.server.port,
                        };
                        let state =
                            states.entry((port, transition.incarnation)).or_insert(tcp_common::State::Closed);
                        assert_eq!(*state, transition.from, "{} {transition:?}", scenario.id);
                        *state = transition.to;
                        transition.at
                    }
                    Event::Close(close) => {
                        closes.push(close.connection);
                        close.closed_at.expect("a close has a time")
                    }
                };
                assert!(last_at <= at, "{}: time goes on", scenario.id);
                last_at = at;
            }
            for (port, incarnation) in states.keys() {
                let connection = connections.iter().find(|c| c.incarnation == *incarnation);
                let connection = connection.expect("a transition of a connection that is listed");
                let end =
                    connection.ends().into_iter().find(|end| end.port == *port).expect("one of its ends");
                assert_eq!(states[&(*port, *incarnation)], end.state, "{}", scenario.id);
            }
            let told: Vec<u32> = closes.iter().map(|close| close.incarnation).collect();
            let over = |c: &&Connection| c.ends().iter().all(|end| end.state == tcp_common::State::Closed);
            let wanted: Vec<u32> = connections.iter().filter(over).map(|c| c.incarnation).collect();
            assert!(wanted.iter().all(|incarnation| told.contains(incarnation)), "{}: {told:?}", scenario.id);
            assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{}: once each: {told:?}", scenario.id);
            for close in closes {
                let index = close.incarnation as usize - 1;
                check_close(&close, &scenario.close[index], variant).expect("the close of the file");
            }
        }
    }
}

fn scenario(id: &str) -> Scenario {
    load().into_iter().find(|scenario| scenario.id == id).expect("it is in the file")
}

/// What a report says, without the interface, which not every format tells.
fn told(replayed: Replayed) -> String {
    let mut connections = replayed.connections;
    connections.iter_mut().for_each(|connection| connection.interface = None);
    format!("{connections:?}")
}

#[test]
fn both_formats_both_orders_all_stamps() {
    for id in ["S001", "S007", "S060"] {
        let scenario = scenario(id);
        let (frames, rules) = (all_steps(&scenario), rules(&scenario.cfg));
        let wanted = told(replay(pcap(Order::Little, Unit::Micro, 1, &frames), rules));
        let numbered: Vec<_> = frames.iter().cloned().map(|frame| (0, frame)).collect();
        for order in [Order::Little, Order::Big] {
            for unit in [Unit::Micro, Unit::Nano] {
                assert_eq!(
                    told(replay(pcap(order, unit, 1, &frames), rules)),
                    wanted,
                    "pcap {order:?} {unit:?}"
                );
            }
            let resolutions = [None, Some((6, 1_000_000)), Some((9, SECOND_NS)), Some((3, 1_000))];
            for resolution in resolutions {
                for offset_s in [0, 1_000] {
                    let interface = Interface { resolution, offset_s, ..Interface::ETHERNET };
                    let report = replay(pcapng(order, &[interface], &numbered), rules);
                    assert!(report.connections.iter().all(|c| c.interface.as_deref() == Some("eth0")));
                    assert_eq!(told(report), wanted, "pcapng {order:?} {resolution:?} {offset_s}");
                }
            }
        }
    }
}

/// `cat a.pcapng b.pcapng`: each section has its own byte order, interfaces and stamps.
#[test]
fn sections_follow_each_other() {
    let frames = all_steps(&scenario("S001"));
    let (first, second) = frames.split_at(5);
    let relinked = second.iter().map(|c| (1, Captured { at_ns: c.at_ns, frame: relink(&c.frame, 276) }));
    let nano = Interface { resolution: Some((9, SECOND_NS)), ..Interface::ETHERNET };
    let cooked = Interface { link: 276, resolution: Some((3, 1_000)), name: "any", offset_s: 5 };
    let first: Vec<_> = first.iter().cloned().map(|frame| (0, frame)).collect();
    // What `any` saw is taken once the first interface has been silent for a second.
    let later = relinked.map(|(index, c)| (index, Captured { at_ns: c.at_ns + 10 * SECOND_NS, ..c }));
    let file = [
        pcapng(Order::Big, &[nano], &first),
        pcapng(Order::Little, &[Interface::ETHERNET, cooked], &later.collect::<Vec<_>>()),
    ]
    .concat();
    let replayed = replay(file, Rules::RFC);
    assert_eq!(replayed.statistics.tracked, 11);
    let states = |connections: &[Connection]| {
        connections.iter().map(|c| format!("{:?} {:?}", c.client.state, c.close_kind())).collect::<Vec<_>>()
    };
    let whole = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::RFC);
    assert_eq!(states(&replayed.connections), states(&whole.connections));
}

#[test]
fn stamps_of_a_power_of_two() {
    let frames = [(0, arp(5 * SECOND_NS + SECOND_NS / 4))];
    let interface = Interface { resolution: Some((0x80 | 10, 1_024)), ..Interface::ETHERNET };
    let report = replay(pcapng(Order::Big, &[interface], &frames), Rules::AGENT);
    assert_eq!(report.ended_at.as_nanosecond(), i128::from(5 * SECOND_NS + SECOND_NS / 4));
}

#[test]
fn every_link_type() {
    let scenario = scenario("S001");
    let (frames, rules) = (all_steps(&scenario), rules(&scenario.cfg));
    let wanted = told(replay(pcap(Order::Little, Unit::Micro, 1, &frames), rules));
    for link in [0, 9, 12, 14, 50, 101, 108, 113, 228, 229, 276] {
        let frames: Vec<_> =
            frames.iter().map(|c| Captured { at_ns: c.at_ns, frame: relink(&c.frame, link) }).collect();
        let report = replay(pcap(Order::Little, Unit::Micro, link, &frames), rules);
        assert_eq!(report.statistics.tracked, 11, "link type {link}");
        assert_eq!(report.statistics.ignored().next(), Some(("not_tcp", 2)), "link type {link}");
        assert_eq!(told(report), wanted, "link type {link}");
    }
}

#[test]
fn vlan_tags_behind_a_cooked_header() {
    let syn = relink(&syn_of(40_000), 113);
    let mut tagged = syn[..14].to_vec();
    tagged.extend([0x81, 0x00, 0x00, 0x07, 0x08, 0x00]);
    tagged.extend(&syn[16..]);
    let frames = [Captured { at_ns: 1, frame: syn }, Captured { at_ns: 2, frame: tagged }];
    let report = replay(pcap(Order::Little, Unit::Nano, 113, &frames), Rules::AGENT);
    assert_eq!(report.connections.len(), 2, "another VLAN is another flow");
}

#[test]
fn a_copy_at_another_interface_counts_once() {
    let scenario = scenario("S001");
    let copies: Vec<_> =
        all_steps(&scenario).into_iter().flat_map(|frame| [(0, frame.clone()), (1, frame)]).collect();
    let bridge = Interface { name: "br0", ..Interface::ETHERNET };
    let report = replay(pcapng(Order::Little, &[Interface::ETHERNET, bridge], &copies), Rules::RFC);
    let wanted = replay(pcap(Order::Little, Unit::Nano, 1, &all_steps(&scenario)), Rules::RFC);
    assert_eq!(told(report), told(wanted));
}

#[test]
fn an_interface_nobody_reads_is_passed_over() {
    let foreign = Interface { link: 189, name: "usbmon0", ..Interface::ETHERNET };
    let frames = [(1, arp(1)), (0, arp(2))];
    let report = replay(pcapng(Order::Little, &[foreign, Interface::ETHERNET], &frames), Rules::AGENT);
    assert_eq!(report.statistics.ignored().collect::<Vec<_>>(), [("not_tcp", 1), ("foreign_link", 1)]);
    assert!(matches!(fault(pcapng(Order::Little, &[foreign], &frames[1..])), Fault::LinkType(189)));
    assert!(matches!(fault(pcap(Order::Big, Unit::Nano, 189, &[arp(1)])), Fault::LinkType(189)));
}

#[test]
fn a_packet_without_a_stamp_comes_after_the_one_before() {
    let mut file = pcapng(Order::Little, &[Interface::ETHERNET], &[(0, arp(7 * SECOND_NS))]);
    add_simple_packet(&mut file, &syn_of(40_000));
    let report = replay(file, Rules::AGENT);
    assert_eq!(report.connections[0].last_seen_at.as_second(), 7);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

#[test]
fn compressed_by_gzip_and_by_zstd() {
    let scenario = scenario("S001");
    let file = pcap(Order::Little, Unit::Micro, 1, &all_steps(&scenario));
    let wanted = told(replay(file.clone(), Rules::RFC));
    assert_eq!(told(replay(gzip(&file), Rules::RFC)), wanted);
    let zstd = zstd::encode_all(&file[..], 3).expect("into memory");
    assert_eq!(told(replay(zstd, Rules::RFC)), wanted);
    // Several members, as log rotation and parallel compressors make them.
    let members = [gzip(&file[..100]), gzip(&file[100..])].concat();
    assert_eq!(told(replay(members, Rules::RFC)), wanted);
}

#[test]
fn cut_at_every_byte() {
    let frames = all_steps(&scenario("S001"));
    let numbered: Vec<_> = frames.iter().cloned().map(|frame| (0, frame)).collect();
    let plain = pcap(Order::Little, Unit::Micro, 1, &frames);
    let files = [
        plain.clone(),
        pcapng(Order::Big, &[Interface::ETHERNET], &numbered),
        gzip(&plain),
        zstd::encode_all(&plain[..], 3).expect("into memory"),
    ];
    for (number, file) in files.iter().enumerate() {
        let (mut whole, mut last_frames) = (0, 0);
        for len in 0..file.len() {
            let Ok(input) = Input::new(Cursor::new(file[..len].to_vec())) else { continue };
            let Ok(report) = run_input(input, &Options::default(), &mut |_| Ok(())) else { continue };
            assert!(
                report.statistics.frames >= last_frames,
                "file {number}: what came before the cut is read"
            );
            last_frames = report.statistics.frames;
            match report.fault.map(|error| error.fault) {
                None => whole += 1,
                Some(Fault::Truncated(offset)) => assert!(number > 1 || offset.bytes <= len as u64),
                Some(other) => panic!("file {number} cut at {len}: {other:?}"),
            }
        }
        assert!(number > 1 || whole >= frames.len(), "file {number}: a cut between records is no fault");
    }
}

#[test]
fn the_offset_of_a_cut_is_that_of_the_record() {
    let file = pcap(Order::Little, Unit::Micro, 1, &[arp(1), arp(2)]);
    let report = {
        let input = Input::new(Cursor::new(file[..file.len() - 1].to_vec())).expect("opens");
        run_input(input, &Options::default(), &mut |_| Ok(())).expect("a capture")
    };
    assert_eq!(report.statistics.frames, 1);
    let message = report.fault.expect("a fault").to_string();
    assert!(message.contains("begins at byte 100."), "{message}");
}

#[test]
fn any_octet_may_be_wrong() {
    let frames = &all_steps(&scenario("S001"))[..4];
    let numbered: Vec<_> = frames.iter().cloned().map(|frame| (0, frame)).collect();
    let interface = Interface { resolution: Some((9, SECOND_NS)), ..Interface::ETHERNET };
    let files = [
        pcap(Order::Little, Unit::Micro, 1, frames),
        pcap(Order::Big, Unit::Nano, 276, frames),
        pcap(Order::Big, Unit::Nano, 113, frames),
        pcapng(Order::Big, &[interface], &numbered),
        pcapng(Order::Little, &[interface], &numbered),
    ];
    for file in files {
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, !file[at]] {
                let mut file = file.clone();
                file[at] = value;
                if let Ok(input) = Input::new(Cursor::new(file)) {
                    // Right or not, it is an answer.
                    let _ = run_input(input, &Options::default(), &mut |_| Ok(()));
                }
            }
        }
    }
}

#[test]
fn what_is_no_capture_is_told_apart() {
    assert!(matches!(fault(Vec::new()), Fault::Empty));
    let message = fault(b"%PDF-1.7".to_vec()).to_string();
    assert!(message.contains("25 50 44 46 (\"%PDF\")"), "{message}");
    let message = fault(vec![0xfd, b'7', b'z', b'X', b'Z', 0]).to_string();
    assert!(message.contains("xz -dc FILE | finwait replay -"), "{message}");
    assert!(matches!(fault(gzip(b"hello, world")), Fault::NotACapture(_)));
    assert!(matches!(fault(gzip(b"")), Fault::Empty));
    let open =
        |path: &str| run(Path::new(path), &Options::default(), &mut |_| Ok(())).expect_err("no capture");
    assert!(open("/").to_string().starts_with("/ is a directory."));
    assert!(open("/no/such.pcap").to_string().starts_with("/no/such.pcap does not exist."));
}

#[test]
fn no_frames_are_no_connections() {
    let report = replay(pcap(Order::Little, Unit::Micro, 1, &[]), Rules::AGENT);
    assert!(report.connections.is_empty() && report.statistics.frames == 0);
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

/// A whole connection from one client port, 60 ms long, closed by the client.
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

#[test]
fn what_time_ends_is_told_at_its_time_and_in_order() {
    let mut frames: Vec<_> =
        (0..10).flat_map(|i| connection_of(41_000 + i, u64::from(i) * SECOND_NS)).collect();
    frames.push(arp(3_600 * SECOND_NS));
    let events = events(pcap(Order::Little, Unit::Nano, 1, &frames), Options::default());
    let closes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Close(close) => {
                Some((close.connection.client.port, close.closed_at.expect("over").as_millisecond()))
            }
            Event::Transition(_) => None,
        })
        .collect();
    let wanted: Vec<_> = (0..10).map(|i| (41_000 + i, i64::from(i) * 1_000 + 40 + 60_000)).collect();
    assert_eq!(closes, wanted);
}

#[test]
fn memory_is_that_of_the_flows_alive() {
    let mut replay = Replay::new(Rules::AGENT, Wanted { events: true, ..Wanted::default() });
    let (mut most, mut closes) = (0, 0);
    for second in 0..2_000u64 {
        let port = 20_000 + (second % 20_000) as u16;
        for Captured { at_ns, frame } in connection_of(port, second * SECOND_NS) {
            replay.push(&Frame::new(&frame, LinkType::Ethernet, at_ns));
        }
        while let Some(output) = replay.poll() {
            closes += u32::from(matches!(output, Output::Event(Event::Close(_))));
        }
        most = most.max(replay.flows());
    }
    // One connection a second, in TIME-WAIT for 60 s, remembered for 60 s.
    assert!(most <= 122, "{most} flows at once");
    assert!(closes >= 1_900);
}

#[test]
fn late_segments_make_no_ghost() {
    let mut frames = connection_of(41_000, 0);
    for at_s in [70, 110, 160, 215] {
        let late = frames::frame(End::A, &segment_of(Flags::ACK, 1_002, 5_002));
        frames.push(Captured { at_ns: at_s * SECOND_NS, frame: with_port(late, End::A, 41_000) });
    }
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
    assert_eq!(report.connections.len(), 1);
    // And a RST of a flow that nobody knows makes none either.
    let rst = Captured { at_ns: 1, frame: frames::frame(End::A, &segment_of(Flags::RST, 1, 0)) };
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &[rst]), Rules::AGENT);
    assert!(report.connections.is_empty());
    assert_eq!(report.statistics.ignored().collect::<Vec<_>>(), [("no_flow", 1)]);
}

#[test]
fn a_stamp_that_goes_back_does_not_move_the_clock() {
    let mut frames = connection_of(41_000, 100 * SECOND_NS);
    frames[3].at_ns = 5 * SECOND_NS;
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
    assert_eq!(report.statistics.out_of_order, 1);
    let close = report.connections[0].close.as_ref().expect("closed");
    assert_eq!(close.started_at.expect("begun").as_millisecond(), 100_020);
}

#[test]
fn a_stamp_at_the_end_of_time_is_no_endless_loop() {
    let mut replay = Replay::new(Rules::AGENT, Wanted { connections: true, ..Wanted::default() });
    for at_ns in [1, u64::MAX - 1, u64::MAX, 5] {
        replay.push(&Frame::new(&syn_of(41_000), LinkType::Ethernet, at_ns));
    }
    assert_eq!(replay.statistics().tracked, 4);
    // Nor is a limit that leaves an end in TIME-WAIT: that ends at its own time.
    let mut rules = Rules::AGENT;
    rules.silence_ns[tcp_common::State::Closed as usize] = SECOND_NS;
    let mut frames = connection_of(41_000, SECOND_NS);
    frames.push(arp(100 * 365 * 86_400 * SECOND_NS));
    let mut replay = Replay::new(rules, Wanted { events: true, ..Wanted::default() });
    for Captured { at_ns, frame } in frames {
        replay.push(&Frame::new(&frame, LinkType::Ethernet, at_ns));
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| replay.poll()).collect();
    let closes: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Event(Event::Close(close)) => close.closed_at.map(|at| at.as_millisecond()),
            _ => None,
        })
        .collect();
    assert_eq!(closes, [61_040]);
    assert_eq!(replay.flows(), 0);
}

#[test]
fn forgotten_connections_are_listed_in_the_order_of_opening() {
    let mut frames = connection_of(41_000, 0);
    frames.insert(1, Captured { at_ns: MS, frame: syn_of(42_000) });
    frames.extend(connection_of(43_000, 400 * SECOND_NS));
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
    let ports: Vec<_> = report.connections.iter().map(|connection| connection.client.port).collect();
    assert_eq!(ports, [41_000, 42_000, 43_000]);
    assert_eq!(report.connections[1].close_kind().name(), "syn_timeout");
    assert_eq!(report.statistics.connections, 3);
}

/// More connections than may wait to be listed: all are, once each, and those of the end come last.
#[test]
fn the_list_needs_no_memory_for_what_is_over() {
    let mut replay = Replay::new(Rules::AGENT, Wanted { connections: true, ..Wanted::default() });
    let (mut listed, mut ages, mut most) = (Vec::new(), Vec::new(), 0);
    let mut take = |replay: &mut Replay| {
        while let Some(output) = replay.poll() {
            let Output::Connection(connection) = output else { panic!("no events were wanted") };
            ages.push(connection.as_of - connection.connection.opened_at.expect("opened"));
            listed.push(connection.connection.client.port);
        }
    };
    let count = 70_000_u64;
    for number in 0..count {
        for Captured { at_ns, frame } in connection_of((number % 60_000) as u16 + 1_000, number * SECOND_NS) {
            replay.push(&Frame::new(&frame, LinkType::Ethernet, at_ns));
        }
        take(&mut replay);
        most = most.max(replay.flows());
    }
    let early = count - 122 - (1 << 16);
    replay.finish();
    take(&mut replay);
    assert!(most <= 122, "{most} flows at once");
    let wanted: Vec<u16> = (0..count).map(|number| (number % 60_000) as u16 + 1_000).collect();
    assert!(listed == wanted, "every connection, in the order of opening");
    // The first ones could not wait for the end, the others' ages are as of the end.
    let as_of_end = |number: u64| ages[number as usize].get_seconds() as u64 == count - 1 - number;
    assert!(!as_of_end(early - 1) && as_of_end(early + 1), "{early}");
}

#[test]
fn a_filter_chooses_connections_and_events() {
    let frames: Vec<_> = (0..3).flat_map(|i| connection_of(41_000 + i, u64::from(i) * SECOND_NS)).collect();
    let file = pcap(Order::Little, Unit::Nano, 1, &frames);
    let chosen = Options { filter: Filter::parse("port = :41001").expect("a filter"), ..Options::default() };
    assert_eq!(replay_broken(file.clone(), &chosen).connections.len(), 1);
    let events = events(file, chosen);
    assert!(!events.is_empty());
    for event in events {
        let Event::Transition(transition) = event else { panic!("none is over yet") };
        assert_eq!(transition.client.port, 41_001);
    }
}

#[test]
fn a_reader_that_goes_away_stops_the_replay() {
    let file = pcap(Order::Little, Unit::Nano, 1, &connection_of(41_000, 0));
    let input = Input::new(Cursor::new(file)).expect("opens");
    let options = Options { events: true, ..Options::default() };
    let result = run_input(input, &options, &mut |_| Err(std::io::ErrorKind::BrokenPipe.into()));
    assert!(matches!(result, Err(Fault::Output(_))));
}
