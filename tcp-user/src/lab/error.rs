//! Errors of the lab, each with what to do next.

use std::io;

use nix::libc::{EAFNOSUPPORT, EINVAL, EOPNOTSUPP};

use crate::system_error::SystemError;

/// Why the lab could not be built, or why a scenario did not end as expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The kernel refused an operation.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A program that configures a namespace failed.
    #[error("{command}: {message}")]
    Program {
        /// The program and its arguments.
        command: String,
        /// What the program wrote to its standard error.
        message: String,
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
        matches!(self, LabError::System(error) if error.is_refusal())
    }

    /// Error of a call that needs `capability` and the kernel feature `needs`.
    pub(super) fn of(
        action: &'static str,
        capability: &'static str,
        needs: &'static str,
    ) -> impl FnOnce(io::Error) -> LabError {
        let error = SystemError::of(action, capability, needs, &[EINVAL, EOPNOTSUPP, EAFNOSUPPORT]);
        move |source| error(source).into()
    }

    /// Error of a call that failed because the kernel lacks the feature `needs`.
    pub(super) fn not_supported(action: &'static str, needs: &'static str) -> LabError {
        SystemError::NotSupported { action, needs }.into()
    }

    /// Error of a call that needs no capability.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> LabError {
        move |source| SystemError::Failed { action, source }.into()
    }
}
