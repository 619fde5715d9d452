//! What can go wrong in the lab, said so that a person knows what to do next.

use std::io;

use crate::sockets::SocketsError;
use nix::libc::{EACCES, EAFNOSUPPORT, EINVAL, EOPNOTSUPP, EPERM};

/// Why the lab could not be built, or why a scenario did not end as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// This process lacks a capability.
    #[error("not permitted to {action}: {capability} is missing (run as root, or grant it)")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// The capability that allows it.
        capability: &'static str,
    },
    /// This kernel was built or configured without something the lab needs.
    #[error("this kernel cannot {action}: {needs}")]
    NotSupported {
        /// What was tried.
        action: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// The kernel does not show its sockets.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// A system call failed for another reason.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not reach the expected condition before the deadline.
    #[error("waited {waited_ms} ms for {expected}, but found {found}")]
    Timeout {
        /// How long, in milliseconds.
        waited_ms: u128,
        /// The condition.
        expected: String,
        /// What was there instead.
        found: String,
    },
}

impl LabError {
    /// Whether a person with more rights, or another kernel, would succeed: not a defect of the lab.
    pub fn is_refusal(&self) -> bool {
        match self {
            LabError::NotPermitted { .. } | LabError::NotSupported { .. } => true,
            LabError::Sockets(error) => !matches!(error, SocketsError::System { .. }),
            LabError::System { .. } | LabError::Timeout { .. } => false,
        }
    }

    /// For a call that is refused without `capability`, and fails with "unknown" where the kernel lacks `needs`.
    pub(super) fn of(
        action: &'static str,
        capability: &'static str,
        needs: &'static str,
    ) -> impl FnOnce(io::Error) -> LabError {
        move |source| match source.raw_os_error() {
            Some(EPERM | EACCES) => LabError::NotPermitted { action, capability },
            Some(EINVAL | EOPNOTSUPP | EAFNOSUPPORT) => LabError::NotSupported { action, needs },
            _ => LabError::System { action, source },
        }
    }

    /// For a call that needs no special right.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> LabError {
        move |source| LabError::System { action, source }
    }
}
