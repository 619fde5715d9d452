//! The records of a replay: events in the order of capture time, connections in the order of opening.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tcp_common::record::reported;
use tcp_common::{Cause, End, Flow, FlowKey, Rules, State};

use super::warning::Warning;
use super::zeek::{self, Trace};
use crate::clock::{BootId, Clock};
use crate::filter::Filter;
use crate::view::describe::{Describer, Location, client_end};
use crate::view::{Close, Connection, EventRecord, ReopenReason, TimeWaitEnding, Tunnel, is_ignored_rst};
use crate::why::{Explanation, History};

/// One record.
#[derive(Clone, Debug)]
pub enum Output {
    /// A transition, a close, or what follows them.
    Event(EventRecord),
    /// A connection that its next incarnation replaced, that was forgotten, or that was open at the end of
    /// the capture.
    Connection(Box<Listed>),
    /// Something unusual about the capture.
    Warning(Warning),
}

/// A connection for the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The connection in its last state.
    pub connection: Connection,
    /// The time that ages are relative to: the end of the capture, or the capture's time when the
    /// connection had to be listed earlier because too many were waiting.
    pub as_of: Timestamp,
    /// The line of Zeek's `conn.log`, if selected.
    pub zeek: Option<zeek::Conn>,
    /// The connection explained, if selected.
    pub explanation: Option<Explanation>,
}

/// The records that a replay is to produce.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Transitions, closes and what follows them.
    pub events: bool,
    /// Connections.
    pub connections: bool,
    /// Lines of Zeek's `conn.log` with the connections.
    pub zeek: bool,
    /// Explanations with the connections.
    pub explanations: bool,
    /// The connections to report.
    pub filter: Filter,
}

/// Collects the selected records.
pub(super) struct Outbox {
    pub(super) rules: Rules,
    pub(super) selection: Selection,
    pub(super) outputs: VecDeque<Output>,
    /// Connections that are no longer tracked, the one opened first on top. At most [`KEPT`] wait here for
    /// one that was opened before them, so memory is bounded by the flows alive, whatever the length of the
    /// capture.
    ended: BinaryHeap<Reverse<Ended>>,
}

/// A flow with its key, interface, tunnel and Zeek trace.
pub(super) struct Subject<'a> {
    pub(super) key: &'a FlowKey,
    pub(super) flow: &'a Flow,
    pub(super) interface: Option<&'a Arc<str>>,
    /// Interface whose link the addresses belong to, if they are link-local.
    pub(super) scope: Option<&'a Arc<str>>,
    /// VLAN tags of each end's packets, A first.
    pub(super) tags: [u32; 2],
    pub(super) tunnel: Option<Tunnel>,
    pub(super) trace: Option<&'a Trace>,
    pub(super) history: Option<&'a History>,
}

/// A connection in its last state, no longer tracked.
pub(super) struct Ended {
    key: FlowKey,
    flow: Flow,
    interface: Option<Arc<str>>,
    scope: Option<Arc<str>>,
    tags: [u32; 2],
    tunnel: Option<Tunnel>,
    trace: Option<Trace>,
    history: Option<History>,
    at_ns: u64,
}

impl Outbox {
    pub(super) fn new(rules: Rules, selection: Selection) -> Outbox {
        Outbox { rules, selection, outputs: VecDeque::new(), ended: BinaryHeap::new() }
    }

    /// Adds the transitions of both ends, if events are selected.
    pub(super) fn transitions(
        &mut self,
        subject: &Subject<'_>,
        now_ns: u64,
        from: [State; 2],
        to: [State; 2],
        cause: Cause,
    ) {
        if !self.selection.events || from == to {
            return;
        }
        let describer = self.describer(now_ns);
        if !self.selection.filter.is_empty() {
            let connection = subject.connection(&describer);
            if !self.selection.filter.matches(&connection, wall(now_ns)) {
                return;
            }
        }
        let transitions =
            describer.transitions(subject.key, subject.flow, subject.scope(), now_ns, (from, to), cause);
        self.outputs.extend(transitions.into_iter().map(|transition| Output::Event(transition.into())));
    }

    /// Adds a RST that was not accepted, if events are selected.
    pub(super) fn ignored_rst(&mut self, subject: &Subject<'_>, now_ns: u64, sender: End, cause: Cause) {
        if !self.selection.events || !is_ignored_rst(cause) {
            return;
        }
        let (describer, &Subject { key, flow, .. }) = (self.describer(now_ns), subject);
        if self.selection.filter.matches(&subject.connection(&describer), wall(now_ns)) {
            let record = describer.ignored_rst(key, flow, subject.scope(), now_ns, sender, cause);
            self.outputs.push_back(Output::Event(record.into()));
        }
    }

