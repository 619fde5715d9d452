//! `finwait`: parse, run, and if it goes wrong say why.

use std::process::ExitCode;

use clap::Parser as _;
use finwait::commands::{Cli, execute, exit_code};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    match execute(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("finwait: {error:#}");
            exit_code(&error)
        }
    }
}
