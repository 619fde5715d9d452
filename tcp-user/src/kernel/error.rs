//! Errors of loading and using the kernel programs.

use std::error::Error;

/// Why the kernel programs cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not load programs.
    #[error(
        "loading the kernel programs is not permitted: {0}. \
         finwait needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run it as root"
    )]
    NotPermitted(String),
    /// The kernel has no BPF or refuses it.
    #[error("this kernel cannot run the programs: {0}. finwait needs Linux 6.1 or newer with BPF")]
    NotSupported(String),
    /// The verifier refused a program.
    #[error("the kernel's verifier refused program {program}: {reason}\n{log}")]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// Error of the system call.
        reason: String,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// An operation on a map or a program failed.
    #[error("{action}")]
    Failed {
        /// What was being done, with the name of the map or program.
        action: String,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
}

pub(super) fn failed(
    action: impl Into<String>,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> KernelError {
    KernelError::Failed { action: action.into(), source: source.into() }
}

/// Classifies an error of loading the object by its system error.
pub(super) fn classify(error: aya::EbpfError) -> KernelError {
    match errno(&error) {
        Some(libc::EPERM | libc::EACCES) => KernelError::NotPermitted(chain(&error)),
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => KernelError::NotSupported(chain(&error)),
        _ => failed("loading the kernel object", error),
    }
}

/// Returns the system error that caused an error.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error)
}

/// Returns the texts of an error and its causes, separated by colons.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_its_cause_once() {
        let error = failed("mapping FLOWS_V4", std::io::Error::from_raw_os_error(libc::ENOMEM));
        assert_eq!(chain(&error), "mapping FLOWS_V4: Cannot allocate memory (os error 12)");
        assert_eq!(errno(&error), Some(libc::ENOMEM));
    }
}
