//! What the commands do: query the agent, or be it, and print the answer.

mod audit;
mod doctor;
mod history;
mod listing;
mod live;
mod ports;
mod replay;
mod report;
mod why;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use crate::agent::{self, AgentError};
use crate::api::client::ClientError;
use crate::audit::AuditError;
use crate::cli::{self, Cli, Command, UnknownTerm, UsageError};
#[cfg(feature = "lab")]
use crate::demo;
use crate::filter::FilterError;
use crate::kernel::{AttachError, KernelError};
#[cfg(feature = "lab")]
use crate::lab::LabError;
use crate::options::ConfigError;
use crate::replay::ReplayError;
use crate::store::sql::SqlError;
use crate::system_error::SystemError;

/// Runs a command. Exit status: 0 success, 1 nothing found or a difference. Errors have an [`exit_code`] of
/// their own.
pub fn execute(cli: Cli) -> Result<ExitCode> {
    let agent = &cli.socket;
    match cli.command {
        Command::Run(options) => {
            for name in cli::unknown_variables() {
                tracing::warn!("environment variable {name} is no option of finwait and is ignored");
            }
            // Called while the process has one thread: the agent drops privileges before it starts others.
            Ok(agent::run(&options).map(|()| ExitCode::SUCCESS)?)
        }
        Command::Ls(args) => wait_for(live::ls(agent, &args)),
        Command::Watch(args) => wait_for(live::watch(agent, &args)),
        Command::Why(args) => wait_for(why::run(agent, &args)),
        Command::Doctor(args) => wait_for(doctor::run(agent, &args)),
        Command::Ports(args) => wait_for(ports::run(agent, &args)),
        Command::History(args) => wait_for(history::run(agent, &args)),
        Command::Stats(args) => wait_for(report::stats(agent, &args)),
        Command::Status(args) => wait_for(report::status(agent, &args)),
        Command::Audit(args) => wait_for(audit::run(agent, &args)),
        Command::Replay(args) => replay::run(&args),
        #[cfg(feature = "lab")]
        Command::Demo(args) => wait_for(demo::run(args.ingress)),
        Command::Glossary { words } => print_text(&cli::glossary(&words)?),
        Command::Completions { shell } => {
            cli::completions(shell, &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            cli::man(command.as_deref(), &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Generate { folder } => {
            cli::generate(&folder).with_context(|| format!("cannot write into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print_text(text: &str) -> Result<ExitCode> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Context of an answer that is no JSON of this version.
const NOT_UNDERSTOOD: &str = "cannot understand the agent's answer";

fn wait_for(answer: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    Runtime::new()?.block_on(answer)
}

/// The exit code that an error stands for.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        match cause.downcast_ref() {
            Some(ClientError::NotReachable { .. }) => return ExitCode::from(3),
            Some(ClientError::NotPermitted { .. }) => return ExitCode::from(4),
            _ => {}
        }
        #[cfg(feature = "lab")]
        if cause.is::<LabError>() {
            return ExitCode::from(4);
        }
        #[cfg(feature = "lab")]
        if cause.is::<demo::Interrupted>() {
            return ExitCode::from(130);
        }
        let denied = |io: &io::Error| io.kind() == io::ErrorKind::PermissionDenied;
        if let Some(ConfigError::Unreadable { source, .. }) = cause.downcast_ref()
            && denied(source)
        {
            return ExitCode::from(4);
        }
        if cause.is::<FilterError>()
            || cause.is::<ConfigError>()
            || cause.is::<UsageError>()
            || cause.is::<UnknownTerm>()
            || cause.downcast_ref().is_some_and(SqlError::is_usage)
        {
            return ExitCode::from(2);
        }
        if cause.is::<KernelError>()
            || cause.is::<AttachError>()
            || cause.is::<SystemError>()
            || cause.is::<audit::OtherNamespace>()
            || cause.downcast_ref().is_some_and(AgentError::is_refusal)
            || matches!(cause.downcast_ref(), Some(AuditError::Kernel(_)))
            || cause.downcast_ref().is_some_and(denied)
            || cause.downcast_ref().is_some_and(history::is_denied)
            || cause.downcast_ref().is_some_and(ReplayError::is_denied)
        {
            return ExitCode::from(4);
        }
    }
    ExitCode::from(FAILURE)
}

/// Exit status of errors that have none of their own.
const FAILURE: u8 = 5;

fn found(any: bool) -> ExitCode {
    if any { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
