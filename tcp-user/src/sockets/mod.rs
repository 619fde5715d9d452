//! The kernel's own view of TCP, against which a watcher can be checked: sockets (`diag`), who
//! owns them (`owner`), and what nf_conntrack makes of the packets (`conntrack`). All of it is of one network namespace.

mod conntrack;
mod diag;
mod host;
mod owner;
mod unmatched;

pub use conntrack::{Tracked, TrackedState, tracked};
pub use diag::{Diag, KernelSocket, Timer, state_from_linux};
pub(crate) use host::{HostContext, addresses, is_here};
pub use host::{Reason, namespace};
pub use owner::Owners;
pub(crate) use unmatched::Unmatched;
