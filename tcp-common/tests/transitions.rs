//! The transition table as text: for every pair of states that short conversations reach, the states of
//! sender and receiver after each kind of segment. A changed rule shows as a difference of
//! `conformance/transitions.txt`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

use tcp_common::flow::end_fact::{FIN, SEQ};
use tcp_common::{End, Flags, Flow, Rules, Segment, State};
use testkit::golden::assert_golden;

#[test]
fn the_transition_table_is_as_the_golden_file_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/transitions.txt");
    assert_golden(path, &text(&explore()));
}

/// Sender and receiver.
type Pair = (State, State);
type Table = BTreeMap<(Pair, usize), BTreeSet<Pair>>;

/// Breadth first, every input from both ends; flows of equal facts are one.
fn explore() -> Table {
    let mut table = Table::new();
    let mut known = HashSet::new();
    let mut layer = vec![Flow::EMPTY];
    for depth in 0..DEPTH {
        let mut next_layer = Vec::new();
        for flow in layer {
            for sender in [End::A, End::B] {
                for (number, input) in INPUTS.iter().enumerate() {
                    let next = apply(flow, sender, input, depth);
                    table.entry((pair(&flow, sender), number)).or_default().insert(pair(&next, sender));
                    if known.insert(essence(&next)) {
                        next_layer.push(next);
                    }
                }
            }
        }
        layer = next_layer;
    }
    table
}

/// The longest textbook conversation (handshake, data, half-close, both FINs, 2MSL) and one more.
const DEPTH: u64 = 9;

struct Input {
    name: &'static str,
    /// `None`: no segment, 2MSL pass.
    flags: Option<u8>,
    len: u32,
    /// Acknowledges all but the last byte, which may be the FIN.
    stale: bool,
}

const INPUTS: [Input; 9] = [
    Input { name: "SYN", flags: Some(Flags::SYN), len: 0, stale: false },
    Input { name: "SYN-ACK", flags: Some(Flags::SYN | Flags::ACK), len: 0, stale: false },
    Input { name: "ACK of all", flags: Some(Flags::ACK), len: 0, stale: false },
    Input { name: "ACK, stale", flags: Some(Flags::ACK), len: 0, stale: true },
    Input { name: "data, ACK of all", flags: Some(Flags::ACK), len: 100, stale: false },
    Input { name: "FIN, ACK of all", flags: Some(Flags::FIN | Flags::ACK), len: 0, stale: false },
    Input { name: "FIN, stale ACK", flags: Some(Flags::FIN | Flags::ACK), len: 0, stale: true },
    Input { name: "RST", flags: Some(Flags::RST | Flags::ACK), len: 0, stale: false },
    Input { name: "(2MSL pass)", flags: None, len: 0, stale: false },
];

fn apply(mut flow: Flow, sender: End, input: &Input, depth: u64) -> Flow {
    let now_ns = flow.last_ns().max(1_000_000_000) + 1_000_000;
    let Some(flags) = input.flags else {
        flow.tick(now_ns + Rules::RFC.time_wait_remote_ns, &Rules::RFC);
        return flow;
    };
    let (own, peer) = (flow.end(sender), flow.end(sender.peer()));
    let known = own.has(SEQ);
    let fresh_isn = 1_000 + 1_000_000 * depth as u32 + 500_000 * sender as u32;
    let opens_anew = !known || flow.is_over();
    let seq = match flags {
        Flags::SYN if opens_anew => fresh_isn,
        _ if flags & Flags::SYN != 0 => {
            if known {
                own.isn()
            } else {
                fresh_isn
            }
        }
        _ if flags & Flags::FIN != 0 && own.has(FIN) => own.fin_end().wrapping_sub(1),
        _ if known => own.snd_max(),
        _ => fresh_isn,
    };
    let all = if flags & Flags::SYN != 0 { peer.first_seq() } else { peer.snd_max() };
    let ack = if flags & Flags::ACK == 0 { 0 } else { all.wrapping_sub(u32::from(input.stale)) };
    let segment = Segment {
        seq,
        ack,
        payload_len: input.len,
        window: 65_535,
        flags: Flags(flags),
        wire_segments: 1,
        ..Segment::default()
    };
    flow.on_segment(now_ns, sender, &segment, &Rules::RFC);
    flow
}

fn pair(flow: &Flow, sender: End) -> Pair {
    (flow.state(sender), flow.state(sender.peer()))
}

/// What distinguishes two flows here: facts and states, no numbers.
fn essence(flow: &Flow) -> [u32; 7] {
    let facts = |end| [flow.end(end).facts(), flow.state(end) as u32, flow.proved(end) as u32];
    let ([a, b, c], [d, e, f]) = (facts(End::A), facts(End::B));
    [flow.facts(), a, b, c, d, e, f]
}

fn text(table: &Table) -> String {
    let mut text = String::from(HEAD);
    for (((sender, receiver), input), results) in table {
        let results: Vec<_> = results
            .iter()
            .map(|result| {
                if *result == (*sender, *receiver) {
                    "same".into()
                } else {
                    format!("{}, {}", result.0.rfc_name(), result.1.rfc_name())
                }
            })
            .collect();
        let (sender, receiver, input) = (sender.rfc_name(), receiver.rfc_name(), INPUTS[*input].name);
        _ = writeln!(text, "{sender:<13}{receiver:<13}{input:<18}{}", results.join(" | "));
    }
    text
}

const HEAD: &str = "\
# State of the sender, state of the receiver, segment sent, states afterwards; `|` separates results that depend on the
# segments before. Reached by conversations of up to nine segments. A stale ACK does not cover the receiver's last byte or FIN.
# Derived by the state machine: do not edit. `cargo xtask bless` renews it.
";
