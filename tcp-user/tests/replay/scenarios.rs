//! Replays every scenario of the conformance suite as a capture and checks the listed connections and events.

use std::collections::HashSet;

use finwait::view::{self, ConnectionEnd, ReopenReason};

use super::*;

/// Returns the side of a connection that an end of the scenario is. End A of the frames has port 40000.
fn side_of(connection: &Connection, end: End, variant: Variant) -> Role {
    let is_client = (connection.client.port == 40_000) == (variant.end(end) == End::A);
    if is_client { Role::Client } else { Role::Server }
}

fn name_of(connection: &Connection, side: Role, variant: Variant) -> &'static str {
    if side_of(connection, End::A, variant) == side { "a" } else { "b" }
}

fn check_step(step: &Step, connections: &[Connection], variant: Variant) -> Result<(), String> {
    let Some(expected) = &step.expected else { return Ok(()) };
    let current = connections.last();
    for (end, Expected { states, .. }) in [End::A, End::B].into_iter().zip(expected) {
        let state = current.map_or(State::Closed, |c| c.end(side_of(c, end, variant)).state);
        // The scenarios name the machine's state of an end of which nothing was seen.
        let state = if state == State::Unknown { State::Listen } else { state };
        if !states.contains(&state) {
            return Err(format!("{end:?} is {state:?}, expected one of {states:?}"));
        }
    }
    let until_ms: Vec<u64> = expected.iter().filter_map(|expected| expected.time_wait_until_ms).collect();
    let time_wait = current.and_then(|c| Some((c, c.time_wait.as_ref()?)));
    let deadline = time_wait.map(|(_, time_wait)| step.at_ms + time_wait.expires_in_ms);
    let wanted = until_ms.iter().max().copied();
    if deadline != wanted {
        return Err(format!("TIME-WAIT ends at {deadline:?}, expected {wanted:?}"));
    }
    if let Some((connection, time_wait)) = time_wait {
        let holder = who(connection, Some(time_wait.holder), variant);
        let wanted = match expected.each_ref().map(|expected| expected.time_wait_until_ms.is_some()) {
            [true, true] => "both",
            [true, false] => "a",
            [false, _] => "b",
        };
        if holder != wanted {
            return Err(format!("TIME-WAIT is held by {holder}, expected {wanted}"));
        }
    }
    Ok(())
}

fn who(connection: &Connection, who: Option<Roles>, variant: Variant) -> &'static str {
    match who {
        None => "none",
        Some(Roles::Both) => "both",
        Some(Roles::Client) => name_of(connection, Role::Client, variant),
        Some(Roles::Server) => name_of(connection, Role::Server, variant),
    }
}

fn check_close(connection: &Connection, expected: &Close, variant: Variant) -> Result<(), String> {
    let close = connection.close.as_ref();
    let opener = match connection.opener {
        Opener::Client => name_of(connection, Role::Client, variant),
        Opener::Server => name_of(connection, Role::Server, variant),
        Opener::Both => "both",
        Opener::Unknown => "unknown",
    };
    let closer = who(connection, close.and_then(|close| close.closer), variant);
    let aborter =
        close.and_then(|close| close.aborter).map_or("none", |side| name_of(connection, side, variant));
    let sent = |end: End| {
        let word = close.map_or("none", |close| close.fins.name());
        word == "both" || word == side_of(connection, end, variant).name()
    };
    let got = Close {
        kinds: vec![connection.close_word().into()],
        opener: opener.into(),
        closers: vec![closer.into()],
        aborter: aborter.into(),
        fins: [(End::A, "a"), (End::B, "b")]
            .iter()
            .filter(|(end, _)| sent(*end))
            .map(|(_, name)| *name)
            .collect(),
        complete: close.is_some_and(|close| close.complete),
        state_lost: None,
        confidence: Some(connection.confidence.name().into()),
        bytes: Some([End::A, End::B].map(|end| connection.end(side_of(connection, end, variant)).bytes)),
    };
    if expected.accepts(&got) { Ok(()) } else { Err(format!("{got:?}")) }
}

fn check_scenario(scenario: &Scenario, variant: Variant, connections: &[Connection]) -> Result<(), String> {
    if connections.len() != scenario.closes.len() {
        return Err(format!("{} connections, expected {}", connections.len(), scenario.closes.len()));
    }
    for (index, (connection, expected)) in connections.iter().zip(&scenario.closes).enumerate() {
        check_close(connection, expected, variant).map_err(|got| format!("connection {index} is {got}"))?;
    }
    Ok(())
}

