//! The agent's own connections are in no list and no total of the host's.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use common::{Agent, FINWAIT, until};
use finwait::lab::Lab;
use finwait::view::Connection;

/// The sum of a family's samples that have this label in a metrics page.
fn sum(page: &str, family: &str, label: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with(&format!("{family}{{")) && line.contains(label));
    lines
        .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}

/// Scrapes over a connection that stays open.
fn scrape(stream: &mut TcpStream) {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("asking");
    assert_ne!(stream.read(&mut [0; 1024]).expect("an answer"), 0);
}

#[test]
#[ignore = "needs root"]
fn scrapes_are_counted_apart_and_listed_on_request() {
    let lab = Lab::new().expect("creating namespaces (root needed)");
    let agent = Agent::start(&lab, "own", &["-i", "lo", "--listen", "127.0.0.1:9817"]);
    let connect = |address: &str| {
        lab.server.run(|| TcpStream::connect(address)).expect("namespace").expect("connecting")
    };
    let listener =
        lab.server.run(|| TcpListener::bind("127.0.0.1:7")).expect("namespace").expect("a free port");
    let mut scraper = connect("127.0.0.1:9817");
    scrape(&mut scraper);
    let _other = connect("127.0.0.1:7");
    let _accepted = listener.accept().expect("accepting");
    let ports = |arguments: &[&str]| -> Vec<u16> {
        let output = agent.cli(&[&["ls", "-o", "ndjson"], arguments].concat());
        let lines = String::from_utf8(output.stdout).expect("text");
        let port = |line| serde_json::from_str::<Connection>(line).expect("a connection").server.port;
        let mut ports: Vec<_> = lines.lines().map(port).collect();
        ports.sort_unstable();
        ports
    };
    until("both are open", || ports(&["--self", "state established"]) == [7, 9817]);
    assert_eq!(ports(&[]), [7]);
    let mut audit = Command::new(FINWAIT);
    let audit = lab.server.run(|| audit.args(["audit", "--socket", &agent.socket]).output());
    let audit = audit.expect("namespace").expect("running the CLI");
    assert!(audit.status.success(), "the sockets of the scrape are compared: {audit:?}");

    drop(scraper);
    until("the scrape is closed", || ports(&["--self", "state established"]) == [7]);
    until("the other connection is counted", || {
        sum(&agent.scrape(), "finwait_connections_opened_total", "role") > 0
    });
    let page = agent.scrape();
    assert_eq!(sum(&page, "finwait_connections_opened_total", "role"), 1, "{page}");
    assert_eq!(sum(&page, "finwait_connections_closed_total", "kind"), 0, "{page}");
    assert!(sum(&page, "finwait_own_connections_total", "scrape") >= 3, "{page}");
    assert!(sum(&page, "finwait_own_connections_total", "query") >= 5, "{page}");
}
