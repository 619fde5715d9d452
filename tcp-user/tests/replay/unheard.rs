//! An end of which nothing was seen has no state: it is not said to listen.

use finwait::output::{Format, ListWriter, Palette};

use super::*;

fn pcap_of(segments: &[(End, Segment)]) -> Vec<u8> {
    let captured = |(index, (sender, segment)): (usize, &(End, Segment))| Captured {
        at_ns: SECOND_NS + index as u64 * MS,
        frame: frames::frame(*sender, segment),
    };
    pcap(Order::Little, Unit::Nano, 1, &segments.iter().enumerate().map(captured).collect::<Vec<_>>())
}

fn syn() -> (End, Segment) {
    (End::A, segment_of(Flags::SYN, 1_000, 0))
}

/// The transitions of the server end, as (from, to).
fn of_server(file: Vec<u8>) -> Vec<(State, State)> {
    let transition = |event| match event {
        EventRecord::Transition(one) if one.side == Role::Server => Some((one.from, one.to)),
        _ => None,
    };
    events(file, options(Rules::RFC)).into_iter().filter_map(transition).collect()
}

#[test]
fn a_server_that_has_not_answered_has_no_state() {
    let file = pcap_of(&[syn(), syn()]);
    let [connection] = &replay(file.clone(), Rules::RFC).connections[..] else { panic!("one connection") };
    let record = serde_json::to_value(connection).expect("JSON");
    assert_eq!(record["client"]["state"], "syn_sent");
    assert_eq!((&record["server"]["state"], &record["server"]["confirmed"]), (&().into(), &false.into()));
    assert_eq!(serde_json::from_value::<Connection>(record).expect("a connection"), *connection);
    assert!(of_server(file).is_empty(), "no transition either");
}

#[test]
fn tables_show_a_dash_and_csv_an_empty_field() {
    let connections = replay(pcap_of(&[syn()]), Rules::RFC).connections;
    let list = |format| {
        let mut out = Vec::new();
        let writer = ListWriter::new(&mut out, format, Palette::PLAIN, connections[0].last_seen_at);
        writer.and_then(|writer| writer.write_all(&connections)).expect("a Vec");
        String::from_utf8(out).expect("UTF-8")
    };
    let table = list(Format::Table);
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["10.9.0.1:40000", "SYN-SENT", "10.9.0.2:80", "-", "-", "-"], "{table}");
    let csv = list(Format::Csv);
    let [names, values] = [0, 1].map(|line| csv.lines().nth(line).expect("a line").split(','));
    assert_eq!(names.zip(values).find(|(name, _)| *name == "server_state"), Some(("server_state", "")));
}

#[test]
fn filters_do_not_take_silence_for_listen() {
    let [connection] = &replay(pcap_of(&[syn()]), Rules::RFC).connections[..] else { panic!("one") };
    for (filter, selected) in [
        ("state listen", false),
        ("server state unknown", true),
        ("client state unknown", false),
        ("state syn-sent and not server state listen", true),
    ] {
        let filter = filter.parse::<Filter>().expect(filter);
        assert_eq!(filter.matches(connection, connection.last_seen_at), selected, "{filter}");
    }
}

#[test]
fn the_answer_shows_that_it_listened_and_a_refusal_does_not() {
    let answer = (End::B, segment_of(Flags::SYN | Flags::ACK, 5_000, 1_001));
    assert_eq!(of_server(pcap_of(&[syn(), answer])), [(State::Listen, State::SynReceived)]);
    let refusal = (End::B, segment_of(Flags::RST | Flags::ACK, 0, 1_001));
    let file = pcap_of(&[syn(), refusal]);
    assert_eq!(of_server(file.clone()), [(State::Unknown, State::Closed)]);
    let transition = serde_json::to_value(&events(file, options(Rules::RFC))[2]).expect("JSON");
    assert_eq!((&transition["from"], &transition["to"]), (&().into(), &"closed".into()), "{transition}");
}

#[test]
fn an_answer_that_was_not_believed_is_no_state() {
    // It acknowledges what was never sent, and the RST says so.
    let answer = (End::B, segment_of(Flags::ACK, 777, 1_000_000_000));
    let reset = (End::A, segment_of(Flags::RST, 1_000_000_000, 0));
    let [connection] = &replay(pcap_of(&[syn(), answer, reset]), Rules::RFC).connections[..] else {
        panic!("one connection")
    };
    assert_eq!([connection.client.state, connection.server.state], [State::SynSent, State::Unknown]);
}
