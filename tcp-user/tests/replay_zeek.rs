//! `replay -o zeek`: a capture for every `conn_state` of Zeek, its history, and finwait's intended
//! differences.

use std::io::Cursor;

use finwait::replay::{Input, Options, Output, run_input};
use serde_json::Value;
use tcp_common::{End, Flags, Segment};
use testkit::captures::{Captured, Order, Unit, arp, pcap};
use testkit::frames;

const MS: u64 = 1_000_000;
const SYN: u8 = Flags::SYN;
const ACK: u8 = Flags::ACK;
const FIN: u8 = Flags::FIN | Flags::ACK;
const RST: u8 = Flags::RST;

/// A segment of one end: sequence number, acknowledgment number, flags, bytes of payload. End A has
/// port 40000. The ISNs are 1000 (A) and 5000 (B).
type Step = (End, u32, u32, u8, u32);

const A: End = End::A;
const B: End = End::B;
const OPEN: [Step; 3] = [(A, 1_000, 0, SYN, 0), (B, 5_000, 1_001, SYN | ACK, 0), (A, 1_001, 5_001, ACK, 0)];

/// Makes a capture of these segments, 10 ms apart, the first at 1 s.
fn captured(steps: &[Step]) -> Vec<Captured> {
    let frame = |(index, step): (usize, &Step)| {
        let (sender, seq, ack, flags, payload_len) = *step;
        let segment = Segment {
            seq,
            ack,
            payload_len,
            window: 65_535,
            flags: Flags(flags),
            wire_segments: 1,
            ..Segment::default()
        };
        Captured { at_ns: 1_000 * MS + index as u64 * 10 * MS, frame: frames::frame(sender, &segment) }
    };
    steps.iter().enumerate().map(frame).collect()
}

fn lines(frames: &[Captured]) -> Vec<Value> {
    let file = pcap(Order::Little, Unit::Micro, 1, frames);
    let options = Options { zeek: true, ..Options::default() };
    let mut lines = Vec::new();
    let report =
        run_input(Input::new(Cursor::new(file)).expect("an input"), &options, &mut |output| match output {
            Output::Connection(listed) => {
                let line = listed.zeek.expect("Zeek's words were wanted");
                lines.push(serde_json::to_value(line).expect("JSON"));
                Ok(())
            }
            other => panic!("not wanted: {other:?}"),
        });
    assert!(report.expect("a capture").fault.is_none());
    lines
}

fn only(steps: &[Step]) -> Value {
    let mut lines = lines(&captured(steps));
    assert_eq!(lines.len(), 1, "one connection: {lines:?}");
    lines.remove(0)
}

/// Returns state and history of every connection. The checksums of these frames are not filled in, so every
/// direction has a `C` or `c`, which is left out here.
fn summaries(steps: &[Step]) -> Vec<(String, String)> {
    let text = |line: &Value, name: &str| line[name].as_str().expect("a string").to_owned();
    let summary = |line: &Value| (text(line, "conn_state"), text(line, "history").replace(['C', 'c'], ""));
    lines(&captured(steps)).iter().map(summary).collect()
}

fn summary(steps: &[Step]) -> (String, String) {
    let mut summaries = summaries(steps);
    assert_eq!(summaries.len(), 1, "one connection: {summaries:?}");
    summaries.remove(0)
}

fn after_open(steps: &[Step]) -> Vec<Step> {
    [&OPEN, steps].concat()
}

