//! Why the kernel does not tell.

use std::io;

use nix::libc::{EACCES, EPERM};

/// The kernel was asked for its own view and gave none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketsError {
    /// This process lacks a capability.
    #[error("not permitted to {action}: {capability} is missing (run as root, or grant it)")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// The capability that allows it.
        capability: &'static str,
    },
    /// This kernel was built or configured without it.
    #[error("this kernel cannot {action}: {needs}")]
    NotSupported {
        /// What was tried.
        action: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// A system call failed for another reason.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SocketsError {
    /// For a question that needs `capability`, and that the kernel answers with one of `missing` where it lacks `needs`.
    pub(super) fn of(
        action: &'static str,
        capability: &'static str,
        needs: &'static str,
        missing: &[i32],
    ) -> impl Fn(io::Error) -> SocketsError {
        move |source| match source.raw_os_error() {
            Some(EPERM | EACCES) => SocketsError::NotPermitted { action, capability },
            Some(number) if missing.contains(&number) => SocketsError::NotSupported { action, needs },
            _ => SocketsError::System { action, source },
        }
    }
}
