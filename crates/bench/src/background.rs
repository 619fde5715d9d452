//! Programs that run in the background and end with the benchmark, however it ends.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// A running program, stopped when dropped. A shell in its own process group waits for that, or for the end
/// of this process.
pub(crate) struct BackgroundProgram {
    shell: Child,
    id: u32,
}

impl BackgroundProgram {
    /// Starts the program in this thread's namespace.
    pub(crate) fn start<S: AsRef<OsStr>>(command: &[S]) -> Result<BackgroundProgram> {
        let mut shell = Command::new("sh")
            .args(["-c", KEEP, "sh"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting sh")?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().context("a shell's output")?).read_line(&mut line)?;
        Ok(BackgroundProgram { id: line.trim().parse().context("the id of a program")?, shell })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Stops or continues the program.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.id)?), signal).context("a program has ended")
    }

    /// CPU time so far in ns.
    pub(crate) fn cpu_ns(&self) -> Result<f64> {
        cpu_ns(self.id)
    }
}

impl Drop for BackgroundProgram {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// CPU time of a process so far in ns, ended threads included.
pub(crate) fn cpu_ns(process: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(process)?)).context("a process's clock")?;
    let time = clock.now().context("reading a process's clock")?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// Starts the arguments as a program, prints its process id, and ends it at the end of the input.
const KEEP: &str = "\"$@\" < /dev/null > /dev/null 2>&1 & echo $!; cat; kill $! && kill -s CONT $!; wait";
