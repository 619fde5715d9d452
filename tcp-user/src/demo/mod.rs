//! `finwait demo`: real connections between two hosts, closed in many ways, with finwait's states beside the
//! kernels'.
//!
//! `live` runs it. Where the machine does not permit or support that, `recording` shows the same closes from
//! a capture. `table` prints either.

mod live;
mod recording;
mod table;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use table::{TITLE, paint};

use crate::kernel::{AttachError, Ingress, KernelError};
use crate::lab::LabError;

/// The user has pressed Ctrl-C: exit code 130.
///
/// The hosts, their link and the attached programs are held by open files of this process only, so they
/// disappear with it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted. The test network and the attached programs are removed with this process")]
pub struct Interrupted;

/// Runs the demonstration. Returns exit code 0 if every row agrees and 1 otherwise.
///
/// # Errors
///
/// Fails with [`Interrupted`] after Ctrl-C. Fails with the reason, after showing a recording, if the
/// demonstration cannot run on this machine.
pub async fn run(ingress: Ingress) -> Result<ExitCode> {
    let progress = ProgressBar::new_spinner();
    let (finished, outcome) = tokio::sync::oneshot::channel();
    // A detached thread, which does not delay the end of the process after Ctrl-C.
    std::thread::spawn({
        let progress = progress.clone();
        move || finished.send(show(ingress, &progress))
    });
    tokio::select! {
        outcome = outcome => outcome.context("internal error: the demonstration panicked. Please report this bug")?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            progress.finish_and_clear();
            Err(Interrupted.into())
        }
    }
}

fn show(ingress: Ingress, progress: &ProgressBar) -> Result<ExitCode> {
    match live::run(ingress, progress) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            progress.finish_and_clear();
            if is_refusal(&error) {
                anstream::println!(
                    "{} The demonstration cannot run here; the reason follows the tables. These closes were recorded \
                     on another machine.\n",
                    paint(TITLE, "This is a recording.")
                );
                recording::show()?;
                anstream::println!(
                    "To run the demonstration on this machine: {}",
                    paint(TITLE, "sudo finwait demo")
                );
            }
            Err(error)
        }
    }
}

/// Whether the demonstration could run with more permissions or on another kernel.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(LabError::is_refusal)
            || cause.is::<AttachError>()
            || matches!(
                cause.downcast_ref(),
                Some(
                    KernelError::NotPermitted(_) | KernelError::NotSupported(_) | KernelError::Refused { .. }
                )
            )
    })
}
