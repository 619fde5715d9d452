//! Completions and man pages, from the one definition.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory as _;

use super::Cli;
pub(super) use clap_complete::Shell;

/// Writes into a folder all that a package ships: a man page a command, and completions for the shells of Debian.
pub fn generate(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "finwait", folder)?;
    }
    Ok(())
}

/// Writes the completions for a shell.
pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "finwait", &mut text);
    out.write_all(&text)
}

/// Writes the man page of a command, or of `finwait` itself.
pub fn man(command: Option<&str>, out: &mut impl Write) -> io::Result<()> {
    let mut all = Cli::command();
    all.build();
    let page = match command {
        None => clap_mangen::Man::new(all),
        Some(name) => {
            let found = all.find_subcommand(name).cloned().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("finwait has no command {name:?}"))
            })?;
            let title = format!("finwait-{name}");
            clap_mangen::Man::new(found).title(title)
        }
    };
    page.render(out)
}
