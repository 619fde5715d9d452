//! `finwait demo`: real connections between two hosts on one cable, closed in many ways; our states beside the kernels'.
//!
//! `live` performs it. Where that is not permitted or not supported, `recording` shows the same closes as they were once.
//! `table` is how either looks.

mod live;
mod recording;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use table::{TITLE, paint};

use crate::kernel::{AttachError, Ingress, KernelError};
use crate::lab::LabError;

/// Runs it: 0 if everything agreed, 1 if not, 4 if only the recording could be shown, 130 after Ctrl-C.
pub async fn run(ingress: Ingress) -> Result<ExitCode> {
    tokio::select! {
        shown = tokio::task::spawn_blocking(move || show(ingress)) => shown?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            // Hosts, cable and programs are held by open files of this process and by nothing else.
            eprintln!("\r\x1b[Kfinwait: interrupted; the two hosts, their cable and the programs on it go with this process");
            std::process::exit(130);
        }
    }
}

fn show(ingress: Ingress) -> Result<ExitCode> {
    match live::run(ingress) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) if is_refusal(&error) => {
            anstream::eprintln!("finwait: {error:#}.");
            anstream::println!(
                "{} The closes below were recorded on the cable of another machine and are read now by the same state \
                 machine; ITS KERNEL is what the kernels said then.\n",
                paint(TITLE, "This is a recording.")
            );
            recording::show()?;
            anstream::println!("A recording. To see it happen here: {}", paint(TITLE, "sudo finwait demo"));
            Ok(ExitCode::from(4))
        }
        Err(error) => Err(error),
    }
}

/// Whether another user or another kernel would succeed.
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
