//! What a replay has to tell: events in the order of capture time, connections in the order of opening.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tcp_common::{Cause, Flow, FlowKey, Rules, State};

use super::zeek::{self, Trace};
use crate::clock::Clock;
use crate::filter::Filter;
use crate::view::describe::Describer;
use crate::view::{Connection, Event};

/// One thing to tell.
#[derive(Clone, Debug)]
pub enum Output {
    /// A transition or a close.
    Event(Event),
    /// A connection: replaced by its next incarnation, over and forgotten, or followed until the end of the capture.
    Connection(Box<Listed>),
}

/// A connection for the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// As it stood last.
    pub connection: Connection,
    /// The moment that ages are to be counted to: the end of the capture, or, where so many connections were over that
    /// they were told before, the capture's time then.
    pub as_of: Timestamp,
    /// The same in Zeek's words, if they are wanted.
    pub zeek: Option<zeek::Conn>,
}

/// What is wanted of a replay.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Transitions and closes.
    pub events: bool,
    /// Connections.
    pub connections: bool,
    /// Connections in Zeek's words, too.
    pub zeek: bool,
    /// Which connections.
    pub filter: Filter,
}

/// Collects what is wanted.
pub(super) struct Outbox {
    pub(super) rules: Rules,
    pub(super) wanted: Wanted,
    pub(super) outputs: VecDeque<Output>,
    /// Connections that are followed no more, the first opened on top. At most [`KEPT`] wait here for one that was opened
    /// before them, so that a capture of any length needs no more memory than its flows alive.
    ended: BinaryHeap<Reverse<Ended>>,
}

/// A flow with what is needed to name it.
pub(super) struct Subject<'a> {
    pub(super) key: &'a FlowKey,
    pub(super) flow: &'a Flow,
    pub(super) interface: Option<&'a Arc<str>>,
    pub(super) trace: Option<&'a Trace>,
}

/// A connection as it stood when it was followed no more.
pub(super) struct Ended {
    key: FlowKey,
    flow: Flow,
    interface: Option<Arc<str>>,
    trace: Option<Trace>,
    at_ns: u64,
}

impl Outbox {
    pub(super) fn new(rules: Rules, wanted: Wanted) -> Outbox {
        Outbox { rules, wanted, outputs: VecDeque::new(), ended: BinaryHeap::new() }
    }

    pub(super) fn transitions(
        &mut self,
        subject: &Subject<'_>,
        now_ns: u64,
        from: [State; 2],
        to: [State; 2],
        cause: Cause,
    ) {
        if !self.wanted.events || from == to {
            return;
        }
        let describer = self.describer(now_ns);
        if !self.wanted.filter.is_empty() {
            let connection = describer.connection(subject.key, subject.flow, subject.interface_name());
            if !self.wanted.filter.matches(&connection, wall(now_ns)) {
                return;
            }
        }
        let transitions = describer.transitions(subject.key, subject.flow, now_ns, from, to, cause);
        self.outputs.extend(transitions.into_iter().map(|transition| Output::Event(transition.into())));
    }

    pub(super) fn close(&mut self, subject: &Subject<'_>, now_ns: u64) {
        if !self.wanted.events {
            return;
        }
        let close = self.describer(now_ns).close(subject.key, subject.flow, subject.interface_name(), now_ns);
        if self.wanted.filter.matches(&close.connection, wall(now_ns)) {
            self.outputs.push_back(Output::Event(close.into()));
        }
    }

    /// Takes a connection that is followed no more.
    pub(super) fn ended(&mut self, subject: &Subject<'_>, now_ns: u64) {
        if !self.wanted.connections {
            return;
        }
        if self.ended.len() == KEPT {
            self.rest(now_ns);
        }
        self.ended.push(Reverse(subject.ended(now_ns)));
    }

    /// Lists one of those that were followed to the end of the capture: they come in the order of opening, and before it
    /// all that ended and was opened earlier.
    pub(super) fn remaining(&mut self, subject: &Subject<'_>, now_ns: u64) {
        if !self.wanted.connections {
            return;
        }
        let remaining = subject.ended(now_ns);
        while self.ended.peek().is_some_and(|Reverse(first)| *first < remaining) {
            self.rest(now_ns);
        }
        self.list(&remaining, now_ns);
    }

    /// Lists the first of those that ended. Returns whether there was one.
    pub(super) fn rest(&mut self, now_ns: u64) -> bool {
        let Some(Reverse(first)) = self.ended.pop() else { return false };
        self.list(&first, now_ns);
        true
    }

    fn list(&mut self, ended: &Ended, now_ns: u64) {
        let Ended { key, flow, interface, trace, at_ns } = ended;
        let interface = interface.as_ref().map(|name| name.to_string());
        let connection = self.describer(*at_ns).connection(key, flow, interface);
        if self.wanted.filter.matches(&connection, wall(now_ns)) {
            let zeek = trace.as_ref().map(|trace| zeek::Conn::new(key, flow, trace));
            self.outputs.push_back(Output::Connection(Box::new(Listed {
                connection,
                as_of: wall(now_ns),
                zeek,
            })));
        }
    }

    fn describer(&self, now_ns: u64) -> Describer<'_> {
        Describer { rules: &self.rules, clock: CLOCK, now_ns }
    }
}

impl Subject<'_> {
    fn interface_name(&self) -> Option<String> {
        self.interface.map(|name| name.to_string())
    }

    fn ended(&self, at_ns: u64) -> Ended {
        Ended {
            key: *self.key,
            flow: *self.flow,
            interface: self.interface.cloned(),
            trace: self.trace.cloned(),
            at_ns,
        }
    }
}

impl Ended {
    /// By opening; those of one moment by their keys, so that every replay lists them alike.
    fn place(&self) -> (u64, FlowKey, u32) {
        (self.flow.opened_ns(), self.key, self.flow.incarnation())
    }
}

impl Ord for Ended {
    fn cmp(&self, other: &Ended) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Ended {
    fn partial_cmp(&self, other: &Ended) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ended {
    fn eq(&self, other: &Ended) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Ended {}

/// Wall time of a moment on the replay's clock.
pub(super) fn wall(ns: u64) -> Timestamp {
    CLOCK.wall(ns)
}

/// A replay's clock is the capture's: ns since the epoch.
const CLOCK: Clock = Clock { epoch_ns: 0 };
/// Some 25 MiB.
pub(super) const KEPT: usize = 1 << 16;
