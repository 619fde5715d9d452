//! Every scenario of the conformance suite as a capture: what is listed and told of it.

use super::*;

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
    let kind = connection.close_word();
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
