//! What can go wrong between us and the kernel.

/// What went wrong between us and the kernel, with the next step for the reader.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not load programs.
    #[error(
        "loading kernel programs is not permitted: {0}. finwait needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run it as root"
    )]
    NotPermitted(String),
    /// The kernel has no BPF or refuses it.
    #[error("this kernel cannot run the programs: {0}. finwait needs Linux 6.1 or newer with BPF and BTF")]
    NotSupported(String),
    /// The verifier refused a program.
    #[error("the kernel's verifier refused program {program}: {reason}\n{log}")]
    Refused {
        /// Which one.
        program: &'static str,
        /// Its answer.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// Anything else.
    #[error("{what}: {source}")]
    Other {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

pub(super) fn other<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
) -> impl FnOnce(E) -> KernelError {
    move |source| KernelError::Other { what, source: source.into() }
}

/// An error of the library, by what the kernel said.
pub(super) fn classify(error: aya::EbpfError) -> KernelError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            match io.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => return KernelError::NotPermitted(error.to_string()),
                Some(libc::ENOSYS | libc::EOPNOTSUPP) => return KernelError::NotSupported(error.to_string()),
                _ => {}
            }
        }
        source = cause.source();
    }
    other("loading the kernel object")(error)
}
