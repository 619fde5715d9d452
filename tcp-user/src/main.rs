//! `finwait`: parse, run, and if it goes wrong say why.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use finwait::cli::Cli;
use finwait::commands::{execute, exit_code};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    log_to_stderr(level);
    match execute(cli.command) {
        Ok(code) => code,
        // `finwait ls | head` has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("finwait: {error:#}");
            exit_code(&error)
        }
    }
}

/// Coloured for people only; without the time where a journal writes its own.
fn log_to_stderr(level: LevelFilter) {
    let stderr = std::io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colours)
        .with_max_level(level);
    if std::env::var_os("JOURNAL_STREAM").is_some() { log.without_time().init() } else { log.init() }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    };
    error.chain().any(|cause| io(cause) == Some(std::io::ErrorKind::BrokenPipe))
}
