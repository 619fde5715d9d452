//! The kernel's own view of TCP, against which a watcher can be checked: sockets (`diag`) and who
//! owns them (`owner`). All of it is of one network namespace.

mod diag;
mod error;
mod owner;

pub use diag::{Diag, KernelSocket, Timer, state_from_linux};
pub use error::SocketsError;
pub use owner::Owners;
