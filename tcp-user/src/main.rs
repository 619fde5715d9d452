//! `finwait`: parses the command line, runs the command, prints its error.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use finwait::cli::{self, ParseError};
use finwait::commands::{execute, exit_code};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    cli::complete();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(ParseError::Usage(error)) => error.exit(),
        Err(ParseError::Config(error)) => return fail(&error.into()),
    };
    let level = match cli.verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    log_to_stderr(level);
    match execute(cli) {
        Ok(code) => code,
        // The reader of `finwait ls | head` closed the pipe.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Prints an error with its causes.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("finwait: {error:#}");
    exit_code(error)
}

/// Logs to standard error: in colour on a terminal, without the time under systemd, whose journal has its
/// own. Libraries log at debug level only with `-vv`, because they report every relocation of the kernel
/// programs.
fn log_to_stderr(level: LevelFilter) {
    let stderr = std::io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let libraries = if level == LevelFilter::DEBUG { LevelFilter::INFO } else { level };
    let which = Targets::new().with_default(libraries).with_target("finwait", level);
    let log = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    let registry = tracing_subscriber::registry();
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(log.without_time().with_filter(which)).init();
    } else {
        registry.with(log.with_filter(which)).init();
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    };
    error.chain().any(|cause| io(cause) == Some(std::io::ErrorKind::BrokenPipe))
}
