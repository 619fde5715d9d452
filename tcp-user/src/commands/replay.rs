//! `finwait replay`.

use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use super::found;
use super::why::Candidates;
use crate::cli::{ReplayArgs, ReplayFormat, UsageError, WhyFormat};
use crate::output::{EventWriter, Format, ListWriter, Palette};
use crate::replay::{self, Output, ReplayReport};

/// Prints the connections or events of a capture. Those before a fault are printed, then the fault is the
/// error.
pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    args.check()?;
    let filter = match &args.why {
        Some(flow) => flow.filter().clone(),
        None => args.filter.filter()?,
    };
    if filter.asks_for_process() {
        return Err(UsageError::PROCESS_IN_REPLAY.into());
    }
    let options = replay::Options {
        rules: args.rules.rules(),
        filter,
        events: args.events,
        zeek: args.output == ReplayFormat::Zeek,
        explanations: args.why.is_some(),
        verify_checksums: args.verify_checksums,
        decap: !args.no_decap,
        key: args.key,
        kernel: args.kernel,
    };
    let mut writer = Writer::new(args)?;
    let report = match replay::run(&args.file, &options, &mut |output| writer.push(&output)) {
        Err(error) if error.is_broken_pipe() => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    let count = writer.finish()?;
    eprintln!("finwait: {}", summary(&report, args.verify_checksums));
    match report.fault {
        Some(fault) => Err(fault.into()),
        None => Ok(found(count > 0)),
    }
}

/// The destination of the records.
enum Writer {
    /// Events, flushed one by one if the capture may be growing.
    Events {
        events: EventWriter<Stdout>,
        is_live: bool,
    },
    List(ListWriter<Stdout>),
    Zeek(Stdout, usize),
    Why(Stdout, WhyFormat, Box<Candidates>),
}

type Stdout = BufWriter<StdoutLock<'static>>;

impl Writer {
    fn new(args: &ReplayArgs) -> io::Result<Writer> {
        let out = BufWriter::new(io::stdout().lock());
        if args.why.is_some() {
            return Ok(Writer::Why(out, WhyFormat::of_replay(args.output), Box::default()));
        }
        Ok(match args.output {
            ReplayFormat::Mermaid => unreachable!("refused without --why"),
            ReplayFormat::Zeek => Writer::Zeek(out, 0),
            ReplayFormat::List(format) if args.events => {
                let events = EventWriter::new(out, format, Palette::for_stdout())?;
                Writer::Events { events, is_live: !args.file.is_file() }
            }
            ReplayFormat::List(format) => Writer::List(list(out, format)?),
        })
    }

    fn push(&mut self, output: &Output) -> io::Result<()> {
        match (self, output) {
            (Writer::Events { events, is_live }, Output::Event(event)) => {
                events.push(event)?;
                if *is_live { events.flush() } else { Ok(()) }
            }
            (Writer::List(list), Output::Connection(listed)) => {
                list.set_now(listed.as_of);
                list.push(&listed.connection)
            }
            (Writer::Zeek(out, count), Output::Connection(listed)) => {
                *count += 1;
                serde_json::to_writer(&mut *out, &listed.zeek)?;
                out.write_all(b"\n")
            }
            (Writer::Why(_, _, candidates), Output::Connection(listed)) => {
                candidates.push(&listed.connection, listed.as_of, listed.explanation.as_ref());
                Ok(())
            }
            (_, Output::Warning(warning)) => {
                eprintln!("finwait: {warning}");
                Ok(())
            }
            (_, Output::Event(_) | Output::Connection(_)) => Ok(()),
        }
    }

    /// Ends the output and returns the number of records.
    fn finish(self) -> Result<usize> {
        Ok(match self {
            Writer::Events { events, .. } => events.finish()?,
            Writer::List(list) => list.finish()?,
            Writer::Zeek(mut out, count) => out.flush().map(|()| count)?,
            Writer::Why(mut out, format, candidates) => candidates.finish(&mut out, format)?,
        })
    }
}

fn list(out: Stdout, format: Format) -> io::Result<ListWriter<Stdout>> {
    // Every connection comes with the moment that its age is as of.
    ListWriter::new(out, format, Palette::for_stdout(), Timestamp::UNIX_EPOCH)
}

/// Summarizes the frames for people.
fn summary(report: &ReplayReport, verified: bool) -> String {
    let mut text = report.statistics.to_string();
    let wrong = report.statistics.checksum_wrong;
    if let Some(tracked) = report.kernel_tracked {
        text += &format!(", {tracked} of them by the kernel programs");
    }
    let (impossible, back) = (report.statistics.impossible_times, report.statistics.out_of_order);
    if impossible != 0 {
        text += &format!("; impossible timestamps: {impossible}");
    }
    if back != 0 {
        text += &format!("; timestamps before that of an earlier frame: {back}");
    }
    if wrong != 0 && verified {
        text += &format!("; {wrong} segments have a bad TCP checksum and were dropped");
    } else if wrong != 0 {
        text += &format!(
            "; {wrong} segments have a bad TCP checksum and were processed anyway (normal with checksum offload)"
        );
    }
    text
}
