//! What the agent remembers: how each connection came to where it is, and the connections that have left the flow table.
//!
//! Every event leaves a [moment](crate::why) in a ring of a fixed size, from which `finwait why` is answered. The oldest
//! moments and connections are forgotten first. On the path of an event that is one lookup by slot and one cache line
//! written.

mod budget;
mod disk;
mod ended;
mod moments;

use tcp_common::Flow;

use super::change::Change;
use crate::kernel::Entry;
use crate::why::{History, Moment, Sent};
pub(super) use budget::MemoryBudget;
pub(super) use disk::{ClosedFlow, DiskThread};
pub use disk::{DISK_OUTCOMES, DiskCounts, DiskHistory};
pub(super) use ended::EndedFlow;
use ended::EndedFlows;
use moments::{MomentPlace, Moments};

/// The memory of an agent.
pub struct Histories {
    moments: Moments,
    /// By slot of the flow table, the latest moment of its flow.
    latest: Vec<MomentPlace>,
    ended: EndedFlows,
    bytes: u64,
}

/// How much is remembered, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Memory for all of it, in bytes.
    pub bytes: u64,
    /// Numbers of moments that are kept, and that there is room for.
    pub moments: (u64, u64),
    /// Numbers of ended connections that are kept, and that there is room for.
    pub connections: (usize, usize),
    /// Time of the oldest moment of a connection, ns.
    pub since_ns: Option<u64>,
}

impl Histories {
    /// Memory of this many bytes, for a table of `slots` slots. Pages that are never written take none.
    pub fn new(slots: u32, bytes: u64) -> Histories {
        let for_moments = bytes / WHOLE * MOMENTS_PART;
        let moments = (for_moments / Moments::BYTES as u64).min(u64::from(u32::MAX / 4)) as u32;
        let ended = ((bytes - for_moments) / EndedFlows::BYTES as u64) as usize;
        Histories {
            moments: Moments::new(moments),
            latest: if moments == 0 { Vec::new() } else { vec![MomentPlace::NONE; slots as usize] },
            ended: EndedFlows::new(ended),
            bytes,
        }
    }

    /// Remembers a change of the flow in a slot.
    pub(super) fn record(&mut self, slot: u32, change: &Change<'_>) {
        let Some(latest) = self.latest.get_mut(slot as usize) else { return };
        let &Change { flow, at_ns, from, to, cause, segment, .. } = change;
        if segment.is_some() || from != to {
            let moment = Moment { at_ns, segment, cause, from, to, sent: Sent::of(flow) };
            *latest = self.moments.push(flow, &moment, *latest);
        }
    }

    /// Remembers a flow that leaves its slot, or is replaced there by the next connection of its addresses and ports.
    pub(super) fn end(&mut self, entry: Entry) {
        let latest = self.latest.get(entry.index as usize).copied().unwrap_or(MomentPlace::NONE);
        self.ended.push(EndedFlow { entry, latest });
    }

    /// The history of the flow in a slot.
    pub(super) fn of(&self, entry: &Entry) -> History {
        let latest = self.latest.get(entry.index as usize).copied().unwrap_or(MomentPlace::NONE);
        self.chain(&entry.flow, latest)
    }

    /// The history of a flow that has left the table.
    pub(super) fn of_ended(&self, ended: &EndedFlow) -> History {
        self.chain(&ended.entry.flow, ended.latest)
    }

    /// The connections that have left the table: those that were established, then those that were not, the latest
    /// first.
    pub(super) fn ended(&self) -> impl Iterator<Item = &EndedFlow> {
        self.ended.iter()
    }

    /// How much is remembered, and since when.
    pub fn extent(&self) -> Extent {
        Extent {
            bytes: self.bytes,
            moments: self.moments.fill(),
            connections: self.ended.fill(),
            since_ns: self.moments.since_ns(),
        }
    }

    /// The first SYN of a flow has no event. It is taken from the flow.
    fn chain(&self, flow: &Flow, latest: MomentPlace) -> History {
        let (mut moments, forgotten) = self.moments.chain(flow, latest, History::KEPT - 1);
        let begins_later = moments.last().is_none_or(|first| first.from != [tcp_common::State::Closed; 2]);
        if forgotten == 0 && begins_later {
            moments.extend(Moment::first_syn(flow));
        }
        History::new(moments.into_iter().rev().collect(), forgotten)
    }
}

/// The part of the memory for moments is 4/9: 16 MiB for 262,144 moments beside 20 MiB for 65,536 connections.
const MOMENTS_PART: u64 = 4;
const WHOLE: u64 = 9;

#[cfg(test)]
mod tests;
