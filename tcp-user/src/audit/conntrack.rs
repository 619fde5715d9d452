//! nf_conntrack's view beside the two others.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tcp_common::State;

use super::Finding;
use crate::sockets::{Tracked, TrackedState};
use crate::view::SocketPair;

/// What conntrack says of a connection, and whether its one state can stand for what the others say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conntrack {
    /// State of the conntrack entry.
    pub state: TrackedState,
    /// Whether the state is compatible with both ends; `None` if the agent does not know them.
    pub fits_ours: Option<bool>,
    /// Whether the state is compatible with the kernel's socket.
    pub fits_kernel: bool,
}

impl Conntrack {
    /// Whether it differs from one of the others, or from both.
    pub fn differs(&self) -> bool {
        self.fits_ours == Some(false) || !self.fits_kernel
    }
}

/// Number of ends by result of the comparison with conntrack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConntrackCounts {
    /// TCP entries of conntrack.
    pub entries: u64,
    /// Ends with a compatible conntrack state.
    pub fits: u64,
    /// Ends whose conntrack state is incompatible with the agent's only.
    pub differs_from_ours: u64,
    /// Ends whose conntrack state is incompatible with the kernel's only.
    pub differs_from_kernel: u64,
    /// Ends whose conntrack state is incompatible with both.
    pub differs_from_both: u64,
    /// Ends without a conntrack entry.
    pub untracked: u64,
}

impl ConntrackCounts {
    pub(super) fn count(&mut self, conntrack: Option<&Conntrack>) {
        *match conntrack.map(|conntrack| (conntrack.fits_ours == Some(false), !conntrack.fits_kernel)) {
            None => &mut self.untracked,
            Some((false, false)) => &mut self.fits,
            Some((true, false)) => &mut self.differs_from_ours,
            Some((false, true)) => &mut self.differs_from_kernel,
            Some((true, true)) => &mut self.differs_from_both,
        } += 1;
    }
}

/// Its entries by what is on the wire, before and after NAT.
#[derive(Default)]
pub(super) struct Entries {
    by_ends: HashMap<SocketPair, TrackedState>,
    pub(super) count: u64,
}

impl FromIterator<Tracked> for Entries {
    fn from_iter<T: IntoIterator<Item = Tracked>>(all: T) -> Entries {
        let mut entries = Entries::default();
        for Tracked { original, reply: (source, destination), state } in all {
            entries.by_ends.insert(original, state);
            entries.by_ends.insert((destination, source), state);
            entries.count += 1;
        }
        entries
    }
}

impl Entries {
    /// What it says of a finding.
    pub(super) fn of(&self, finding: &Finding) -> Option<Conntrack> {
        let (local, remote): SocketPair = (finding.local.into(), finding.remote.into());
        let state = *self.by_ends.get(&(local, remote)).or_else(|| self.by_ends.get(&(remote, local)))?;
        let ours = finding.ours.as_ref();
        let kernel = finding.kernel.as_ref().map(|socket| socket.state);
        Some(Conntrack {
            state,
            fits_ours: ours.map(|ours| state.allows(ours.state, ours.peer_state)),
            // A forwarded connection has no socket here.
            fits_kernel: ours.is_some_and(|ours| !ours.is_here())
                || state.allows_end(kernel.unwrap_or(State::Closed)),
        })
    }
}
