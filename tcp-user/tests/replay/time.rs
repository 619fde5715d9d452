//! Effects of time on connections, on their order and on memory, and the selection of records.

use super::*;

#[test]
fn closes_and_ends_of_time_wait_are_reported_at_their_time_and_in_order() {
    let mut frames: Vec<_> =
        (0..10).flat_map(|i| connection_of(41_000 + i, u64::from(i) * SECOND_NS)).collect();
    frames.push(arp(3_600 * SECOND_NS));
    let events = events(pcap(Order::Little, Unit::Nano, 1, &frames), Options::default());
    let (mut closes, mut time_wait_ends) = (Vec::new(), Vec::new());
    for event in &events {
        match event {
            EventRecord::Close(close) => {
                let closed_at = close.closed_at.expect("it has a time").as_millisecond();
                closes.push((close.connection.client.port, closed_at));
                assert_eq!((close.revision, close.durations_ms.time_wait), (1, None));
                assert_eq!(close.durations_ms.closing, Some(20.0));
            }
            EventRecord::TimeWaitEnd(end) => {
                time_wait_ends.push((end.client.port, end.at.as_millisecond()));
                assert_eq!((end.holder, end.ending), (Role::Client, TimeWaitEnding::Expired));
                assert_eq!((end.duration_ms, end.restarts), (60_000.0, 0));
            }
            EventRecord::Transition(_) => {}
            other => panic!("no {other:?} was wanted"),
        }
    }
    let at = |ms: i64| (0..10).map(|i| (41_000 + i, i64::from(i) * 1_000 + ms)).collect::<Vec<_>>();
    assert_eq!(closes, at(50));
    assert_eq!(time_wait_ends, at(40 + 60_000));
}

#[test]
fn only_remembered_flows_take_memory() {
    let mut replay = Replay::new(Rules::AGENT, Selection { events: true, ..Selection::default() });
    let (mut most, mut closes) = (0, 0);
    for second in 0..2_000u64 {
        let port = 20_000 + (second % 20_000) as u16;
        for Captured { at_ns, frame } in connection_of(port, second * SECOND_NS) {
            replay.push(&Frame::new(&frame, LinkType::Ethernet, at_ns));
        }
        while let Some(output) = replay.poll() {
            closes += u32::from(matches!(output, Output::Event(EventRecord::Close(_))));
        }
        most = most.max(replay.flows());
    }
    // One connection a second, in TIME-WAIT for 60 s, remembered for 60 s.
    assert!(most <= 122, "{most} flows at once");
    assert!(closes >= 1_900);
}

#[test]
fn late_segments_after_the_close_create_no_connection() {
    // The connection is in TIME-WAIT for 60 s and then remembered for 60 s, however late the last segment
    // comes.
    for (late_at_s, connections) in [(&[70, 110, 119][..], 1), (&[70, 110, 119, 121], 2)] {
        let mut frames = connection_of(41_000, 0);
        for at_s in late_at_s {
            let late = frames::frame(End::A, &segment_of(Flags::ACK, 1_002, 5_002));
            frames.push(Captured { at_ns: at_s * SECOND_NS, frame: with_port(late, End::A, 41_000) });
        }
        let report = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
        assert_eq!(report.connections.len(), connections);
    }
    // A RST of an unknown flow creates no connection either.
    let rst = Captured { at_ns: 1, frame: frames::frame(End::A, &segment_of(Flags::RST, 1, 0)) };
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &[rst]), Rules::AGENT);
    assert!(report.connections.is_empty());
    assert_eq!(report.statistics.ignored().collect::<Vec<_>>(), [("no_flow", 1)]);
}

#[test]
fn a_timestamp_that_goes_back_does_not_move_the_clock() {
    let mut frames = connection_of(41_000, 100 * SECOND_NS);
    frames[3].at_ns = 5 * SECOND_NS;
    let report = replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::AGENT);
    assert_eq!(report.statistics.out_of_order, 1);
    let close = report.connections[0].close.as_ref().expect("closed");
    assert_eq!(close.started_at.expect("begun").as_millisecond(), 100_020);
}

#[test]
fn the_latest_timestamp_causes_no_endless_loop() {
    let mut replay = Replay::new(Rules::AGENT, Selection { connections: true, ..Selection::default() });
    for at_ns in [1, u64::MAX - 1, u64::MAX, 5] {
        replay.push(&Frame::new(&syn_of(41_000), LinkType::Ethernet, at_ns));
    }
    assert_eq!(replay.statistics().tracked, 4);
    // A limit on CLOSED does not affect TIME-WAIT, which ends at its own time.
    let mut rules = Rules::AGENT;
    rules.silence_ns[tcp_common::State::Closed as usize] = SECOND_NS;
    let mut frames = connection_of(41_000, SECOND_NS);
    frames.push(arp(100 * 365 * 86_400 * SECOND_NS));
    let mut replay = Replay::new(rules, Selection { events: true, ..Selection::default() });
    for Captured { at_ns, frame } in frames {
        replay.push(&Frame::new(&frame, LinkType::Ethernet, at_ns));
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| replay.poll()).collect();
    let closes: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Event(EventRecord::Close(close)) => close.closed_at.map(|at| at.as_millisecond()),
            _ => None,
        })
        .collect();
    assert_eq!(closes, [1_050]);
    let ends = outputs.iter().filter_map(|output| match output {
        Output::Event(EventRecord::TimeWaitEnd(end)) => Some(end.at.as_millisecond()),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [61_040]);
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
    assert_eq!(report.connections[1].close_word(), "syn_timeout");
    assert_eq!(report.statistics.connections, 3);
}

/// Replays more connections than the list can hold. Each is listed once, and those at the end come last.
#[test]
fn listed_connections_take_no_flow_memory() {
    let mut replay = Replay::new(Rules::AGENT, Selection { connections: true, ..Selection::default() });
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
    // The first connections were listed before the end. The ages of the others refer to the end.
    let as_of_end = |number: u64| ages[number as usize].get_seconds() as u64 == count - 1 - number;
    assert!(!as_of_end(early - 1) && as_of_end(early + 1), "{early}");
}

#[test]
fn a_filter_selects_connections_and_events() {
    let frames: Vec<_> = (0..3).flat_map(|i| connection_of(41_000 + i, u64::from(i) * SECOND_NS)).collect();
    let file = pcap(Order::Little, Unit::Nano, 1, &frames);
    let chosen = Options { filter: Filter::parse("port = :41001").expect("a filter"), ..Options::default() };
    assert_eq!(replay_broken(file.clone(), &chosen).connections.len(), 1);
    let events = events(file, chosen);
    assert!(matches!(events.last(), Some(EventRecord::Close(_))), "{events:#?}");
    for event in events {
        let port = match event {
            EventRecord::Transition(transition) => transition.client.port,
            EventRecord::Close(close) => close.connection.client.port,
            other => panic!("no {other:?} was wanted"),
        };
        assert_eq!(port, 41_001);
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
