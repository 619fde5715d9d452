//! Resets as this host's kernel knows them, beside what their segments show.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tcp_common::record::ResetEnds;
use tcp_common::{End, Flow, FlowKey};

use super::shared::Shared;
use crate::clock::monotonic_ns;
use crate::sockets::HostCounters;
use crate::view::{ResetClass, ResetInfo};

/// Why a connection or its TIME-WAIT was reset.
#[derive(Clone, Debug)]
pub struct KnownReset {
    /// The class, settled by the kernel where segments leave two possibilities.
    pub class: ResetClass,
    /// The end whose RST it was.
    pub sender: Option<End>,
    kernel_reason: Option<String>,
}

/// What the host's counters have said about RSTs of this host, where the kernel gives no reason.
#[derive(Debug, Default)]
pub struct HostWitness {
    asked_ns: u64,
    counts: ResetCounts,
    settled: HashMap<(FlowKey, u64), ResetClass>,
    /// The keys of these, the oldest first.
    order: VecDeque<(FlowKey, u64)>,
}

/// The counters of the host that decide between two classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ResetCounts {
    given_up: u64,
    unread: u64,
    overflows: u64,
}

impl Shared {
    /// Why a flow was reset, if it was.
    pub(super) fn reset_of(&self, key: &FlowKey, flow: &Flow) -> Option<KnownReset> {
        let (class, sender) = ResetClass::of(flow)?;
        let local = sender.filter(|&end| flow.is_local(end));
        let kernel_reason = local.and_then(|end| {
            let ends = ResetEnds::new(&key.endpoint(end), &key.endpoint(end.peer()));
            self.reset_reasons.as_ref().ok()?.reason(&ends, flow.last_ns()).map(str::to_owned)
        });
        let by_counters = || self.host_witness.lock().settled.get(&(*key, flow.opened_ns())).copied();
        let class = match kernel_reason.as_deref() {
            Some(reason) => class.settled(reason),
            None if local.is_some() => by_counters().unwrap_or(class),
            None => class,
        };
        Some(KnownReset { class, sender, kernel_reason })
    }

    /// Why a flow was reset just now, if it was. Where neither segments nor the kernel's reason decide, the host's counters
    /// are asked, since they have grown just now.
    pub(super) fn ask_reset_of(&self, key: &FlowKey, flow: &Flow) -> Option<KnownReset> {
        let mut known = self.reset_of(key, flow)?;
        if !known.sender.is_some_and(|end| flow.is_local(end)) {
            return Some(known);
        }
        if self.reset_reasons.is_err() {
            // Also if nothing is to be decided: what grows next is of the next reset then.
            known.class = self.host_witness.lock().ask((*key, flow.opened_ns()), known.class);
        } else if known.class.is_either() && self.host_witness.lock().may_wait() {
            // The RST of a socket that gives up is seen before the kernel gives its reason.
            std::thread::sleep(AFTER_RST);
            return self.reset_of(key, flow);
        }
        Some(known)
    }
}

impl KnownReset {
    /// Puts what the kernel says into the record of a connection.
    pub(super) fn complete(self, info: &mut ResetInfo) {
        info.class = self.class;
        info.kernel_reason = self.kernel_reason.map(Cow::Owned);
    }
}

impl HostWitness {
    /// A witness that knows the counters as they are now.
    pub(super) fn new() -> HostWitness {
        HostWitness { counts: ResetCounts::read().unwrap_or_default(), ..HostWitness::default() }
    }

    /// Whether the last question was not just now, so that questions hold up few other events.
    fn may_wait(&mut self) -> bool {
        let now_ns = monotonic_ns();
        let may_wait = now_ns.saturating_sub(self.asked_ns) >= PAUSE_NS;
        if may_wait {
            self.asked_ns = now_ns;
        }
        may_wait
    }

    /// Settles the class of a reset by what has grown since the last question, if the last one was not just now.
    fn ask(&mut self, connection: (FlowKey, u64), class: ResetClass) -> ResetClass {
        if !self.may_wait() {
            return class;
        }
        let Some(counts) = ResetCounts::read() else { return class };
        let settled = counts.settle(&std::mem::replace(&mut self.counts, counts), class);
        if settled != class {
            if self.order.len() == SETTLED
                && let Some(oldest) = self.order.pop_front()
            {
                self.settled.remove(&oldest);
            }
            self.order.push_back(connection);
            self.settled.insert(connection, settled);
        }
        settled
    }
}

impl ResetCounts {
    fn read() -> Option<ResetCounts> {
        let host = HostCounters::read()?;
        let given_up = ["TCPAbortOnData", "TCPAbortOnMemory", "TCPAbortOnTimeout", "TCPAbortOnLinger"];
        Some(ResetCounts {
            given_up: given_up.iter().filter_map(|name| host.get(name)).sum(),
            unread: host.get("TCPAbortOnClose")?,
            overflows: host.get("ListenOverflows")?,
        })
    }

    /// The class that agrees with what has grown since `before`; the same if that decides nothing.
    fn settle(&self, before: &ResetCounts, class: ResetClass) -> ResetClass {
        let grown = (self.given_up > before.given_up, self.unread > before.unread);
        match (class, grown, self.overflows > before.overflows) {
            (ResetClass::AbortOrUnread, (true, false), _) => ResetClass::Abort,
            (ResetClass::AbortOrUnread, (false, true), _) => ResetClass::AbortUnread,
            (ResetClass::QueueFullOrHalfOpen, _, true) => ResetClass::QueueFull,
            (ResetClass::QueueFullOrHalfOpen, _, false) => ResetClass::HalfOpen,
            _ => class,
        }
    }
}

/// From the sight of a RST to its reason.
const AFTER_RST: Duration = Duration::from_micros(200);
/// Between two questions at least, in ns.
const PAUSE_NS: u64 = 5_000_000;
/// Number of connections whose class is remembered.
const SETTLED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_grown_settles_the_class_unless_both_have() {
        use ResetClass::*;
        let counts = |given_up, unread, overflows| ResetCounts { given_up, unread, overflows };
        let before = counts(1, 2, 3);
        for (class, after, expected) in [
            (AbortOrUnread, counts(2, 2, 3), Abort),
            (AbortOrUnread, counts(1, 3, 4), AbortUnread),
            (AbortOrUnread, counts(2, 3, 3), AbortOrUnread),
            (AbortOrUnread, before, AbortOrUnread),
            (QueueFullOrHalfOpen, counts(1, 2, 4), QueueFull),
            (QueueFullOrHalfOpen, counts(2, 3, 3), HalfOpen),
            (AfterFin, counts(2, 2, 4), AfterFin),
        ] {
            assert_eq!(after.settle(&before, class), expected, "{after:?}");
        }
    }
}
