//! Connections in the format of Zeek's `conn.log`. `docs/ZEEK.md` has the mapping and its intended
//! differences.

mod endpoint;
mod trace;

pub(super) use trace::{SeenSegment, Trace};

use serde::Serialize;
use std::net::IpAddr;
use tcp_common::{End, Flow, FlowKey};

use crate::view::describe::{address, client_end};
use endpoint::ZeekState;

/// One line of `conn.log`, with the field names of Zeek's JSON writer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conn {
    /// When the first segment was seen, s since the epoch.
    pub ts: f64,
    /// Address of the originator.
    #[serde(rename = "id.orig_h")]
    pub orig_h: IpAddr,
    /// Port of the originator.
    #[serde(rename = "id.orig_p")]
    pub orig_p: u16,
    /// Address of the responder.
    #[serde(rename = "id.resp_h")]
    pub resp_h: IpAddr,
    /// Port of the responder.
    #[serde(rename = "id.resp_p")]
    pub resp_p: u16,
    /// Always `tcp`.
    pub proto: &'static str,
    /// From the first segment to the last one before both ends had closed, s.
    pub duration: f64,
    /// Bytes of payload in the originator's stream.
    pub orig_bytes: u64,
    /// Bytes of payload in the responder's stream.
    pub resp_bytes: u64,
    /// Zeek's summary of the connection, such as `SF`.
    pub conn_state: &'static str,
    /// Bytes that were acknowledged and never seen.
    pub missed_bytes: u64,
    /// One letter for each kind of segment seen; upper case for the originator.
    pub history: String,
    /// Segments of the originator.
    pub orig_pkts: u64,
    /// Segments of the responder.
    pub resp_pkts: u64,
}

impl Conn {
    /// The line of a connection in its present state.
    pub(super) fn new(key: &FlowKey, flow: &Flow, trace: &Trace) -> Conn {
        let (orig, resp) = (client_end(key, flow), client_end(key, flow).peer());
        let history = trace.history(orig);
        Conn {
            ts: seconds(flow.opened_ns()),
            orig_h: address(key, orig),
            orig_p: key.endpoint(orig).port,
            resp_h: address(key, resp),
            resp_p: key.endpoint(resp).port,
            proto: "tcp",
            duration: seconds(trace.last_ns.saturating_sub(flow.opened_ns())),
            orig_bytes: flow.payload_bytes(orig),
            resp_bytes: flow.payload_bytes(resp),
            conn_state: conn_state(trace.endpoint(orig), trace.endpoint(resp), flow, &history),
            missed_bytes: trace.missed_bytes,
            history,
            orig_pkts: u64::from(flow.end(orig).segments()),
            resp_pkts: u64::from(flow.end(resp).segments()),
        }
    }
}

/// Zeek's summary of a connection (`conn_state` in `scripts/base/protocols/conn/main.zeek`).
fn conn_state(orig: ZeekState, resp: ZeekState, flow: &Flow, history: &str) -> &'static str {
    use ZeekState::{Closed, Established, Inactive, Reset, SynAckSent, SynSent};
    let nothing_sent = [End::A, End::B].iter().all(|&end| flow.end(end).bytes() == 0);
    match (orig, resp) {
        (SynSent | SynAckSent, Reset) => "REJ",
        (Reset, Reset) if nothing_sent => "REJ",
        (orig, Reset) if orig.is_inactive() => "RSTRH",
        (_, Reset) => "RSTR",
        (Reset, resp) if resp.is_inactive() => match only_syn_and_rst(history) {
            true => "RSTOS0",
            false => "OTH",
        },
        (Reset, _) => "RSTO",
        (Closed, Closed) => "SF",
        (Closed, resp) if resp.is_inactive() => "SH",
        (Closed, _) => "S2",
        (orig, Closed) if orig.is_inactive() => "SHR",
        (_, Closed) => "S3",
        (SynSent, Inactive) => "S0",
        (Established, Established) => "S1",
        _ => "OTH",
    }
}

/// Whether the originator sent a SYN and then a RST, with none of [`NOTED`] between.
fn only_syn_and_rst(history: &str) -> bool {
    let history = history.strip_prefix('^').unwrap_or(history);
    let rest = history.strip_prefix('S');
    rest.and_then(|rest| rest.split_once('R')).is_some_and(|(between, _)| !between.contains(NOTED))
}

/// Letters of the originator that make a connection more than an attempt.
const NOTED: [char; 6] = ['H', 'A', 'F', 'G', 'I', 'Q'];

/// Seconds with the precision of Zeek's times, one microsecond.
fn seconds(ns: u64) -> f64 {
    (ns / 1_000) as f64 / 1e6
}
