//! Completions, and the files of a package, from the one definition of the commands.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use super::{Cli, manual};
use crate::filter;

/// Shells that finwait has completions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Elvish.
    Elvish,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// Z shell.
    Zsh,
}

/// Variable by which a completion script asks finwait for candidates.
const COMPLETE: &str = "COMPLETE";

/// Answers a completion script and exits; returns at once if none asks.
///
/// The scripts ask finwait itself, because only it can list interfaces and words of the filter.
pub fn complete() {
    CompleteEnv::with_factory(Cli::command).var(COMPLETE).complete();
}

/// Writes all that a package ships into a folder: man pages, and completions for the shells of Debian.
pub fn generate(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for manual::Page { name, section, text } in manual::pages() {
        fs::write(folder.join(format!("{name}.{section}")), text)?;
    }
    for (shell, name) in
        [(Shell::Bash, "finwait.bash"), (Shell::Zsh, "_finwait"), (Shell::Fish, "finwait.fish")]
    {
        completions(shell, &mut fs::File::create(folder.join(name))?)?;
    }
    Ok(())
}

/// Writes the completion script for a shell.
pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let value = shell.to_possible_value();
    let shells = Shells::builtins();
    let completer = value.as_ref().and_then(|value| shells.completer(value.get_name()));
    let completer = completer.ok_or(io::ErrorKind::Unsupported)?;
    let mut text = Vec::new();
    completer.write_registration(COMPLETE, "finwait", "finwait", "finwait", &mut text)?;
    out.write_all(&text)
}

/// Words that a filter can have.
pub(super) fn filter_words() -> Vec<CompletionCandidate> {
    filter::words().map(CompletionCandidate::new).collect()
}
