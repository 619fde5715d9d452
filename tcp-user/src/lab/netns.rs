//! Network namespaces that live as long as the value that owns them.
//!
//! A namespace is held by a file descriptor only, never by a bind mount. When the process ends, however it
//! ends, the kernel removes the namespace and its interfaces.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::process::Command;
use std::thread;

use nix::libc::ENOSPC;
use nix::sched::{CloneFlags, setns, unshare};

use super::LabError;

/// A network namespace, removed when this value is dropped and the last socket inside it is closed.
#[derive(Debug)]
pub struct Namespace {
    handle: OwnedFd,
}

impl Namespace {
    /// Creates an empty namespace. The calling thread stays in its own.
    pub fn new() -> Result<Namespace, LabError> {
        on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| cannot_create(errno.into()))?;
            let handle =
                File::open(THIS_THREAD).map_err(LabError::system("open /proc/thread-self/ns/net"))?;
            Ok(Namespace { handle: handle.into() })
        })?
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets created there stay in the
    /// namespace and can be used from any thread. A panic of `work` continues in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_new_thread(|| {
            setns(self, CloneFlags::CLONE_NEWNET).map_err(|errno| {
                LabError::of("enter a network namespace", "CAP_SYS_ADMIN", "it has no network namespaces")(
                    errno.into(),
                )
            })?;
            Ok(work())
        })?
    }

    /// Runs a program in the namespace and returns its standard output.
    ///
    /// # Errors
    ///
    /// Fails if the program cannot be started, or if it fails. The error then has its standard error.
    pub fn call(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.run(|| command.output())?.map_err(LabError::system("start a program"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Program {
            command: [&[program], arguments].concat().join(" "),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs `ip` (Debian: iproute2) with these words.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::call`].
    pub fn ip(&self, words: &str) -> Result<(), LabError> {
        self.call("ip", &words.split_whitespace().collect::<Vec<_>>()).map(drop)
    }

    /// Runs `nft` (Debian: nftables) with these rules.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::call`].
    pub fn nft(&self, rules: &str) -> Result<(), LabError> {
        self.call("nft", &[rules]).map(drop)
    }

    /// Sets a sysctl, named by its path below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not have it or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value))?
            .map_err(LabError::system("set a sysctl"))
    }
}

impl AsRef<Namespace> for Namespace {
    fn as_ref(&self) -> &Namespace {
        self
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// A namespace belongs to a thread: a new thread leaves the caller's own namespace unchanged.
fn on_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().spawn_scoped(scope, work).map_err(LabError::system("start a thread"))?;
        worker.join().map_or_else(|cause| panic::resume_unwind(cause), Ok)
    })
}

fn cannot_create(source: std::io::Error) -> LabError {
    const ACTION: &str = "create a network namespace";
    if source.raw_os_error() == Some(ENOSPC) {
        return LabError::not_supported(ACTION, "user.max_net_namespaces is exhausted");
    }
    LabError::of(ACTION, "CAP_SYS_ADMIN", "it has no network namespaces (CONFIG_NET_NS)")(source)
}

const THIS_THREAD: &str = "/proc/thread-self/ns/net";