#[test]
fn every_conn_state_is_produced() {
    let open = after_open;
    let cases: [(&str, &str, Vec<Step>); 20] = [
        ("S0", "S", OPEN[..1].to_vec()),
        ("S0", "S", vec![OPEN[0], OPEN[0]]),
        ("S1", "Sh", OPEN[..2].to_vec()),
        ("S1", "ShAD", open(&[(A, 1_001, 5_001, ACK, 100)])),
        (
            "SF",
            "ShAFf",
            open(&[(A, 1_001, 5_001, FIN, 0), (B, 5_001, 1_002, FIN, 0), (A, 1_002, 5_002, ACK, 0)]),
        ),
        (
            "SF",
            "ShADafF",
            open(&[
                (A, 1_001, 5_001, ACK, 100),
                (B, 5_001, 1_101, ACK, 0),
                (B, 5_001, 1_101, FIN, 0),
                (A, 1_101, 5_002, FIN, 0),
                (B, 5_002, 1_102, ACK, 0),
            ]),
        ),
        ("REJ", "Sr", vec![OPEN[0], (B, 0, 1_001, RST | ACK, 0)]),
        ("S2", "ShAFa", open(&[(A, 1_001, 5_001, FIN, 0), (B, 5_001, 1_002, ACK, 0)])),
        ("S3", "ShAf", open(&[(B, 5_001, 1_001, FIN, 0), (A, 1_001, 5_002, ACK, 0)])),
        ("RSTO", "ShADR", open(&[(A, 1_001, 5_001, ACK, 9), (A, 1_010, 5_001, RST | ACK, 0)])),
        ("RSTR", "ShADr", open(&[(A, 1_001, 5_001, ACK, 9), (B, 5_001, 1_010, RST | ACK, 0)])),
        ("RSTO", "ShAFR", open(&[(A, 1_001, 5_001, FIN, 0), (A, 1_002, 5_001, RST | ACK, 0)])),
        ("RSTOS0", "SR", vec![OPEN[0], (A, 1_001, 0, RST, 0)]),
        ("RSTRH", "^hr", vec![OPEN[1], (B, 5_001, 1_001, RST, 0)]),
        ("SH", "SF", vec![OPEN[0], (A, 1_001, 5_001, FIN, 0)]),
        ("SHR", "^hf", vec![OPEN[1], (B, 5_001, 1_001, FIN, 0)]),
        ("S3", "^hAf", vec![OPEN[1], OPEN[2], (B, 5_001, 1_001, FIN, 0)]),
        ("OTH", "Dd", vec![(A, 1_001, 5_001, ACK, 9), (B, 5_001, 1_010, ACK, 9)]),
        ("OTH", "DR", vec![(A, 1_001, 5_001, ACK, 9), (A, 1_010, 5_001, RST | ACK, 0)]),
        (
            "SF",
            "DFdf",
            vec![
                (A, 1_001, 5_001, ACK, 9),
                (A, 1_010, 5_001, FIN, 0),
                (B, 5_001, 1_011, ACK, 9),
                (B, 5_010, 1_011, FIN, 0),
            ],
        ),
    ];
    for (state, history, steps) in cases {
        assert_eq!(summary(&steps), (state.to_owned(), history.to_owned()), "{steps:?}");
    }
}

/// The end that opens is the originator, whichever end of the flow's key it is.
#[test]
fn the_sender_of_the_syn_is_the_originator() {
    let swap = |(sender, seq, ack, flags, len): &Step| (sender.peer(), *seq, *ack, *flags, *len);
    let steps: Vec<Step> = OPEN.iter().map(swap).collect();
    assert_eq!(summary(&steps), ("S1".into(), "ShA".into()));
    assert_eq!(only(&steps)["id.orig_p"], 80);
    assert_eq!(only(&OPEN)["id.orig_p"], 40_000);
}

#[test]
fn a_line_has_the_fields_of_zeek() {
    let line = only(&after_open(&[
        (A, 1_001, 5_001, ACK, 100),
        (B, 5_001, 1_101, ACK, 300),
        (B, 5_301, 1_101, FIN, 0),
        (A, 1_101, 5_302, FIN, 0),
        (B, 5_302, 1_102, ACK, 0),
    ]));
    let wanted = serde_json::json!({
        "ts": 1.0, "id.orig_h": "10.9.0.1", "id.orig_p": 40_000, "id.resp_h": "10.9.0.2", "id.resp_p": 80, "proto": "tcp",
        // Excludes the last ACK, as in Zeek.
        "duration": 0.06,
        "orig_bytes": 100, "resp_bytes": 300, "conn_state": "SF", "missed_bytes": 0, "history": line["history"],
        "orig_pkts": 4, "resp_pkts": 4,
    });
    assert_eq!(line, wanted);
}

