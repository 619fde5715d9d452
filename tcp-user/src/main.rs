//! `finwait`: parse, run, and if it goes wrong say why.

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
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_max_level(level).init();
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

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    };
    error.chain().any(|cause| io(cause) == Some(std::io::ErrorKind::BrokenPipe))
}
