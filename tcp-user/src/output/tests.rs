use serde_json::Value;

use super::*;
use crate::view::{Connection, EventRecord, Role, samples};

fn list(format: Format, palette: Palette, connections: &[Connection]) -> String {
    let mut out = Vec::new();
    let writer = ListWriter::new(&mut out, format, palette, samples::at(47, 0.0)).unwrap();
    assert_eq!(writer.write_all(connections).unwrap(), connections.len());
    String::from_utf8(out).unwrap()
}

fn samples() -> [Connection; 4] {
    let mut reset = samples::close_wait();
    if let Some(close) = &mut reset.close {
        close.kind = Some(crate::view::CloseKind::RstAfterFin);
        close.aborter = Some(Role::Server);
    }
    [samples::time_wait(), samples::established(), reset, samples::older()]
}

fn events(format: Format) -> String {
    let mut out = Vec::new();
    let mut writer = EventWriter::new(&mut out, format, Palette::PLAIN).unwrap();
    let events = samples::events();
    events.iter().for_each(|event| writer.push(event).unwrap());
    assert_eq!(writer.finish().unwrap(), events.len());
    String::from_utf8(out).unwrap()
}

#[test]
fn table() {
    insta::assert_snapshot!(list(Format::Table, Palette::PLAIN, &samples()));
}

#[test]
fn wide() {
    insta::assert_snapshot!(list(Format::Wide, Palette::PLAIN, &samples()));
}

#[test]
fn csv() {
    insta::assert_snapshot!(list(Format::Csv, Palette::PLAIN, &samples()));
}

#[test]
fn link_local_addresses_have_their_interface_and_directions_their_vlans() {
    let mut connection = samples::established();
    for (end, address) in [(&mut connection.client, "fe80::17"), (&mut connection.server, "fe80::1")] {
        end.address = address.parse().unwrap();
    }
    connection.scope = Some("eth0".into());
    connection.client.vlan = Some(vec![100, 10]);
    let shown =
        |connection: &Connection| list(Format::Wide, Palette::PLAIN, std::slice::from_ref(connection));
    for cell in ["[fe80::17%eth0]:43210 ", "[fe80::1%eth0]:443* ", " 100.10/- "] {
        assert!(shown(&connection).contains(cell), "{cell}: {}", shown(&connection));
    }
    connection.server.vlan = Some(vec![100, 10]);
    assert!(shown(&connection).contains(" 100.10 "), "{}", shown(&connection));
    let text = list(Format::Csv, Palette::PLAIN, &[connection]);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let record: std::collections::HashMap<String, String> = reader.deserialize().next().unwrap().unwrap();
    assert_eq!((&*record["scope"], &*record["server_vlan"]), ("eth0", "100.10"));
}

#[test]
fn colours_keep_the_columns() {
    let coloured = list(Format::Table, Palette::COLOURED, &samples());
    assert!(coloured.contains("\u{1b}[36mTIME-WAIT\u{1b}[0m"), "{coloured:?}");
    let stripped = anstream::adapter::strip_str(&coloured).to_string();
    let trimmed: Vec<&str> = stripped.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, list(Format::Table, Palette::PLAIN, &samples()).lines().collect::<Vec<_>>());
}

#[test]
fn every_row_has_as_many_words_as_the_header() {
    for format in [Format::Table, Format::Wide] {
        let text = list(format, Palette::PLAIN, &samples());
        let mut lines = text.lines().map(|line| line.split_whitespace().count());
        let header = lines.next().unwrap();
        assert!(lines.all(|count| count == header), "{text}");
    }
}

#[test]
fn nothing_steers_the_terminal() {
    for format in [Format::Table, Format::Wide, Format::Json, Format::Ndjson, Format::Csv] {
        let text = list(format, Palette::PLAIN, &samples());
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    assert_eq!(escape("a\u{202e}b\u{9b}c d"), "a\\u{202e}b\\u{9b}c d");
}

#[test]
fn json_is_one_document() {
    for connections in [&samples()[..], &[]] {
        let document: Value = serde_json::from_str(&list(Format::Json, Palette::PLAIN, connections)).unwrap();
        assert_eq!(document["schema"], "finwait.connections/1");
        let listed: Vec<Connection> = serde_json::from_value(document["connections"].clone()).unwrap();
        assert_eq!(listed, connections);
    }
}

#[test]
fn ndjson_is_one_object_a_line() {
    let text = list(Format::Ndjson, Palette::PLAIN, &samples());
    let listed: Vec<Connection> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed, samples());
    assert_eq!(list(Format::Ndjson, Palette::PLAIN, &[]), "");
}

#[test]
fn csv_reads_back() {
    let text = list(Format::Csv, Palette::PLAIN, &samples());
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let comm = reader.headers().unwrap().iter().position(|name| name == "comm").unwrap();
    let comms: Vec<String> = reader.records().map(|record| record.unwrap()[comm].to_owned()).collect();
    assert_eq!(comms, ["curl", "evil\\u{1b}[31m \"x\",y", "", "curl"]);
}

#[test]
fn event_lines() {
    insta::assert_snapshot!("event_lines", events(Format::Table));
    insta::assert_snapshot!("event_lines_wide", events(Format::Wide));
}

#[test]
fn event_csv() {
    insta::assert_snapshot!(events(Format::Csv));
}

#[test]
fn event_json() {
    let document: Value = serde_json::from_str(&events(Format::Json)).unwrap();
    assert_eq!(document["schema"], "finwait.events/1");
    let read: Vec<EventRecord> = serde_json::from_value(document["events"].clone()).unwrap();
    assert_eq!(read, samples::events());
    let lines: Vec<EventRecord> =
        events(Format::Ndjson).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, read);
}

#[test]
fn durations_are_short() {
    let shown: Vec<String> = [
        0.0,
        0.31,
        0.9996,
        9.885,
        60.0,
        349.4,
        999.6,
        1500.0,
        59_210.0,
        59_960.0,
        312_000.0,
        12_000_000.0,
        86_400_000.0,
        450_000_000.0,
        -1.0,
        f64::NAN,
    ]
    .into_iter()
    .map(duration)
    .collect();
    assert_eq!(
        shown,
        [
            "0us", "310us", "1ms", "9.9ms", "60ms", "349ms", "1s", "1.5s", "59.2s", "1m", "5m12s", "3h20m",
            "1d", "5d5h", "-", "-"
        ]
    );
}
