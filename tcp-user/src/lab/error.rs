//! Errors of the lab, each with what to do next.

use std::io;

use crate::sockets::SocketsError;
use nix::libc::{EACCES, EAFNOSUPPORT, EINVAL, EOPNOTSUPP, EPERM};

/// Why the lab could not be built, or why a scenario did not end as expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The process lacks a capability.
    #[error("not permitted to {action}: {capability} is missing (run as root, or grant it)")]
    NotPermitted {
        /// The operation that failed.
        action: &'static str,
        /// The capability that permits the operation.
        capability: &'static str,
    },
    /// The kernel was built or configured without a feature that the lab needs.
    #[error("this kernel cannot {action}: {needs}")]
    NotSupported {
        /// The operation that failed.
        action: &'static str,
        /// The missing feature.
        needs: &'static str,
    },
    /// The kernel's sockets could not be read.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// A system call failed for another reason.
    #[error("cannot {action}")]
    System {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel did not reach the expected condition before the deadline.
    #[error("waited {waited_ms} ms for {expected}, but found {found}")]
    Timeout {
        /// Waiting time in milliseconds.
        waited_ms: u128,
        /// The expected condition.
        expected: String,
        /// The condition found instead.
        found: String,
    },
}

impl LabError {
    /// Whether the cause is a missing capability or kernel feature, and not a defect of the lab.
    pub fn is_refusal(&self) -> bool {
        match self {
            LabError::NotPermitted { .. } | LabError::NotSupported { .. } => true,
            LabError::Sockets(error) => !matches!(error, SocketsError::System { .. }),
            LabError::System { .. } | LabError::Timeout { .. } => false,
        }
    }

    /// Error of a call that needs `capability` and the kernel feature `needs`.
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

    /// Error of a call that needs no capability.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> LabError {
        move |source| LabError::System { action, source }
    }
}
