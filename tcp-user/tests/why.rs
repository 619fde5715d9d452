//! `replay --why` on the recording of `finwait demo`: one explanation for every connection, as a person reads it.
//!
//! `FINWAIT_BLESS=1 cargo test -p tcp-user --test why` rewrites the expected text.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use finwait::output::{Palette, write_ladder, write_mermaid};
use finwait::replay::{self, Options};
use finwait::why::Explanation;

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/recording.pcap.gz")
}

fn explanations() -> Vec<Explanation> {
    let mut explanations = Vec::new();
    let options = Options { explanations: true, ..Options::default() };
    let report = replay::run(&recording(), &options, &mut |output| {
        if let replay::Output::Connection(listed) = output {
            explanations.push(listed.explanation.expect("selected"));
        }
        Ok(())
    });
    assert!(report.expect("the recording").fault.is_none());
    explanations
}

fn why(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finwait"));
    command.arg("replay").arg(recording()).args(arguments).env("NO_COLOR", "1");
    command.output().expect("running finwait")
}

#[test]
fn every_connection_of_the_demo_is_explained() {
    let mut text = String::new();
    for explanation in explanations() {
        let mut ladder = Vec::new();
        write_ladder(&explanation, &mut ladder, Palette::PLAIN).expect("writing to memory");
        writeln!(text, "{}\n", String::from_utf8(ladder).expect("text")).expect("writing to memory");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/why.golden.txt");
    if std::env::var_os("FINWAIT_BLESS").is_some() {
        fs::write(&golden, &text).expect("writing the expected text");
    }
    assert_eq!(text, fs::read_to_string(&golden).expect("the expected text"));
}

#[test]
fn a_diagram_has_an_arrow_for_every_segment() {
    let explanations = explanations();
    let waits = |one: &&Explanation| one.connection.time_wait.is_some();
    let explanation = explanations.iter().find(waits).expect("a connection in TIME-WAIT");
    let mut diagram = Vec::new();
    write_mermaid(explanation, &mut diagram).expect("writing to memory");
    let diagram = String::from_utf8(diagram).expect("text");
    assert!(diagram.starts_with("sequenceDiagram\n    participant client as "), "{diagram}");
    let segments = explanation.steps.iter().filter(|step| step.segment.is_some()).count();
    assert_eq!(diagram.matches("->>").count(), segments, "{diagram}");
    assert!(
        diagram.contains("Note over client: TIME-WAIT") || diagram.contains("Note over server: TIME-WAIT")
    );
}

#[test]
fn one_connection_is_chosen_by_its_name() {
    let port = explanations()[0].connection.client.port;
    let address = explanations()[0].connection.client.socket_address();
    let id = explanations()[0].connection.id;
    for name in [format!(":{port}"), address.to_string(), id.to_string(), format!("client {address}")] {
        let output = why(&["--why", &name, "-o", "json"]);
        assert!(output.status.success(), "{name}: {output:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answer["schema"], "finwait.why/1");
        assert_eq!(answer["connection"]["id"], id.to_string(), "{name}");
    }
}

#[test]
fn an_ambiguous_name_lists_the_candidates() {
    let output = why(&["--why", "family ipv4"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let listed = String::from_utf8(output.stdout).expect("text");
    assert!(listed.lines().count() > 2, "{listed}");
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.contains("connections match"), "{error}");
}

#[test]
fn an_unknown_name_finds_nothing() {
    let output = why(&["--why", ":9"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
}
