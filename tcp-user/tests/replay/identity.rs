//! What names a connection in all of its records, and where its packets were.

use std::collections::HashSet;

use finwait::view::ConnectionId;

use super::*;

fn ids_of_events(events: &[EventRecord]) -> Vec<ConnectionId> {
    events.iter().filter_map(EventRecord::id).collect()
}

/// Two incarnations of one flow, and another flow between them.
fn three_connections() -> Vec<u8> {
    let frames = [(40_000, 1), (40_001, 2), (40_000, 200)];
    let frames: Vec<_> =
        frames.into_iter().flat_map(|(port, second)| connection_of(port, second * SECOND_NS)).collect();
    pcap(Order::Little, Unit::Nano, 1, &frames)
}

#[test]
fn an_id_is_that_of_one_connection_in_every_record_and_every_replay() {
    let ids = || -> Vec<_> {
        replay(three_connections(), Rules::RFC).connections.iter().map(|connection| connection.id).collect()
    };
    let first = ids();
    assert_eq!(first, ids(), "at every replay");
    assert_eq!(HashSet::<_>::from_iter(first.clone()).len(), 3, "{first:?}");
    let events = ids_of_events(&events(three_connections(), options(Rules::RFC)));
    assert!(events.len() > 3 * first.len(), "{events:?}");
    assert_eq!(HashSet::<_>::from_iter(events), HashSet::from_iter(first));
}

#[test]
fn a_filter_selects_a_connection_by_its_id() {
    let all = replay(three_connections(), Rules::RFC).connections;
    for connection in &all {
        let filter = format!("id {}", connection.id).parse().expect("a filter");
        let selected = replay_broken(three_connections(), &Options { filter, ..options(Rules::RFC) });
        assert_eq!(selected.connections, std::slice::from_ref(connection));
    }
}

/// Inserts VLAN tags, the outermost first.
fn tagged(mut captured: Captured, ids: &[u8]) -> Captured {
    let tags: Vec<u8> = ids.iter().flat_map(|&id| [0x81, 0, 0, id]).collect();
    captured.frame.splice(12..12, tags);
    captured
}

#[test]
fn each_direction_has_its_vlan_tags() {
    let frames: Vec<_> = connection_of(40_000, SECOND_NS)
        .into_iter()
        .map(|captured| match captured.frame[34..36] == 40_000_u16.to_be_bytes() {
            true => tagged(captured, &[100, 10]),
            false => tagged(captured, &[20]),
        })
        .collect();
    let [connection] = &replay(pcap(Order::Little, Unit::Nano, 1, &frames), Rules::RFC).connections[..]
    else {
        panic!("one connection")
    };
    assert_eq!((&connection.client.vlan, &connection.server.vlan), (&Some(vec![100, 10]), &Some(vec![20])));
    let record = serde_json::to_value(connection).expect("JSON");
    assert_eq!(record["client"]["vlan"], serde_json::json!([100, 10]));
    let untagged = pcap(Order::Little, Unit::Nano, 1, &connection_of(40_000, SECOND_NS));
    assert_eq!(replay(untagged, Rules::RFC).connections[0].client.vlan, None);
}
