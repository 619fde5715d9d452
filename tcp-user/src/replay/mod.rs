//! `finwait replay`: the same records from a capture, without root.
//!
//! Modules in the order in which a frame meets them: `input` opens and decompresses, `capture` splits the
//! bytes into frames, `timeline` rejects impossible timestamps, `link` removes the header of the link type,
//! `decap` looks into tunnels, `datagrams` joins fragments, `mirror` recognises packets that were captured
//! twice, [`Replay`] tracks each flow (`tracked_flow`) with the state machine of `tcp-common`, `outbox`
//! collects the records. `deadlines` is the timer queue on the capture's clock; `machine` applies the rules,
//! in this process or in the kernel programs. [`run`] puts them together.

mod capture;
mod checksum;
mod datagrams;
mod deadlines;
mod decap;
mod domains;
mod error;
mod input;
mod link;
mod machine;
mod mirror;
mod outbox;
mod progress;
mod statistics;
mod timeline;
mod tracked_flow;
mod tracker;
mod warning;
pub mod zeek;

pub use capture::Capture;
pub use error::{Fault, Offset, ReplayError};
pub use input::Input;
pub use link::LinkType;
pub use machine::InKernel;
pub use outbox::{Listed, Output, Selection};
pub use statistics::Statistics;
pub use tracker::{Frame, Replay};
pub use warning::Warning;

use std::io;
use std::path::Path;

use jiff::Timestamp;
use tcp_common::Rules;

use crate::filter::Filter;
use crate::options::KeyBy;
use progress::Progress;
use timeline::Timeline;

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules of the state machine.
    pub rules: Rules,
    /// Connections to report.
    pub filter: Filter,
    /// Whether to report transitions, closes and what follows them as they happen, in place of connections.
    pub events: bool,
    /// Whether to report connections in the format of Zeek's `conn.log` as well.
    pub zeek: bool,
    /// Whether to explain the connections as well.
    pub explanations: bool,
    /// Whether to drop segments with a bad TCP checksum.
    pub verify_checksums: bool,
    /// Whether to track the segments inside tunnels, LLC/SNAP and more than two VLAN tags.
    pub decap: bool,
    /// What distinguishes connections.
    pub key: KeyBy,
    /// Whether the kernel programs track the flows, in a table of their own. Needs root.
    pub kernel: bool,
}

/// All connections, by the agent's rules.
impl Default for Options {
    fn default() -> Options {
        Options {
            rules: Rules::AGENT,
            filter: Filter::default(),
            events: false,
            zeek: false,
            explanations: false,
            verify_checksums: false,
            decap: true,
            key: KeyBy::Addresses,
            kernel: false,
        }
    }
}

/// The result of a replay.
#[derive(Debug)]
pub struct ReplayReport {
    /// Time of the capture's last frame.
    pub ended_at: Timestamp,
    /// Counts of frames, by what became of them.
    pub statistics: Statistics,
    /// Segments that the kernel programs gave to a flow; `None` if they did not track the flows.
    pub kernel_tracked: Option<u64>,
    /// The error that stopped the replay before the end of the capture. The records up to there are right.
    pub fault: Option<ReplayError>,
}

/// Receives the records.
pub type Sink<'a> = &'a mut dyn FnMut(Output) -> io::Result<()>;

/// Replays a file, `-` for standard input. Passes events to `sink` as they happen, or connections as soon
/// as their order is known; those still open follow at the end.
///
/// # Errors
///
/// If the input holds no frame that can be read, or the sink fails. An input that breaks off is a report
/// with its fault.
pub fn run(path: &Path, options: &Options, sink: Sink<'_>) -> Result<ReplayReport, ReplayError> {
    let named = |fault| ReplayError { name: name_of(path), fault };
    let input = Input::open(path).map_err(named)?;
    let mut report = run_input(input, options, sink).map_err(named)?;
    if let Some(error) = &mut report.fault {
        error.name = name_of(path);
    }
    Ok(report)
}

/// Replays an input that is open already, as [`run`] does.
///
/// # Errors
///
/// If the input holds no frame that can be read, or the sink fails.
pub fn run_input(input: Input, options: &Options, sink: Sink<'_>) -> Result<ReplayReport, Fault> {
    let mut progress = Progress::new(&input, options.events);
    let mut capture = Capture::new(input)?;
    let selection = Selection {
        events: options.events,
        connections: !options.events,
        zeek: options.zeek,
        explanations: options.explanations,
        filter: options.filter.clone(),
    };
    let mut replay = Replay::new(options.rules, selection)
        .verify_checksums(options.verify_checksums)
        .decap(options.decap)
        .key(options.key);
    if options.kernel {
        replay =
            InKernel::load(options.key).and_then(|kernel| replay.in_kernel(kernel)).map_err(Fault::Kernel)?;
    }
    let mut timeline = Timeline::default();
    let fault = loop {
        if timeline.is_holding() && capture.is_idle() {
            timeline.release(&mut replay);
            deliver(&mut replay, sink)?;
        }
        let read = capture.next_frame().map(|frame| frame.map(|frame| timeline.push(&frame, &mut replay)));
        capture.take_warnings().into_iter().for_each(|warning| replay.warn(warning));
        match read {
            Ok(Some(())) => {}
            Ok(None) => break None,
            Err(fault) => break Some(fault),
        }
        progress.frame();
        deliver(&mut replay, sink)?;
    };
    timeline.release(&mut replay);
    replay.finish();
    deliver(&mut replay, sink)?;
    let Statistics { frames, foreign_link, .. } = *replay.statistics();
    if let Some(number) = capture.first_link_type().filter(|_| frames != 0 && frames == foreign_link) {
        return Err(Fault::LinkType(number));
    }
    Ok(ReplayReport {
        ended_at: replay.now(),
        statistics: *replay.statistics(),
        kernel_tracked: replay.kernel_tracked().map_err(Fault::Kernel)?,
        fault: fault.map(|fault| ReplayError { name: "the capture".to_owned(), fault }),
    })
}

fn deliver(replay: &mut Replay, sink: Sink<'_>) -> Result<(), Fault> {
    while let Some(output) = replay.poll() {
        sink(output).map_err(Fault::Output)?;
    }
    Ok(())
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}
