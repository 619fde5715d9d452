//! Runs a scenario through a state machine and compares.

use tcp_common::flow::{Closer, Initiator, Previous};
use tcp_common::wire::IcmpError;
use tcp_common::{End, Flow, Outcome, Rules, Segment};

use super::{Close, Event, Expected, MS, QuotingError, START_NS, Scenario, Step, Variant};

/// A state machine under test: the pure one, or that of the kernel programs.
pub trait StateMachine {
    /// Feeds one segment and returns the flow after it.
    fn segment(&mut self, now_ns: u64, sender: End, segment: &Segment) -> Flow;
    /// Feeds an ICMP error that quotes a segment of `sender`, and returns the flow after it.
    fn icmp_error(&mut self, now_ns: u64, sender: End, quoted: &Segment, error: QuotingError) -> Flow;
    /// Advances the clock and returns the flow.
    fn tick(&mut self, now_ns: u64) -> Flow;
    /// The earlier incarnations of the flow, oldest first.
    fn earlier(&self) -> Vec<Flow>;
}

/// The state machine of tcp-common.
pub(super) struct Pure {
    flow: Flow,
    rules: Rules,
    earlier: Vec<Flow>,
}

impl Pure {
    pub(super) fn new(scenario: &Scenario, variant: Variant) -> Pure {
        Pure { flow: variant.empty(), rules: scenario.rules, earlier: Vec::new() }
    }
}

impl StateMachine for Pure {
    fn segment(&mut self, now_ns: u64, sender: End, segment: &Segment) -> Flow {
        let mut before = self.flow;
        let outcome: Outcome = self.flow.on_segment(now_ns, sender, segment, &self.rules);
        if outcome.previous != Previous::None {
            before.end_previous(now_ns, outcome.previous, &self.rules);
            self.earlier.push(before);
        }
        self.flow
    }

    fn icmp_error(&mut self, now_ns: u64, sender: End, quoted: &Segment, error: QuotingError) -> Flow {
        let mut before = self.flow;
        if let Some(error) = IcmpError::new(4, error.kind, error.code) {
            let outcome = self.flow.on_icmp_error(now_ns, sender, quoted.seq, error, 4, &self.rules);
            if outcome.previous != Previous::None {
                before.end_previous(now_ns, outcome.previous, &self.rules);
                self.earlier.push(before);
            }
        }
        self.flow
    }

    fn tick(&mut self, now_ns: u64) -> Flow {
        self.flow.tick(now_ns, &self.rules);
        self.flow
    }

    fn earlier(&self) -> Vec<Flow> {
        self.earlier.clone()
    }
}

/// Runs a scenario through the pure state machine.
///
/// # Errors
///
/// The first difference, as text.
pub fn run(scenario: &Scenario, variant: Variant) -> Result<(), String> {
    check(scenario, variant, &mut Pure::new(scenario, variant))
}

/// Runs a scenario through a state machine under test.
///
/// # Errors
///
/// The first difference, as text.
pub fn check(scenario: &Scenario, variant: Variant, machine: &mut impl StateMachine) -> Result<(), String> {
    let mut flow = Flow::EMPTY;
    for step in &scenario.steps {
        let Some(after) = feed(step, variant, machine) else { continue };
        flow = after;
        let Some(expected) = &step.expected else { continue };
        for (end, expected) in [End::A, End::B].into_iter().zip(expected) {
            check_end(variant.end(end), expected, &flow, &scenario.rules).map_err(|message| {
                format!("at {} ms end {} {message}", step.at_ms, variant.name(variant.end(end)))
            })?;
        }
    }
    let mut records = machine.earlier();
    if !flow.is_empty() {
        records.push(flow);
    }
    if records.len() != scenario.closes.len() {
        return Err(format!("{} incarnations, expected {}", records.len(), scenario.closes.len()));
    }
    for (index, (record, expected)) in records.iter().zip(&scenario.closes).enumerate() {
        let got = close_of(record, variant);
        if !expected.accepts(&got) {
            return Err(format!("close record {index} is {got:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// Feeds a step as a variant has it. Returns the flow after it; `None` if the tap sees nothing.
pub(super) fn feed(step: &Step, variant: Variant, machine: &mut impl StateMachine) -> Option<Flow> {
    if step.event == Event::Tick {
        return Some(machine.tick(step.at_ns()));
    }
    if let Some((sender, quoted, error)) = step.quoted(variant) {
        let flow = machine.icmp_error(step.at_ns(), sender, &quoted, error);
        let again = |machine: &mut _| StateMachine::icmp_error(machine, step.at_ns(), sender, &quoted, error);
        return Some(if variant.doubled { again(machine) } else { flow });
    }
    let (sender, segment) = step.segment(variant)?;
    let flow = machine.segment(step.at_ns(), sender, &segment);
    Some(if variant.doubled { machine.segment(step.at_ns(), sender, &segment) } else { flow })
}

fn check_end(end: End, expected: &Expected, flow: &Flow, rules: &Rules) -> Result<(), String> {
    let state = flow.state(end);
    if !expected.states.contains(&state) {
        let acceptable: Vec<_> = expected.states.iter().map(|state| state.rfc_name()).collect();
        return Err(format!("is {}, expected {}", state.rfc_name(), acceptable.join("|")));
    }
    let proved = flow.proved(end);
    if let Some(wanted) = expected.proved
        && wanted != proved
    {
        return Err(format!("proves {}, expected {}", proved.rfc_name(), wanted.rfc_name()));
    }
    let until_ms = flow.time_wait_deadline_ns(end, rules).map(|ns| (ns - START_NS) / MS);
    if until_ms != expected.time_wait_until_ms {
        return Err(format!(
            "is in TIME-WAIT until {until_ms:?} ms, expected {:?}",
            expected.time_wait_until_ms
        ));
    }
    Ok(())
}

impl Close {
    /// Whether a close record, which has one kind and one closer, is as expected.
    pub fn accepts(&self, got: &Close) -> bool {
        got.kinds.iter().all(|kind| self.kinds.contains(kind))
            && got.closers.iter().all(|closer| self.closers.contains(closer))
            && self.opener == got.opener
            && self.aborter == got.aborter
            && self.fins == got.fins
            && self.complete == got.complete
            && (self.state_lost.is_none() || got.state_lost.is_none() || self.state_lost == got.state_lost)
            && (self.confidence.is_none() || got.confidence.is_none() || self.confidence == got.confidence)
            && (self.bytes.is_none() || got.bytes.is_none() || self.bytes == got.bytes)
    }
}

/// The close record of a flow.
fn close_of(flow: &Flow, variant: Variant) -> Close {
    let closer = match flow.closer() {
        Closer::None => "none",
        Closer::One(end) => variant.name(end),
        Closer::Both => "both",
    };
    let opener = match flow.initiator() {
        Initiator::Unknown => "unknown",
        Initiator::One(end) => variant.name(end),
        Initiator::Both => "both",
    };
    let sent_fin = |end: &End| flow.sent_fin(variant.end(*end));
    Close {
        kinds: vec![flow.close_kind().name().into()],
        opener: opener.into(),
        closers: vec![closer.into()],
        aborter: flow.aborter().map_or("none", |end| variant.name(end)).into(),
        fins: [End::A, End::B]
            .iter()
            .filter(|end| sent_fin(end))
            .map(|end| variant.name(variant.end(*end)))
            .collect(),
        complete: flow.complete(),
        state_lost: Some(flow.state_lost()),
        confidence: Some(flow.coverage().name().into()),
        bytes: Some([End::A, End::B].map(|end| flow.payload_bytes(variant.end(end)))),
    }
}
