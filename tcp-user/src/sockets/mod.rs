//! The kernel's view of TCP in one network namespace: its sockets (`diag`), those that listen (`listeners`),
//! their owners (`owner`), the entries of nf_conntrack (`conntrack`, `conntrack_lookup`), the addresses of records
//! as those of sockets (`scope`), and the facts of the host that explain differences (`host`, `unmatched`),
//! and its counters (`host_counters`).

mod conntrack;
mod conntrack_lookup;
mod diag;
mod host;
mod host_counters;
mod listeners;
mod owner;
mod scope;
mod unmatched;

pub use conntrack::{Tracked, TrackedState, tracked};
pub(crate) use conntrack_lookup::{ConntrackLookup, is_conntrack_in_use};
pub(crate) use diag::scoped;
pub use diag::{Diag, KernelSocket, Timer, state_from_linux};
pub(crate) use host::{HostContext, addresses, is_here};
pub use host::{Reason, namespace};
pub use host_counters::HostCounters;
pub use listeners::Listeners;
pub use owner::Owners;
pub(crate) use scope::{scope_of, socket_of};
pub(crate) use unmatched::Unmatched;
