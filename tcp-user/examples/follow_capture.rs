//! Follows the connections of a capture and prints the RFC 9293 state of both ends.
//!
//! `cargo run --example follow_capture -- CAPTURE`. The capture is a pcap or pcapng file, plain or compressed, or `-`
//! for standard input. No root is needed.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use finwait::replay::{self, Options, Output};

fn main() -> Result<()> {
    let capture = PathBuf::from(std::env::args_os().nth(1).context("usage: follow_capture CAPTURE")?);
    let mut out = io::stdout().lock();
    // The default options ask for connections; `Options { events: true, .. }` asks for each transition instead.
    let mut print = |output| {
        let Output::Connection(listed) = output else { return Ok(()) };
        let connection = listed.connection;
        writeln!(
            out,
            "client {} {}, server {} {}, {}",
            connection.client.socket_address(),
            connection.client.state.rfc_name(),
            connection.server.socket_address(),
            connection.server.state.rfc_name(),
            connection.close_word(),
        )
    };
    let report = replay::run(&capture, &Options::default(), &mut print)?;
    // A damaged capture is followed up to the damage.
    report.fault.map_or(Ok(()), |fault| Err(fault.into()))
}
