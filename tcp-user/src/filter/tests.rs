use proptest::prelude::*;

use super::*;
use crate::view::{Role, Roles, State, samples};

fn now() -> Timestamp {
    samples::at(47, 0.0)
}

fn wants(filter: &str, connection: &Connection) -> bool {
    match Filter::parse(filter) {
        Ok(filter) => filter.matches(connection, now()),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn error(filter: &str) -> String {
    Filter::parse(filter).expect_err(filter).to_string()
}

/// Which of the filters want the connection.
fn chosen<'a>(connection: &Connection, filters: &[&'a str]) -> Vec<&'a str> {
    filters.iter().copied().filter(|filter| wants(filter, connection)).collect()
}

#[track_caller]
fn all_hold(connection: &Connection, filters: &[&str]) {
    assert_eq!(chosen(connection, filters), filters);
}

#[track_caller]
fn none_holds(connection: &Connection, filters: &[&str]) {
    assert_eq!(chosen(connection, filters), [""; 0]);
}

#[test]
fn documented_example() {
    all_hold(&samples::time_wait(), &["state time-wait and dst 10.0.0.0/8 and dport = :80", "", "  "]);
    none_holds(&samples::time_wait(), &["state time-wait and dst 10.0.0.0/8 and dport = :443"]);
}

#[test]
fn states_of_ends() {
    let connection = samples::time_wait();
    all_hold(
        &connection,
        &[
            "state TIME_WAIT",
            "state closed",
            "state=time_wait",
            "client state timewait",
            "server state closed",
            "local state time-wait",
            "remote state closed",
            "state bucket",
            "state connected",
            "exclude established",
            "state != established",
        ],
    );
    none_holds(
        &connection,
        &["client state closed", "server state time-wait", "remote state time-wait", "exclude time-wait"],
    );
}

#[test]
fn addresses() {
    let v4 = samples::time_wait();
    all_hold(
        &v4,
        &["src 10.9.0.1", "dst 10.9.0.2:80", "client 10.9.0.0/31:43210", "dst *:80", "src *", "dst :80"],
    );
    none_holds(
        &v4,
        &["src 10.9.0.2", "dst 10.9.0.2:81", "src ::/0", "client 10.9.0.2/32", "server [::1]:80"],
    );
    let v6 = samples::established();
    all_hold(
        &v6,
        &["src 2001:db8::1", "src [2001:db8::1]:443", "remote 2001:db8::/32", "dst [2001:db8::17]/128:43210"],
    );
    all_hold(&v6, &["src 2001:db8::/64:443", "client ::/0", "dst != 10.0.0.1"]);
    let mut link_local = samples::established();
    link_local.server.address = "fe80::1".parse().unwrap();
    link_local.scope = Some("eth0".into());
    all_hold(
        &link_local,
        &[
            "src fe80::1",
            "src fe80::1%eth0",
            "src [fe80::1%eth0]:443",
            "src fe80::%eth0/10",
            "src fe80::1%eth0/64:443",
        ],
    );
    none_holds(
        &link_local,
        &[
            "src fe80::1%eth1",
            "src [fe80::1%eth0]:444",
            "src fe80::2%eth0",
            "dst fe80::1%eth0",
            "dst fe80::%eth0/10",
        ],
    );
    for bad in [
        "10.0.0.1%eth0",
        "2001:db8::1%eth0",
        "fe80::1%",
        "[fe80::1%eth0",
        "*%eth0",
        "fe80::%eth0/9",
        "10.0.0.0/33",
        "10.0.0",
        "[::1",
        "[10.0.0.1]:80",
        "1.2.3.4:99999",
        "*/8",
        "1.2.3.4:",
        "::1/129",
        "/8",
    ] {
        assert!(error(&format!("dst {bad}")).contains("expected an address"), "{bad}");
    }
}

#[test]
fn src_is_local_else_the_client() {
    let mut connection = samples::time_wait();
    for (client, server, source) in [
        (true, false, Role::Client),
        (false, true, Role::Server),
        (true, true, Role::Client),
        (false, false, Role::Client),
    ] {
        connection.client.local = client;
        connection.server.local = server;
        let (sport, dport) = if source == Role::Client { (43210, 80) } else { (80, 43210) };
        all_hold(&connection, &[&format!("sport = {sport} and dport = {dport}")]);
    }
}

#[test]
fn ports_and_operators() {
    all_hold(
        &samples::time_wait(),
        &[
            "port = 80",
            "port 43210",
            "sport >= :43210",
            "sport>43209",
            "dport lt 81",
            "dport le *:80",
            "dport <= 80",
            "dport ne 443",
            "dport!=443",
            "sport gt 1024",
            "sport GE 1024",
            "dport eq :80",
            "dport == 80",
        ],
    );
    assert!(error("dport = no-such-service").contains("expected a port, such as"));
    assert!(error("dport = :65536").contains("expected a port, such as"));
    assert!(error("dport =").contains("expected a port, such as"));
}

