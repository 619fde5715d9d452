//! What a replay has to tell, in the order of capture time.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use tcp_common::{Cause, Flow, FlowKey, Rules, State};

use crate::describe::{Clock, Describer};
use crate::filter::Filter;
use crate::view::{Connection, Event};

/// One thing to tell.
#[derive(Clone, Debug)]
pub enum Output {
    /// A transition or a close.
    Event(Event),
    /// A connection that is no longer followed: replaced by its next incarnation, over and forgotten, or followed until
    /// the end of the capture.
    Connection {
        /// Its place in the order of opening.
        order: u64,
        /// As it stood then.
        connection: Box<Connection>,
    },
}

/// What is wanted of a replay.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Transitions and closes.
    pub events: bool,
    /// Connections.
    pub connections: bool,
    /// Which connections' events; connections themselves are all told, for their age is known at the end only.
    pub filter: Filter,
}

/// Collects what is wanted.
pub(super) struct Outbox {
    pub(super) rules: Rules,
    pub(super) wanted: Wanted,
    pub(super) outputs: VecDeque<Output>,
}

/// A flow with what is needed to name it.
pub(super) struct Subject<'a> {
    pub(super) key: &'a FlowKey,
    pub(super) flow: &'a Flow,
    pub(super) interface: Option<&'a Arc<str>>,
}

impl Outbox {
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

    pub(super) fn connection(&mut self, subject: &Subject<'_>, now_ns: u64, order: u64) {
        if self.wanted.connections {
            let connection =
                self.describer(now_ns).connection(subject.key, subject.flow, subject.interface_name());
            self.outputs.push_back(Output::Connection { order, connection: Box::new(connection) });
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
}

/// Wall time of a moment on the replay's clock.
pub(super) fn wall(ns: u64) -> Timestamp {
    CLOCK.wall(ns)
}

/// A replay's clock is the capture's: ns since the epoch.
const CLOCK: Clock = Clock { epoch_ns: 0 };
