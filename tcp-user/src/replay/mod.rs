//! `finwait replay`: the same records from a capture, without root.
//!
//! Modules in the order a frame meets them: `input` opens and decompresses, `capture` makes frames of octets, `link` finds
//! the IP header, [`Replay`] follows flows by the machine of `tcp-common` with the capture's time as its clock
//! (`deadlines` is what time will end, `machine` who applies the rules: this process or the kernel), `outbox` says what is
//! told. [`run`] puts them together.

mod capture;
mod checksum;
mod deadlines;
mod error;
mod input;
mod link;
mod machine;
mod outbox;
mod progress;
mod statistics;
mod tracker;
pub mod zeek;

pub use capture::Capture;
pub use error::{Fault, Offset, ReplayError};
pub use input::Input;
pub use link::LinkType;
pub use machine::InKernel;
pub use outbox::{Listed, Output, Wanted};
pub use statistics::Statistics;
pub use tracker::{Frame, Replay};

use std::io;
use std::path::Path;

use jiff::Timestamp;
use tcp_common::Rules;

use crate::filter::Filter;
use progress::Progress;

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules of the state machine.
    pub rules: Rules,
    /// Which connections are wanted.
    pub filter: Filter,
    /// Whether transitions and closes are wanted as they happen, and not the connections.
    pub events: bool,
    /// Whether connections are wanted in Zeek's words, too.
    pub zeek: bool,
    /// Whether segments with a wrong TCP checksum are dropped.
    pub verify_checksums: bool,
    /// Whether the flows are followed by the kernel programs, in their own table. Needs root.
    pub kernel: bool,
}

/// Everything wanted, by the agent's rules.
impl Default for Options {
    fn default() -> Options {
        Options {
            rules: Rules::AGENT,
            filter: Filter::default(),
            events: false,
            zeek: false,
            verify_checksums: false,
            kernel: false,
        }
    }
}

/// What came of a replay.
#[derive(Debug)]
pub struct Report {
    /// The capture's time at its end.
    pub ended_at: Timestamp,
    /// How many frames there were, and what became of them.
    pub statistics: Statistics,
    /// How many segments the kernel programs gave to a flow, if they followed the flows.
    pub kernel_tracked: Option<u64>,
    /// What stopped the replay before the end of the capture. What was told is right up to there.
    pub fault: Option<ReplayError>,
}

/// Where records go.
pub type Tell<'a> = &'a mut dyn FnMut(Output) -> io::Result<()>;

/// Replays a file, `-` for standard input. Tells events as they happen, if they are wanted; else the connections, those that
/// are over included, as soon as their order is known, and those that are left at the end. An input that holds no frame
/// that can be read is an error; one that breaks off is a report with its fault.
pub fn run(path: &Path, options: &Options, tell: Tell<'_>) -> Result<Report, ReplayError> {
    let named = |fault| ReplayError { name: name_of(path), fault };
    let input = Input::open(path).map_err(named)?;
    let mut report = run_input(input, options, tell).map_err(named)?;
    if let Some(error) = &mut report.fault {
        error.name = name_of(path);
    }
    Ok(report)
}

/// [`run`] on an input that is open.
pub fn run_input(input: Input, options: &Options, tell: Tell<'_>) -> Result<Report, Fault> {
    let mut progress = Progress::new(&input, options.events);
    let mut capture = Capture::new(input)?;
    let wanted = Wanted {
        events: options.events,
        connections: !options.events,
        zeek: options.zeek,
        filter: options.filter.clone(),
    };
    let mut replay = Replay::new(options.rules, wanted).verify_checksums(options.verify_checksums);
    if options.kernel {
        replay = InKernel::load().and_then(|kernel| replay.in_kernel(kernel)).map_err(Fault::Kernel)?;
    }
    let fault = loop {
        match capture.next_frame() {
            Ok(Some(frame)) => replay.push(&frame),
            Ok(None) => break None,
            Err(fault @ Fault::LinkType(_)) if replay.statistics().frames == 0 => return Err(fault),
            Err(fault) => break Some(fault),
        }
        progress.frame();
        deliver(&mut replay, tell)?;
    };
    replay.finish();
    deliver(&mut replay, tell)?;
    Ok(Report {
        ended_at: replay.now(),
        statistics: *replay.statistics(),
        kernel_tracked: replay.kernel_tracked().map_err(Fault::Kernel)?,
        fault: fault.map(|fault| ReplayError { name: "the capture".to_owned(), fault }),
    })
}

fn deliver(replay: &mut Replay, tell: Tell<'_>) -> Result<(), Fault> {
    while let Some(output) = replay.poll() {
        tell(output).map_err(Fault::Output)?;
    }
    Ok(())
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}