#[test]
fn roles() {
    let connection = samples::time_wait();
    all_hold(
        &connection,
        &["closer client", "closer local", "opener client", "holder LOCAL", "aborter none"],
    );
    none_holds(
        &connection,
        &["closer server", "closer remote", "closer both", "closer none", "aborter remote"],
    );
    let mut open = samples::established();
    all_hold(&open, &["closer none", "opener unknown", "holder none"]);
    none_holds(&open, &["closer remote", "opener local"]);
    open.close = samples::close_wait().close.map(|close| crate::view::CloseInfo {
        closer: Some(Roles::Both),
        aborter: Some(Role::Server),
        ..close
    });
    all_hold(&open, &["closer both", "aborter local"]);
    none_holds(&open, &["closer local", "closer remote"]);
}

#[test]
fn other_facts() {
    all_hold(
        &samples::time_wait(),
        &[
            "kind fin_4seg",
            "kind FIN-4SEG",
            "process curl",
            "process 4242",
            "process 'curl'",
            "interface eth0",
            "dev = eth0",
            "family ipv4",
            "family inet",
            "confidence exact",
            "not confidence one-way",
            "age > 30s",
            "age lt 1m",
            "idle > 38s",
            "id 0f3a5b7c9d1e2f40",
            "id = 0F3A5B7C9D1E2F40",
            "not id 0f3a5b7c9d1e2f41",
        ],
    );
    let mut tagged = samples::time_wait();
    none_holds(&tagged, &["vlan 100"]);
    tagged.client.vlan = Some(vec![100, 10]);
    tagged.server.vlan = Some(vec![20]);
    all_hold(&tagged, &["vlan 100", "vlan 10", "vlan = 20", "vlan != 30"]);
    for id in ["0", "4095", "x"] {
        assert!(error(&format!("vlan {id}")).contains("expected a VLAN id from 1 to 4094"), "{id}");
    }
    assert!(error("id 0f3a").contains("expected the id of a connection: 16 hexadecimal digits"));
    let open = samples::established();
    all_hold(&open, &["kind open", "confidence midstream", "process 7", "family ipv6", "exclude time-wait"]);
    none_holds(&open, &["age > 0s", "age < 10h", "interface eth0", "process nginx"]);
    all_hold(&samples::close_wait(), &["age = 7m"]);
    all_hold(&samples::older(), &["kind unseen", "not kind fin_3seg"]);
    none_holds(&samples::time_wait(), &["kind unseen"]);
}

/// `open` is a connection that neither end closes. `closing` lasts until both ends are done, also once the kind is known.
#[test]
fn closing_is_neither_open_nor_closed() {
    all_hold(&samples::close_wait(), &["kind closing", "not kind open"]);
    none_holds(&samples::established(), &["kind closing"]);
    none_holds(&samples::time_wait(), &["kind closing", "kind open"]);
    let mut last_ack = samples::time_wait();
    last_ack.server.state = crate::view::State::LastAck;
    all_hold(&last_ack, &["kind closing", "kind fin_4seg"]);
}

#[test]
fn logic() {
    let connection = samples::time_wait();
    let truth = [("port 80", true), ("port 1", false)];
    for (a, x) in truth {
        for (b, y) in truth {
            for (c, z) in truth {
                for (text, value) in [
                    (format!("{a} or {b} and {c}"), x || (y && z)),
                    (format!("{a} and {b} or {c}"), (x && y) || z),
                    (format!("{a} {b} || {c}"), (x && y) || z),
                    (format!("({a} or {b}) && {c}"), (x || y) && z),
                    (format!("not {a} {b} & not not {c}"), !x && y && z),
                    (format!("!({a}|{b})AND!{c}"), !(x || y || z)),
                ] {
                    assert_eq!(wants(&text, &connection), value, "{text}");
                }
            }
        }
    }
}

