//! `replay --kernel`: every capture of the tests gives equal reports from the XDP program with its table and
//! from the pure machine.

use std::io::{Cursor, Write as _};
use std::process::{Command, Stdio};

use finwait::options::KeyBy;
use finwait::replay::{Capture, InKernel, Input, Output, Replay, Selection};
use tcp_common::Rules;
use testkit::captures::{Captured, Interface, Order, Unit, arp, pcap, pcapng, relink};
use testkit::scenario::{Scenario, Step, Variant, load};

/// The loaded programs. All captures share one copy, because loading takes seconds.
type Programs = Option<InKernel>;

/// Returns all events and connections of a capture as text.
fn told(file: &[u8], rules: Rules, mut programs: Option<&mut Programs>) -> Vec<String> {
    let mut capture =
        Capture::new(Input::new(Cursor::new(file.to_vec())).expect("an input")).expect("a header");
    let wanted = Selection { events: true, connections: true, ..Selection::default() };
    let mut replay = Replay::new(rules, wanted);
    if let Some(programs) = programs.as_deref_mut().and_then(Option::take) {
        replay = replay.in_kernel(programs).expect("the rules can be set");
    }
    while let Some(frame) = capture.next_frame().expect("a capture without faults") {
        replay.push(&frame);
    }
    replay.finish();
    let mut told = Vec::new();
    while let Some(output) = replay.poll() {
        told.push(match output {
            Output::Event(event) => serde_json::to_string(&event).expect("JSON"),
            Output::Connection(listed) => serde_json::to_string(&listed.connection).expect("JSON"),
            Output::Warning(warning) => warning.to_string(),
        });
    }
    let tracked = replay.kernel_tracked().expect("the programs ran");
    let wanted = programs.is_some().then_some(replay.statistics().tracked);
    assert_eq!(tracked, wanted, "they took what was handed to them");
    told.push(replay.statistics().to_string());
    if let Some(programs) = programs {
        *programs = replay.into_kernel();
    }
    told
}

fn compare(programs: &mut Programs, what: &str, file: &[u8], rules: Rules) {
    let (here, kernel) = (told(file, rules, None), told(file, rules, Some(programs)));
    assert!(here.len() > 1, "{what}: something is told");
    for (here, kernel) in here.iter().zip(&kernel) {
        assert_eq!(kernel, here, "{what}");
    }
    assert_eq!(kernel.len(), here.len(), "{what}");
}

