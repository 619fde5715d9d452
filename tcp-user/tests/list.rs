//! `finwait ls` in an order, in groups and as a number, of real connections.

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use common::{Agent, until};
use finwait::lab::{Family, Lab};

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text").lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root"]
fn connections_are_sorted_grouped_and_counted() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let agent = Agent::start(&lab, "list", &["-i", lab.server.interface, "--audit-interval", "0"]);
    let address = lab.server.address(Family::Ipv4);
    let listen = || lab.server.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("a port");
    let (busy, quiet) = (listen(), listen());
    let connect = |listener: &TcpListener| {
        let to: SocketAddr = listener.local_addr().expect("its address");
        let client = lab.client.run(|| TcpStream::connect(to)).expect("namespace").expect("connecting");
        (client, listener.accept().expect("accepting"))
    };
    let connections = [connect(&busy), connect(&busy), connect(&quiet)];
    until("all are listed", || agent.connections().len() == 3);
    let [busy, quiet] = [busy, quiet].map(|listener| listener.local_addr().expect("its address"));

    assert_eq!(lines(&agent.cli(&["ls", "-c"])), ["3"]);
    assert_eq!(lines(&agent.cli(&["ls", "-c", &format!("sport = {}", quiet.port())])), ["1"]);
    let groups = lines(&agent.cli(&["ls", "--by", "server,state"]));
    assert_eq!(groups[0].split_whitespace().collect::<Vec<_>>(), ["COUNT", "SERVER", "STATE"]);
    for (line, (count, server)) in groups[1..].iter().zip([(2, busy), (1, quiet)]) {
        let expected = [count.to_string(), server.to_string(), "ESTABLISHED".into()];
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), expected);
    }
    assert_eq!(lines(&agent.cli(&["ls", "--by", "server", "--limit", "1", "--no-header"])).len(), 1);

    let ports = |arguments: &[&str]| {
        let list = lines(&agent.cli(&[&["ls", "-o", "ndjson"], arguments].concat()));
        let port = |line: &String| -> serde_json::Value {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["client"]["port"].clone()
        };
        list.iter().map(port).map(|port| port.as_u64().expect("a port")).collect::<Vec<_>>()
    };
    let mut expected: Vec<_> = connections
        .iter()
        .map(|(client, _)| u64::from(client.local_addr().expect("its address").port()))
        .collect();
    expected.sort_unstable();
    assert_eq!(ports(&["--sort", "client"]), expected);
    expected.reverse();
    assert_eq!(ports(&["--sort=-client", "--limit", "2"]), expected[..2]);
    assert_eq!(ports(&["--limit", "2"]).len(), 2);
    assert_eq!(lines(&agent.cli(&["ls", "--no-header"])).len(), 3);

    let chosen = lines(&agent.cli(&["ls", "--columns", "server_state,client_bytes,server", "--limit", "1"]));
    assert_eq!(chosen[0].split_whitespace().collect::<Vec<_>>(), ["ServerState", "ClientBytes", "Server"]);
    assert!(chosen[1].starts_with("ESTABLISHED"), "{chosen:?}");
    let unknown = agent.cli(&["ls", "--columns", "bits"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("the columns are closed_at, family, client"));

    // Listed again until it is interrupted.
    let mut watching = Command::new(common::FINWAIT)
        .args(["ls", "--watch", "100ms", "--no-header", "--limit", "1", "--socket", &agent.socket])
        .stdout(Stdio::piped())
        .spawn()
        .expect("running the CLI");
    let output = BufReader::new(watching.stdout.take().expect("piped"));
    let listed = output.lines().map(|line| line.expect("text")).filter(|line| !line.is_empty());
    let three: Vec<_> = listed.take(3).collect();
    watching.kill().expect("running");
    watching.wait().expect("killed");
    assert_eq!(three.iter().filter(|line| line.contains("ESTABLISHED")).count(), 3, "{three:?}");

    let refused = agent.cli(&["ls", "--sort", "bits"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the keys are client, server"), "{refused:?}");
}