#[test]
fn the_states_after_every_step_are_right() {
    let (mut failures, mut checked) = (Vec::new(), 0);
    for scenario in &load() {
        if !scenario.holds(Variant::PLAIN.local) {
            continue;
        }
        for (swapped, doubled) in [(false, false), (true, false), (false, true), (true, true)] {
            let variant = Variant { swapped, doubled, ..Variant::PLAIN };
            for (index, step) in scenario.steps.iter().enumerate() {
                if step.expected.is_none() {
                    continue;
                }
                checked += 1;
                let file = pcap(Order::Little, Unit::Nano, 1, &steps(scenario, variant, index + 1));
                let report = replay(file, scenario.rules);
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
fn the_connections_of_every_scenario_are_right() {
    let mut failures = Vec::new();
    for scenario in load().into_iter().filter(|scenario| scenario.holds(Variant::PLAIN.local)) {
        for isn in scenario.isn_pairs() {
            for (swapped, doubled) in [(false, false), (true, false), (false, true), (true, true)] {
                let variant = Variant { isn, swapped, doubled, ..Variant::PLAIN };
                let frames = steps(&scenario, variant, scenario.steps.len());
                let report = replay(pcap(Order::Little, Unit::Micro, 1, &frames), scenario.rules);
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

/// Every incarnation is closed once, but for closes that were taken back, and as it is listed at that moment. Each
/// TIME-WAIT that is left ends once. Each transition begins where the previous one ended, and time never goes back.
#[test]
fn the_events_of_every_scenario_are_consistent() {
    for scenario in load() {
        for doubled in [false, true] {
            let variant = Variant { doubled, ..Variant::PLAIN };
            let file = pcap(Order::Little, Unit::Nano, 1, &steps(&scenario, variant, scenario.steps.len()));
            let connections = replay(file.clone(), scenario.rules).connections;
            let mut states = HashMap::new();
            let mut closes: Vec<view::Close> = Vec::new();
            let (mut held_time_waits, mut ended_time_waits) = (HashSet::new(), HashMap::<_, i32>::new());
            let mut revisions = HashMap::new();
            let mut last_at = jiff::Timestamp::UNIX_EPOCH;
            for event in events(file, options(scenario.rules)) {
                let at = match event {
                    EventRecord::Transition(transition) => {
                        let port = match transition.side {
                            Role::Client => transition.client.port,
                            Role::Server => transition.server.port,
                        };
                        let end = (port, transition.incarnation);
                        if transition.to == State::TimeWait {
                            held_time_waits.insert(end);
                        }
                        if transition.to == State::Closed && held_time_waits.remove(&end) {
                            *ended_time_waits.entry(end).or_default() += 1;
                        }
                        let state = states.entry((port, transition.incarnation)).or_insert(State::Closed);
                        // A SYN that was sent to an end is no transition of it. Its answer may show LISTEN.
                        let sent_a_syn = [State::Unknown, State::Listen].contains(&transition.from)
                            && [State::Unknown, State::Closed].contains(state);
                        assert!(sent_a_syn || *state == transition.from, "{} {transition:?}", scenario.id);
                        *state = transition.to;
                        transition.at
                    }
                    EventRecord::Close(close) => {
                        let closed_at = close.closed_at.expect("a close has a time");
                        closes.push(*close);
                        closed_at
                    }
                    EventRecord::Reopened(reopened) => {
                        let refuted = closes.pop().expect("a close that is taken back");
                        assert_eq!(refuted.connection.incarnation, reopened.incarnation, "{}", scenario.id);
                        assert_eq!(reopened.reason, ReopenReason::DataAcknowledged);
                        revisions.insert(reopened.incarnation, 2);
                        reopened.at
                    }
                    EventRecord::RstIgnored(ignored) => ignored.at,
                    EventRecord::TimeWaitEnd(end) => {
                        let port = match end.holder {
                            Role::Client => end.client.port,
                            Role::Server => end.server.port,
                        };
                        *ended_time_waits.entry((port, end.incarnation)).or_default() -= 1;
                        end.at
                    }
                    EventRecord::Lost(lost) => panic!("{lost:?}"),
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
            for ((port, incarnation), more) in ended_time_waits {
                assert_eq!(more, 0, "{}: TIME-WAITs of {port}, {incarnation} that have ended", scenario.id);
            }
            let reported: Vec<u32> = closes.iter().map(|close| close.connection.incarnation).collect();
            let is_done = |end: &&ConnectionEnd| matches!(end.state, State::Closed | State::TimeWait);
            let done = |c: &&Connection| c.ends().iter().all(is_done);
            let wanted: Vec<u32> = connections.iter().filter(done).map(|c| c.incarnation).collect();
            assert!(
                wanted.iter().all(|incarnation| reported.contains(incarnation)),
                "{}: {reported:?}",
                scenario.id
            );
            assert!(
                reported.windows(2).all(|pair| pair[0] < pair[1]),
                "{}: once each: {reported:?}",
                scenario.id
            );
            for close in closes {
                let incarnation = close.connection.incarnation;
                let revision = revisions.get(&incarnation).copied().unwrap_or(1);
                assert_eq!(close.revision, revision, "{}", scenario.id);
                let closed_at_ns = close.closed_at.expect("a close has a time").as_nanosecond() as u64;
                let frames = steps(&scenario, variant, scenario.steps.len()).into_iter();
                let mut frames: Vec<_> = frames.filter(|frame| frame.at_ns <= closed_at_ns).collect();
                frames.push(arp(closed_at_ns));
                let then = replay(pcap(Order::Little, Unit::Nano, 1, &frames), scenario.rules).connections;
                let then = then.into_iter().find(|c| c.incarnation == incarnation).expect("it is listed");
                assert_eq!(close.connection.close, then.close, "{}", scenario.id);
            }
        }
    }
}
