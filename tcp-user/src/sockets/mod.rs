//! The kernel's view of TCP in one network namespace: its sockets (`diag`), those that listen (`listeners`),
//! their owners (`owner`), the ports that connect() may choose (`ephemeral`, `port_set`) and the sockets that hold
//! them (`port_holders`), the entries of nf_conntrack (`conntrack`, `conntrack_lookup`), the addresses of records
//! as those of sockets (`scope`), and the facts of the host that explain differences (`host`, `unmatched`),
//! and its counters (`host_counters`).

mod conntrack;
mod conntrack_lookup;
mod diag;
mod ephemeral;
mod host;
mod host_counters;
mod listeners;
mod owner;
mod port_holders;
mod port_set;
mod scope;
mod unmatched;

pub use conntrack::{Tracked, TrackedState, tracked};
pub(crate) use conntrack_lookup::{ConntrackLookup, is_conntrack_in_use};
pub(crate) use diag::scoped;
pub use diag::{Diag, KernelSocket, Timer, state_from_linux};
pub(crate) use ephemeral::EphemeralPorts;
pub(crate) use host::{HostContext, addresses, is_here};
pub use host::{Reason, namespace};
pub use host_counters::HostCounters;
pub use listeners::Listeners;
pub use owner::Owners;
pub(crate) use port_holders::shows_bound_sockets;
pub(crate) use port_set::PortSet;
pub(crate) use scope::{scope_of, socket_of};
pub(crate) use unmatched::Unmatched;
