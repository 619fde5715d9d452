//! Errors of system calls that need a capability or an optional feature of the kernel.

use std::io;

use nix::libc::{EACCES, EPERM};

/// The kernel refused an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The process lacks a capability.
    #[error("not permitted to {action}: {capability} is missing (run as root, or grant it)")]
    NotPermitted {
        /// The operation that failed.
        action: &'static str,
        /// The capability that permits the operation.
        capability: &'static str,
    },
    /// The kernel was built or configured without a feature that the operation needs.
    #[error("this kernel cannot {action}: {needs}")]
    NotSupported {
        /// The operation that failed.
        action: &'static str,
        /// The missing feature.
        needs: &'static str,
    },
    /// The operation failed for another reason.
    #[error("cannot {action}")]
    Failed {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl SystemError {
    /// Error of an operation that needs `capability`. The kernel answers with an error number of
    /// `unsupported` if it lacks the feature `needs`.
    pub(crate) fn of(
        action: &'static str,
        capability: &'static str,
        needs: &'static str,
        unsupported: &[i32],
    ) -> impl Fn(io::Error) -> SystemError {
        move |source| match source.raw_os_error() {
            Some(EPERM | EACCES) => SystemError::NotPermitted { action, capability },
            Some(number) if unsupported.contains(&number) => SystemError::NotSupported { action, needs },
            _ => SystemError::Failed { action, source },
        }
    }

    /// Whether the cause is a missing capability or kernel feature.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, SystemError::Failed { .. })
    }
}