#[test]
fn mistakes_point_at_themselves() {
    assert_eq!(
        error("state tiem-wait and dst 10.0.0.0/8"),
        "expected a state, such as time-wait, or a group of states, such as connected\n    \
         state tiem-wait and dst 10.0.0.0/8\n          ^^^^^^^^^\ndid you mean `time-wait`?"
    );
    assert_eq!(
        error("port 80 and"),
        "expected a test, such as `state time-wait` or `dport = :443`\n    port 80 and\n               ^"
    );
    assert!(error("sate closed").ends_with("did you mean `state`?"));
    assert!(error("dprot = 3").ends_with("did you mean `dport`?"));
    assert!(error("kind fin_3sge").ends_with("did you mean `fin_3seg`?"));
    assert!(error("closer sever").ends_with("did you mean `server`?"));
    assert!(!error("xyzzy").contains("did you mean"));
    assert!(
        error("opener none")
            .contains("expected an opener: one of client, server, both, local, remote, unknown")
    );
    assert!(error("(port 80").contains("not closed"));
    assert!(error("port 80)").contains("unmatched closing"));
    assert!(error("process \"a").contains("quote is not closed"));
    assert!(error("age 30s").contains("comparison"));
    assert!(error("age > 30").contains("duration"));
    assert!(error("age > 99999999999999999999y").contains("duration"));
    assert!(error("()").contains("expected a test"));
    assert!(error("and port 80").contains("expected a test"));
    assert!(error("process and port 80").contains("expected a process name"));
    assert!(error("\"state\" closed").contains("expected a test"));
}

#[test]
fn mistakes_are_safe_to_print() {
    let shown = error("state \u{1b}[31mé\tx");
    assert!(!shown.contains('\u{1b}') && !shown.contains('\t'), "{shown:?}");
    let long = "x".repeat(10_000);
    assert!(error(&format!("port 80 {long}")).len() < 500);
}

#[test]
fn depth_and_length_are_no_danger() {
    assert!(error(&"(".repeat(100_000)).contains("nested more than 64 deep"));
    let nested = format!("{}port 80{}", "(".repeat(64), ")".repeat(64));
    assert!(wants(&nested, &samples::time_wait()));
    assert!(wants(&"(port 80) ".repeat(1000), &samples::time_wait()));
    assert!(wants(&format!("{}port 80", "!".repeat(100_000)), &samples::time_wait()));
    assert!(wants(&vec!["port 80"; 50_000].join(" or "), &samples::time_wait()));
}

#[test]
fn a_filter_shows_its_text_and_knows_when_it_is_empty() {
    let filter: Filter = "state closed".parse().unwrap();
    assert_eq!(filter.to_string(), "state closed");
    assert!(
        !filter.is_empty() && Filter::default().is_empty() && Filter::parse(" \u{a0} ").unwrap().is_empty()
    );
}

#[test]
fn every_state_can_be_asked_for_by_both_of_its_names() {
    for state in State::ALL {
        for name in [state.name(), state.rfc_name()] {
            assert!(Filter::parse(&format!("state {name}")).is_ok(), "{name}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_words_are_read_or_refused(words in prop::collection::vec(
        prop::sample::select(vec![
            "state", "time-wait", "(", ")", "not", "!", "and", "||", "dport", "=", ":443", "src", "::1", "age", ">",
            "30s", "closer", "local", "client", "kind", "é", "'", "[", "/", "10.0.0.0/8", "exclude", "!=", "\u{2003}",
        ]), 0..24)
    ) {
        let text = words.join(" ");
        match Filter::parse(&text) {
            Ok(filter) => { filter.matches(&samples::time_wait(), now()); }
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.span().start) && text.is_char_boundary(error.span().end));
                prop_assert!(error.to_string().contains('^'));
            }
        }
    }
}

#[test]
fn a_filter_knows_whether_it_asks_for_the_owner() {
    for (text, asks) in
        [("", false), ("port = :80", false), ("process nginx", true), ("kind open or not (process 7)", true)]
    {
        assert_eq!(Filter::parse(text).unwrap().asks_for_process(), asks, "{text}");
    }
}

#[test]
fn habits_of_the_hand() {
    let connection = samples::time_wait();
    all_hold(
        &connection,
        &[
            "dport = :http",
            "dport http",
            "port in 80,443",
            "dport 443,70-90",
            "port = 43210,1",
            "sport != 80,443",
            "10.9.0.2:80",
            ":80 and 10.0.0.0/8",
            "host 10.9.0.1",
            "not :443",
            "bytes > 600",
            "bytes <= 1KiB",
            "handshake lt 1ms",
            "process cu*",
            "process *url",
            "process c*r*",
            "pid 4242",
        ],
    );
    none_holds(
        &connection,
        &[
            "dport = :https",
            "port in 81-90,443",
            "dport != 80",
            "10.9.0.3",
            "bytes > 1MB",
            "handshake > 1s",
            "process *curl2",
            "process u*",
            "process c*x*l",
            "pid 7",
        ],
    );
    for filter in
        ["port in", "port 90-80", "port 80,", "dport :no-such-service", "bytes 5", "pid x", "10.9.0.300"]
    {
        error(filter);
    }
    assert!(Filter::parse("pid 7").expect("a filter").asks_for_process());
}
