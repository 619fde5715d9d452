//! Errors of the audit.

use crate::api::client::ClientError;
use crate::system_error::SystemError;

/// Why agent and kernel cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The agent does not answer.
    #[error("reading the agent's connections")]
    Agent(#[from] ClientError),
    /// A line of the agent's answer is not a connection.
    #[error("reading the agent's connections")]
    Malformed(#[from] serde_json::Error),
    /// The kernel refuses to list its sockets, or the connections that conntrack tracks.
    #[error(transparent)]
    Kernel(#[from] SystemError),
    /// The thread that reads the kernel's sockets panicked.
    #[error("reading the kernel's sockets")]
    Panicked(#[from] tokio::task::JoinError),
}