#[test]
fn acknowledged_bytes_that_were_not_seen_are_missed_bytes() {
    let line = only(&after_open(&[(A, 1_101, 5_001, ACK, 50), (B, 5_001, 1_151, ACK, 0)]));
    assert_eq!((line["missed_bytes"].as_u64(), line["orig_bytes"].as_u64()), (Some(100), Some(150)));
    assert!(line["history"].as_str().expect("a string").contains('G'), "{line}");
    let reordered = [(A, 1_101, 5_001, ACK, 50), (A, 1_001, 5_001, ACK, 100), (B, 5_001, 1_151, ACK, 0)];
    assert_eq!(only(&after_open(&reordered))["missed_bytes"], 0);
}

#[test]
fn repeated_segments_add_history_letters_like_in_zeek() {
    let again = |times| vec![(A, 1_001, 5_001, ACK, 100); times];
    assert_eq!(summary(&after_open(&again(2))).1, "ShADT");
    assert_eq!(summary(&after_open(&again(11))).1, "ShADTT");
    // Flags that contradict each other.
    assert_eq!(summary(&after_open(&[(A, 1_001, 5_001, FIN | RST, 0)])), ("RSTO".into(), "ShAI".into()));
    assert_eq!(summary(&after_open(&[(A, 1_001, 0, SYN | Flags::FIN, 0)])), ("S1".into(), "ShAQ".into()));
    // A repeated RST adds one letter, and a RST with another number adds another.
    let resets = [(B, 9_000_000, 0, RST, 0), (B, 9_000_000, 0, RST, 0), (B, 9_000_001, 0, RST, 0)];
    assert_eq!(summary(&after_open(&resets)).1, "ShArr");
    assert!(only(&OPEN)["history"].as_str().expect("a string").contains('C'));
}

/// An intended difference from Zeek, which reports RSTR, SF and S2. The letters show the segments on the
/// wire.
#[test]
fn a_rst_or_fin_that_no_host_accepts_ends_nothing() {
    assert_eq!(summary(&after_open(&[(B, 900_000_000, 0, RST, 0)])), ("S1".into(), "ShAr".into()));
    let blind_fin = [(A, 1_001, 5_001, FIN, 0), (B, 5_001, 1_002, ACK, 0), (B, 900_000_000, 1_002, FIN, 0)];
    assert_eq!(summary(&after_open(&blind_fin)), ("S2".into(), "ShAFaf".into()));
    // A FIN that the receiver's ACK proves void (R17).
    let voided = [(A, 1_001, 5_001, FIN, 0), (B, 5_001, 1_101, ACK, 0), (A, 1_101, 5_001, ACK, 10)];
    assert_eq!(summary(&after_open(&voided)).0, "S1");
}

/// The second incarnation of a tuple has its own line. A RST that ends the first incarnation belongs to the
/// first line.
#[test]
fn each_incarnation_has_a_line() {
    let reopened = [
        (A, 1_001, 5_001, FIN, 0),
        (B, 5_001, 1_002, FIN, 0),
        (A, 1_002, 5_002, ACK, 0),
        (A, 900_000, 0, SYN, 0),
        (B, 800_000, 900_001, SYN | ACK, 0),
    ];
    let wanted = [("SF".into(), "ShAFf".into()), ("S1".into(), "Sh".into())];
    assert_eq!(summaries(&after_open(&reopened)), wanted);
    // R14: a SYN on a live connection, a challenge ACK, and the RST of the SYN's sender.
    let half_open = [(A, 900_000, 0, SYN, 0), (B, 5_001, 1_001, ACK, 0), (A, 1_001, 0, RST, 0)];
    let wanted = [("RSTO".into(), "ShASaR".into()), ("S0".into(), "S".into())];
    assert_eq!(summaries(&after_open(&half_open)), wanted);
}

/// A connection that timed out long before the capture's end has a line, too.
#[test]
fn a_timed_out_connection_has_a_line() {
    let mut frames = captured(&OPEN[..1]);
    frames.push(arp(3_600_000 * MS));
    let lines = lines(&frames);
    assert_eq!((lines.len(), &lines[0]["conn_state"]), (1, &Value::from("S0")));
}
