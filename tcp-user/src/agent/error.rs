//! Errors of the agent.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::locality::LocalityError;
use super::privileges::PrivilegeError;
use super::query_socket::QuerySocketError;
use crate::kernel::{AttachError, KernelError};

/// Why the agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A selected interface does not exist.
    #[error("no interface is named {name:?} here; there are: {}", present.join(", "))]
    NoSuchInterface {
        /// The name that was given.
        name: String,
        /// Names of the interfaces of this network namespace.
        present: Vec<String>,
    },
    /// No interface was selected by name, and none is up.
    #[error(
        "no interface is up: nothing to watch. Bring one up (`ip link set eth0 up`), or name one with -i"
    )]
    NothingUp,
    /// The programs can be attached to none of the selected interfaces.
    #[error("no interface can be watched")]
    NothingWatchable(#[source] AttachError),
    /// The address of the metrics is not available.
    #[error("listening on {address}: choose another address with --listen, port 0 takes any")]
    Listen {
        /// The address that was given.
        address: SocketAddr,
        /// Error of bind().
        source: io::Error,
    },
    /// The query socket cannot be bound.
    #[error(transparent)]
    QuerySocket(#[from] QuerySocketError),
    /// The history cannot be kept in its directory.
    #[error("keeping the history in {}: choose another directory with --history-dir", path.display())]
    HistoryDirectory {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel programs cannot be loaded or used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel programs cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// This host's addresses cannot be read.
    #[error(transparent)]
    Locality(#[from] LocalityError),
    /// Privileges cannot be dropped.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The interfaces cannot be listed.
    #[error("listing the interfaces")]
    Interfaces(#[from] rtnetlink::Error),
    /// A system call failed.
    #[error("{action}")]
    System {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The event thread panicked.
    #[error("internal error: the event thread stopped. Please report this bug")]
    EventThread,
}

impl AgentError {
    /// Error of a system call that is part of `action`.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> AgentError {
        move |source| AgentError::System { action, source }
    }

    /// Whether the kernel lacks a feature, or the process a privilege.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            AgentError::NothingWatchable(_)
                | AgentError::Kernel(_)
                | AgentError::Attach(_)
                | AgentError::Privileges(_)
        )
    }
}
