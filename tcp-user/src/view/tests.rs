use serde_json::{Value, json};

use super::*;

#[test]
fn connection_is_the_documented_json() {
    let documented: Value = serde_json::from_str(
        r#"{"schema":"finwait.connection/1","family":"ipv4","interface":"eth0","scope":null,"tunnel":null,"incarnation":1,"id":"0f3a5b7c9d1e2f40",
        "client":{"address":"10.9.0.1","port":43210,"state":"time_wait","confirmed":true,"local":true,"on_host":true,"vlan":null,"segments":6,"bytes":120},
        "server":{"address":"10.9.0.2","port":80,"state":"closed","confirmed":false,"local":false,"on_host":false,"vlan":null,"segments":5,"bytes":512},
        "opener":"client","confidence":"exact","opened_at":"2026-11-22T10:46:21.120417Z","last_seen_at":"2026-11-22T10:46:21.480003Z","handshake_ms":0.31,
        "close":{"kind":"fin_4seg","closer":"client","aborter":null,"icmp":null,"fins":"both","complete":true,"started_at":"2026-11-22T10:46:21.470118Z"},
        "reset":null,"ignored_rst":null,
        "time_wait":{"holder":"client","expires_in_ms":59210,"restarts":0},"nat":null,
        "process":{"pid":4242,"comm":"curl","unit":null}}"#,
    )
    .unwrap();
    let connection = samples::time_wait();
    assert_eq!(serde_json::to_value(&connection).unwrap(), documented);
    assert!(
        serde_json::to_string(&connection)
            .unwrap()
            .starts_with(r#"{"schema":"finwait.connection/1","family""#)
    );
    assert_eq!(serde_json::from_value::<Connection>(documented).unwrap(), connection);
}

#[test]
fn unknown_is_null_and_comes_back() {
    let connection = samples::established();
    let value = serde_json::to_value(&connection).unwrap();
    for key in ["interface", "opened_at", "handshake_ms", "close", "time_wait"] {
        assert_eq!(value.get(key), Some(&Value::Null), "{key}");
    }
    assert_eq!(serde_json::from_value::<Connection>(value).unwrap(), connection);
}

#[test]
fn added_keys_do_not_disturb_an_older_reader() {
    let mut value = serde_json::to_value(samples::time_wait()).unwrap();
    value["community_id"] = json!("1:x");
    assert!(serde_json::from_value::<Connection>(value).is_ok());
}

#[test]
fn whole_seconds_keep_their_microseconds() {
    let value = serde_json::to_value(samples::close_wait()).unwrap();
    assert_eq!(value["opened_at"], "2026-11-22T10:40:00.000000Z");
}

#[test]
fn events_carry_their_schema_once_and_come_back() {
    for (event, schema) in [
        (EventRecord::from(samples::transition()), schema::TRANSITION),
        (EventRecord::from(samples::close()), schema::CLOSE),
        (EventRecord::from(samples::time_wait_end()), schema::TIME_WAIT_END),
        (EventRecord::from(samples::ignored_rst()), schema::RST_IGNORED),
        (EventRecord::from(Lost { events: 7 }), schema::LOST),
        (samples::events().swap_remove(0), schema::REOPENED),
    ] {
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.starts_with(&format!(r#"{{"schema":"{schema}","#)), "{text}");
        assert_eq!(text.matches("schema").count(), 1, "{text}");
        assert_eq!(serde_json::from_str::<EventRecord>(&text).unwrap(), event);
    }
    let close = serde_json::to_value(EventRecord::from(samples::close())).unwrap();
    assert_eq!(close["client"]["address"], "10.9.0.1");
    assert_eq!((&close["durations_ms"]["time_wait"], &close["revision"]), (&Value::Null, &json!(1)));
}

#[test]
fn states_have_many_spellings() {
    for name in ["time-wait", "time_wait", "TIME-WAIT", "TimeWait", "timewait"] {
        assert_eq!(StateSet::parse(name), Ok(StateSet::of(&[State::TimeWait])), "{name}");
    }
    assert_eq!(StateSet::parse("FIN_WAIT2"), Ok(StateSet::of(&[State::FinWait2])));
    assert_eq!(StateSet::parse("syn-recv"), StateSet::parse("syn_received"));
    assert_eq!(StateSet::parse("fin_wait").unwrap().iter().count(), 2);
    assert!(StateSet::parse("").is_err());
    for name in StateSet::names() {
        assert!(StateSet::parse(&name).is_ok(), "{name}");
    }
}

#[test]
fn groups_are_those_of_ss() {
    let set = |name| StateSet::parse(name).unwrap();
    assert!(!set("connected").contains(State::Listen) && !set("connected").contains(State::Closed));
    assert!(set("connected").contains(State::SynSent) && !set("synchronized").contains(State::SynSent));
    for state in State::ALL {
        assert!(set("big").contains(state) != set("bucket").contains(state));
        assert!(set("all").contains(state));
    }
}
