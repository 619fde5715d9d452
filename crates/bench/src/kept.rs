//! Programs that run beside the benchmark and do not outlive it, however it ends.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// A running program; ended when dropped. A shell in a process group of its own waits for that, or for our end.
pub(crate) struct Kept {
    shell: Child,
    id: u32,
}

impl Kept {
    /// Starts it in this thread's namespace.
    pub(crate) fn start<S: AsRef<OsStr>>(command: &[S]) -> Result<Kept> {
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
        Ok(Kept { id: line.trim().parse().context("the id of a program")?, shell })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Lets it pause, or go on.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.id)?), signal).context("a program has ended")
    }

    /// CPU time so far, ns.
    pub(crate) fn cpu_ns(&self) -> Result<f64> {
        cpu_ns(self.id)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// CPU time of a process so far, ns: of threads that have ended too.
pub(crate) fn cpu_ns(process: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(process)?)).context("a process's clock")?;
    let time = clock.now().context("reading a process's clock")?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// Starts its arguments, says their process's id, and ends it at the end of the input.
const KEEP: &str = "\"$@\" < /dev/null > /dev/null 2>&1 & echo $!; cat; kill $! && kill -s CONT $!; wait";
