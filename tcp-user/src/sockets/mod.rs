//! The kernel's view of TCP in one network namespace: its sockets (`diag`), those that listen (`listeners`),
//! their owners (`owner`), the entries of nf_conntrack (`conntrack`), and the facts of the host that explain differences (`host`,
//! `unmatched`).

mod conntrack;
mod diag;
mod host;
mod listeners;
mod owner;
mod unmatched;

pub use conntrack::{Tracked, TrackedState, tracked};
pub use diag::{Diag, KernelSocket, Timer, state_from_linux};
pub(crate) use host::{HostContext, addresses, is_here};
pub use host::{Reason, namespace};
pub use listeners::Listeners;
pub use owner::Owners;
pub(crate) use unmatched::Unmatched;
