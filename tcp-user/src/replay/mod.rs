//! `finwait replay`: the same records from a capture, without root.
//!
//! Modules in the order a frame meets them: `input` opens and decompresses, `capture` makes frames of octets, `link` finds
//! the IP header, [`Replay`] follows flows by the machine of `tcp-common` with the capture's time as its clock
//! (`deadlines` is what time will end), `outbox` says what is told. [`run`] puts them together.

mod capture;
mod deadlines;
mod error;
mod input;
mod link;
mod outbox;
mod progress;
mod statistics;
mod tracker;

pub use capture::Capture;
pub use error::{Fault, Offset, ReplayError};
pub use input::Input;
pub use link::LinkType;
pub use outbox::{Output, Wanted};
pub use statistics::Statistics;
pub use tracker::{Frame, Replay};

use std::io;
use std::path::Path;

use jiff::Timestamp;
use tcp_common::Rules;

use crate::filter::Filter;
use crate::view::{Connection, Event};
use progress::Progress;

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules of the state machine.
    pub rules: Rules,
    /// Which connections are wanted.
    pub filter: Filter,
    /// Whether transitions and closes are wanted as they happen, and not the connections at the end.
    pub events: bool,
}

/// Everything wanted, by the agent's rules.
impl Default for Options {
    fn default() -> Options {
        Options { rules: Rules::AGENT, filter: Filter::default(), events: false }
    }
}

/// What came of a replay.
#[derive(Debug)]
pub struct Report {
    /// The connections that were wanted as they stand at the end, those over included, in the order of opening; none
    /// where events were wanted.
    pub connections: Vec<Connection>,
    /// The capture's time at its end.
    pub ended_at: Timestamp,
    /// How many frames there were, and what became of them.
    pub statistics: Statistics,
    /// What stopped the replay before the end of the capture. What is reported is right up to there.
    pub fault: Option<ReplayError>,
}

/// Replays a file, `-` for standard input. Gives transitions and closes to `on_event` as they happen, if they are wanted.
/// An input that holds no frame that can be read is an error; one that breaks off is a report with its fault.
pub fn run(
    path: &Path,
    options: &Options,
    on_event: &mut dyn FnMut(Event) -> io::Result<()>,
) -> Result<Report, ReplayError> {
    let named = |fault| ReplayError { name: name_of(path), fault };
    let input = Input::open(path).map_err(named)?;
    let mut report = run_input(input, options, on_event).map_err(named)?;
    if let Some(error) = &mut report.fault {
        error.name = name_of(path);
    }
    Ok(report)
}

/// [`run`] on an input that is open.
pub fn run_input(
    input: Input,
    options: &Options,
    on_event: &mut dyn FnMut(Event) -> io::Result<()>,
) -> Result<Report, Fault> {
    let mut progress = Progress::new(&input, options.events);
    let mut capture = Capture::new(input)?;
    let wanted =
        Wanted { events: options.events, connections: !options.events, filter: options.filter.clone() };
    let mut replay = Replay::new(options.rules, wanted);
    let mut connections = Vec::new();
    let fault = loop {
        match capture.next_frame() {
            Ok(Some(frame)) => replay.push(&frame),
            Ok(None) => break None,
            Err(fault @ Fault::LinkType(_)) if replay.statistics().frames == 0 => return Err(fault),
            Err(fault) => break Some(fault),
        }
        progress.frame();
        deliver(&mut replay, &mut connections, on_event)?;
    };
    replay.finish();
    deliver(&mut replay, &mut connections, on_event)?;
    connections.sort_unstable_by_key(|(order, _)| *order);
    let ended_at = replay.now();
    Ok(Report {
        connections: connections
            .into_iter()
            .map(|(_, connection)| *connection)
            .filter(|connection| options.filter.matches(connection, ended_at))
            .collect(),
        ended_at,
        statistics: *replay.statistics(),
        fault: fault.map(|fault| ReplayError { name: "the capture".to_owned(), fault }),
    })
}

fn deliver(
    replay: &mut Replay,
    connections: &mut Vec<(u64, Box<Connection>)>,
    on_event: &mut dyn FnMut(Event) -> io::Result<()>,
) -> Result<(), Fault> {
    while let Some(output) = replay.poll() {
        match output {
            Output::Event(event) => on_event(event).map_err(Fault::Output)?,
            Output::Connection { order, connection } => connections.push((order, connection)),
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}