    /// Adds what a change reports of a flow, if events are selected: the bits of
    /// [`reported`] that [`Flow::report`] returned. A TIME-WAIT that has ended did so by `ending`.
    pub(super) fn report(
        &mut self,
        subject: &Subject<'_>,
        now_ns: u64,
        reports: u32,
        ending: impl Fn(&Flow, End) -> TimeWaitEnding,
    ) {
        if !self.selection.events || reports == 0 {
            return;
        }
        let (describer, &Subject { key, flow, .. }) = (self.describer(now_ns), subject);
        let connection = subject.connection(&describer);
        if !self.selection.filter.matches(&connection, wall(now_ns)) {
            return;
        }
        let mut records: Vec<EventRecord> = Vec::new();
        let holds = reports & flow.reported();
        if holds & reported::CLOSE != 0 {
            records
                .push(Close { connection, ..describer.close(key, flow, Location::default(), now_ns) }.into());
        } else if reports & reported::CLOSE != 0 {
            let reason = ReopenReason::DataAcknowledged;
            records.push(describer.reopened(key, flow, subject.scope(), now_ns, reason).into());
        }
        for (end, bit) in [(End::A, reported::LEFT_TIME_WAIT_A), (End::B, reported::LEFT_TIME_WAIT_B)] {
            if holds & bit != 0 {
                let (scope, ending) = (subject.scope(), ending(flow, end));
                records.push(describer.time_wait_end(key, flow, scope, now_ns, end, ending).into());
            }
        }
        self.outputs.extend(records.into_iter().map(Output::Event));
    }

    /// Adds a connection that is no longer tracked.
    pub(super) fn ended(&mut self, subject: &Subject<'_>, now_ns: u64) {
        if !self.selection.connections {
            return;
        }
        if self.ended.len() == KEPT {
            self.list_first_ended(now_ns);
        }
        self.ended.push(Reverse(subject.ended(now_ns)));
    }

    /// Lists a connection that was tracked to the end of the capture, after all that ended and were opened
    /// earlier. Called in the order of opening.
    pub(super) fn remaining(&mut self, subject: &Subject<'_>, now_ns: u64) {
        if !self.selection.connections {
            return;
        }
        let remaining = subject.ended(now_ns);
        while self.ended.peek().is_some_and(|Reverse(first)| *first < remaining) {
            self.list_first_ended(now_ns);
        }
        self.list(&remaining, now_ns);
    }

    /// Lists the connection opened first among those that ended. Returns whether there was one.
    pub(super) fn list_first_ended(&mut self, now_ns: u64) -> bool {
        let Some(Reverse(first)) = self.ended.pop() else { return false };
        self.list(&first, now_ns);
        true
    }

    fn list(&mut self, ended: &Ended, now_ns: u64) {
        let Ended { key, flow, trace, history, at_ns, .. } = ended;
        let connection = ended.subject().connection(&self.describer(*at_ns));
        if !self.selection.filter.matches(&connection, wall(now_ns)) {
            return;
        }
        let zeek = trace.as_ref().map(|trace| zeek::Conn::new(key, flow, trace));
        let explanation = history.as_ref().map(|history| {
            let client = client_end(key, flow);
            Explanation::new(connection.clone(), flow, history, client, CLOCK, wall(*at_ns))
        });
        self.outputs.push_back(Output::Connection(Box::new(Listed {
            connection,
            as_of: wall(now_ns),
            zeek,
            explanation,
        })));
    }

    fn describer(&self, now_ns: u64) -> Describer<'_> {
        Describer { rules: &self.rules, clock: CLOCK, now_ns, client: None, id: None }
    }
}

impl Subject<'_> {
    fn scope(&self) -> Option<&str> {
        self.scope.map(|name| &**name)
    }

    fn connection(&self, describer: &Describer<'_>) -> Connection {
        let interface = self.interface.map(|name| name.to_string());
        let scope = self.scope().map(str::to_owned);
        let location = Location { interface, tags: self.tags, scope };
        Connection { tunnel: self.tunnel, ..describer.connection(self.key, self.flow, location) }
    }

    fn ended(&self, at_ns: u64) -> Ended {
        Ended {
            key: *self.key,
            flow: *self.flow,
            interface: self.interface.cloned(),
            scope: self.scope.cloned(),
            tags: self.tags,
            tunnel: self.tunnel,
            trace: self.trace.cloned(),
            history: self.history.cloned(),
            at_ns,
        }
    }
}

impl Ended {
    fn subject(&self) -> Subject<'_> {
        Subject {
            key: &self.key,
            flow: &self.flow,
            interface: self.interface.as_ref(),
            scope: self.scope.as_ref(),
            tags: self.tags,
            tunnel: self.tunnel,
            trace: self.trace.as_ref(),
            history: self.history.as_ref(),
        }
    }

    /// The sort key: time of opening, then the flow's key, so that every replay lists them in the same order.
    fn order(&self) -> (u64, FlowKey, u32) {
        (self.flow.opened_ns(), self.key, self.flow.incarnation())
    }
}

impl Ord for Ended {
    fn cmp(&self, other: &Ended) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Ended {
    fn partial_cmp(&self, other: &Ended) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ended {
    fn eq(&self, other: &Ended) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Ended {}

/// Wall time of a time on the replay's clock.
pub(super) fn wall(ns: u64) -> Timestamp {
    CLOCK.wall(ns)
}

/// The clock of a replay is the capture's: ns since the epoch.
const CLOCK: Clock = Clock { epoch_ns: 0, boot: BootId::NONE };
/// Maximum number of ended connections that wait to be listed, about 25 MiB.
pub(super) const KEPT: usize = 1 << 16;