/// Runs `finwait replay` as a user does.
fn run(arguments: &[&str], file: &[u8]) -> std::process::Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_finwait"))
        .args(["replay", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(file).expect("it reads all of it");
    child.wait_with_output().expect("it ends")
}

fn frames_of(scenario: &Scenario, variant: Variant) -> Vec<Captured> {
    let frame = |step: &Step| match step.frame(variant) {
        Some(frame) => Some(Captured { at_ns: step.at_ns(), frame }),
        None => step.is_tick().then(|| arp(step.at_ns())),
    };
    scenario.steps.iter().filter_map(frame).collect()
}

/// Sets the port of end A if the frame is TCP.
fn with_port(mut frame: Vec<u8>, port: u16) -> Vec<u8> {
    for at in [34, 36] {
        if frame[12..14] == [0x08, 0x00] && frame[at..at + 2] == 40_000_u16.to_be_bytes() {
            frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
    }
    frame
}

#[test]
#[ignore = "needs root"]
fn through_the_table_of_the_kernel() {
    let mut programs =
        Some(InKernel::load(KeyBy::Addresses).expect("loading the kernel programs (root needed)"));
    every_scenario(&mut programs);
    every_link_type(&mut programs);
    several_interfaces_and_vlans(&mut programs);
    frames_that_are_too_short(&mut programs);
}

/// Replays the scenarios of each set of rules as one capture. Each scenario has its own port and time.
fn every_scenario(programs: &mut Programs) {
    let mut captures: Vec<(Rules, Vec<Captured>)> = Vec::new();
    let scenarios = load();
    assert!(scenarios.len() > 100);
    for (scenario, port) in scenarios.iter().zip(20_000_u16..) {
        let rules = scenario.rules;
        let index = captures.iter().position(|(other, _)| *other == rules).unwrap_or_else(|| {
            captures.push((rules, Vec::new()));
            captures.len() - 1
        });
        let frames = &mut captures[index].1;
        let start_ns = frames.last().map_or(0, |last| last.at_ns + 1_000_000_000);
        let moved =
            |Captured { at_ns, frame }| Captured { at_ns: start_ns + at_ns, frame: with_port(frame, port) };
        frames.extend(frames_of(scenario, Variant::PLAIN).into_iter().map(moved));
    }
    for (rules, frames) in captures {
        compare(programs, &format!("{rules:?}"), &pcap(Order::Little, Unit::Nano, 1, &frames), rules);
    }
}

fn every_link_type(programs: &mut Programs) {
    let scenario = load().into_iter().find(|scenario| scenario.id == "S001").expect("the first one");
    let links = [0, 1, 9, 12, 50, 101, 108, 113, 276];
    let interfaces = links.map(|link| Interface { link, ..Interface::ETHERNET });
    let mut frames = Vec::new();
    for Captured { at_ns, frame } in frames_of(&scenario, Variant::PLAIN) {
        for (index, link) in links.into_iter().enumerate() {
            let frame = relink(&with_port(frame.clone(), 20_000 + link), u32::from(link));
            frames.push((index, Captured { at_ns, frame }));
        }
    }
    compare(programs, "every link type", &pcapng(Order::Big, &interfaces, &frames), Rules::AGENT);
}

#[test]
#[ignore = "needs root"]
fn the_kernel_and_the_pure_machine_print_equal_reports() {
    let scenario = load().into_iter().find(|scenario| scenario.id == "S001").expect("the first one");
    let file = pcap(Order::Little, Unit::Nano, 1, &frames_of(&scenario, Variant::PLAIN));
    let (here, kernel) = (run(&[], &file), run(&["--kernel"], &file));
    assert!(here.status.success() && kernel.status.success(), "{kernel:?}");
    assert!(!here.stdout.is_empty());
    assert_eq!(String::from_utf8(kernel.stdout), String::from_utf8(here.stdout));
    let message = String::from_utf8(kernel.stderr).expect("UTF-8");
    assert!(message.contains("11 of them by the kernel programs"), "{message}");
}

/// Checks that copies at a second interface are no segments, and that a tuple in a VLAN is another flow.
fn several_interfaces_and_vlans(programs: &mut Programs) {
    let scenario = load().into_iter().find(|scenario| scenario.id == "S001").expect("the first one");
    let copies: Vec<_> = frames_of(&scenario, Variant::PLAIN)
        .into_iter()
        .flat_map(|captured| {
            let mut tagged = captured.clone();
            tagged.frame.splice(12..12, [0x81, 0, 0, 7]);
            [(0, captured.clone()), (1, captured), (0, tagged)]
        })
        .collect();
    let bridge = Interface { name: "br0", ..Interface::ETHERNET };
    let file = pcapng(Order::Little, &[Interface::ETHERNET, bridge], &copies);
    compare(programs, "a bridge and a VLAN", &file, Rules::AGENT);
}

/// Checks that frames that the parser refuses do not reach the program: an empty frame, half a header.
fn frames_that_are_too_short(programs: &mut Programs) {
    let scenario = load().into_iter().find(|scenario| scenario.id == "S001").expect("the first one");
    let mut frames = frames_of(&scenario, Variant::PLAIN);
    for len in [0, 1, 13, 14, 33, 40] {
        let mut short = frames[0].clone();
        short.frame.truncate(len);
        frames.insert(0, short);
    }
    compare(programs, "short frames", &pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
}
