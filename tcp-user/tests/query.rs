//! Hostile requests to the query socket. The agent answers each by HTTP or closes the connection, and
//! continues to run.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::Agent;
use finwait::lab::Lab;
use testkit::model::{Script, random_bytes};

const REQUESTS: u64 = 3_000;

#[test]
#[ignore = "needs root"]
fn the_agent_survives_any_request() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let mut agent = Agent::start(&lab, "query", &["-i", lab.server.interface, "--max-flows", "64"]);
    for seed in 0..REQUESTS {
        let bytes = random_bytes(seed, 64);
        let mut script = Script::new(&bytes);
        let path = path(&mut script);
        let answer =
            ask(&agent.socket, format!("GET {path} HTTP/1.1\r\nhost: finwait\r\n\r\n").as_bytes(), false);
        let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        assert!(matches!(status, Some("200" | "400" | "404")), "GET {path} is answered by {answer:?}");
        let answer = ask(&agent.socket, &damaged(&path, &mut script), true);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer:?}");
    }
    assert_eq!(agent.process.try_wait().expect("looking at the agent"), None, "the agent ended");
    assert_eq!(agent.status().table_capacity, 64 + 32, "it still answers");
}

/// Makes a well-formed target of known and unknown paths, parameters and parts of filters.
fn path(script: &mut Script) -> String {
    let mut path = PATHS[script.below(PATHS.len())].to_owned();
    for _ in 0..script.below(6) {
        path.push_str(PIECES[script.below(PIECES.len())]);
    }
    path
}

/// Makes a request with some bytes changed, and sometimes cut.
fn damaged(path: &str, script: &mut Script) -> Vec<u8> {
    let method = ["GET", "POST", "G\0T", "", "OPTIONS"][script.below(5)];
    let length = ["content-length: 99999999999999999999", "transfer-encoding: chunked", "host: a\r\nhost: b"]
        [script.below(3)];
    let mut request = format!("{method} {path} HTTP/1.1\r\n{length}\r\n\r\nzz\r\n").into_bytes();
    for _ in 0..script.below(4) {
        let at = script.below(request.len());
        request[at] = script.below(256) as u8;
    }
    if script.one_in(4) {
        request.truncate(script.below(request.len()));
    }
    request
}

/// Sends a request and returns the first part of the answer, because a stream of events never ends. With
/// `end`, shuts down the sending direction first.
fn ask(socket: &str, request: &[u8], end: bool) -> String {
    let mut stream = UnixStream::connect(socket).expect("the agent listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    // The agent may refuse a request early and close the connection.
    _ = stream.write_all(request);
    if end {
        _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut start = [0; 256];
    let count = match stream.read(&mut start) {
        Ok(count) => count,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
        Err(error) => panic!("no answer and no end to {:?}: {error}", request.escape_ascii().to_string()),
    };
    String::from_utf8_lossy(&start[..count]).into_owned()
}

const PATHS: [&str; 8] = [
    "/connections?",
    "/events?filter=",
    "/stats?",
    "/status?",
    "/",
    "/nothing?",
    "/connections?all=",
    "/events?",
];
const PIECES: [&str; 18] = [
    "true",
    "%",
    "%00",
    "%ff",
    "&",
    "=",
    "filter=",
    "all",
    "state+time-wait",
    "+and+",
    "(",
    ")",
    "not+",
    "%22",
    ":99999",
    "10.0.0.0/33",
    "%f0%9f%a6%80",
    "..//",
];
