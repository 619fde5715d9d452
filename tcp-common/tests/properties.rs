//! Properties that hold for every stream of segments.
//!
//! The seed is fixed, so each run has the same cases. A case that fails is written to
//! `properties.regressions`, beside this file, and runs first from then on.

mod edges;

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseResult};
use tcp_common::flow::Closer;
use tcp_common::{CloseKind, End, Flags, Flow, Outcome, Previous, Rules, Segment, State};
use testkit::model::{Hostile, Script, Seen, Witness, World};

fn config(cases: u32) -> Config {
    let regressions = FileFailurePersistence::Direct("tests/properties.regressions");
    Config {
        cases,
        rng_seed: RngSeed::Fixed(9_293),
        failure_persistence: Some(Box::new(regressions)),
        ..Config::default()
    }
}

fn script(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..longest)
}

proptest! {
    #![proptest_config(config(6_000))]

    /// The local end at every step, the remote end at rest, and the close record as the endpoints closed.
    #[test]
    fn the_machine_follows_two_model_endpoints(bytes in script(700)) {
        follow(&bytes)?;
    }

    /// Swapping the ends of every segment swaps the ends of the flow.
    #[test]
    fn the_machine_is_symmetric_in_the_ends(bytes in script(900)) {
        let mut script = Script::new(&bytes);
        let mut hostile = Hostile::new(&mut script);
        let (mut flow, mut mirror) = (Flow::EMPTY, Flow::EMPTY);
        while !script.is_over() {
            let (sender, segment) = hostile.next(&mut script);
            let outcome = flow.on_segment(hostile.now_ns, sender, &segment, &Rules::AGENT);
            let mirrored = mirror.on_segment(hostile.now_ns, sender.peer(), &segment, &Rules::AGENT);
            prop_assert_eq!(flow.mirrored(), mirror);
            prop_assert_eq!(mirror_outcome(outcome), mirrored);
            prop_assert_eq!(flow.close_kind(), mirror.close_kind());
            prop_assert_eq!(mirror_closer(flow.closer()), mirror.closer());
            prop_assert_eq!(flow.aborter().map(End::peer), mirror.aborter());
        }
    }
}

proptest! {
    #![proptest_config(config(3_000))]

    /// With the agent's limits every flow ends: at the deadlines it gives, and not before.
    #[test]
    fn the_clock_ends_every_flow(bytes in script(300)) {
        let (mut flow, mut now_ns) = after_hostile(&bytes, |_, _, _| {});
        flow.tick(now_ns, &Rules::AGENT);
        for _ in 0..6 {
            let Some(deadline_ns) = flow.next_deadline_ns(&Rules::AGENT) else { break };
            let before = flow;
            flow.tick(deadline_ns.saturating_sub(1).max(now_ns), &Rules::AGENT);
            prop_assert_eq!(before, flow, "nothing is due before the deadline");
            now_ns = now_ns.max(deadline_ns);
            let outcome = flow.tick(now_ns, &Rules::AGENT);
            prop_assert!(outcome.is_transition(), "something is due at {deadline_ns}: {flow:?}");
        }
        prop_assert!(flow.is_empty() || flow.is_over(), "{flow:?}");
    }

    /// A RST at RCV.NXT ends the incarnation, whatever came before (R12, R13), unless it is that of an end in
    /// TIME-WAIT whose peer is CLOSED: nothing was seen that it could answer.
    #[test]
    fn an_exact_reset_ends_every_flow(bytes in script(300), from_b in any::<bool>()) {
        let (mut flow, now_ns) = after_hostile(&bytes, |_, _, _| {});
        let sender = if from_b { End::B } else { End::A };
        let (own, peer) = (*flow.end(sender), *flow.end(sender.peer()));
        if flow.is_empty() || flow.is_over() || (own.rcv_nxt() == 0 && own.segments() == 0) {
            return Ok(());
        }
        let answers_nothing =
            flow.state(sender) == State::TimeWait && flow.state(sender.peer()) == State::Closed;
        let ack = if flow.state(sender.peer()) == State::SynSent { peer.first_seq() } else { peer.rcv_nxt() };
        let flags = Flags(Flags::RST | Flags::ACK);
        let reset = Segment { seq: own.rcv_nxt(), ack, flags, wire_segments: 1, ..Segment::default() };
        let incarnation = flow.incarnation();
        flow.on_segment(now_ns, sender, &reset, &Rules::RFC);
        let ended = flow.is_over() || flow.incarnation() != incarnation;
        prop_assert_eq!(ended, !answers_nothing, "{:?}", flow);
    }

    /// The second of two equal segments in a row changes no state.
    #[test]
    fn a_duplicate_changes_no_state(bytes in script(600)) {
        let mut script = Script::new(&bytes);
        let mut world = World::new(&mut script);
        let mut flow = Flow::EMPTY;
        while !script.is_over() {
            for Seen { at_ns, sender, segment } in world.step(&mut script) {
                flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
                let before = flow;
                let outcome = flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
                prop_assert!(!outcome.is_transition(), "{segment:?} {outcome:?}");
                prop_assert_eq!(facts_of_close(&before), facts_of_close(&flow));
            }
        }
    }

    /// Each segment makes one transition of the RFC, or one correction.
    #[test]
    fn segments_of_model_endpoints_make_single_transitions(bytes in script(600)) {
        let mut script = Script::new(&bytes);
        let mut world = World::new(&mut script);
        let mut flow = Flow::EMPTY;
        while !script.is_over() {
            for Seen { at_ns, sender, segment } in world.step(&mut script) {
                let outcome = flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
                for (from, to) in outcome.from.into_iter().zip(outcome.to) {
                    let fine = edges::is_rfc(from, to) || edges::corrects(from, to, segment.kind());
                    prop_assert!(fine, "{from:?} -> {to:?} by {:?} of {segment:?}", outcome.cause);
                }
            }
        }
    }

    /// After missed segments one segment may make several transitions, but corrects a state only with
    /// evidence.
    #[test]
    fn hostile_segments_make_transitions_of_the_same_table(bytes in script(500)) {
        let mut wrong = Ok(());
        after_hostile(&bytes, |_, outcome, segment| {
            for (from, to) in outcome.from.into_iter().zip(outcome.to) {
                if wrong.is_ok() && !edges::is_path(from, to, segment.kind()) {
                    let cause = outcome.cause;
                    wrong = Err(TestCaseError::fail(format!("{from:?} -> {to:?} by {cause:?} of {segment:?}")));
                }
            }
        });
        wrong?;
    }
}

/// Runs the model and feeds what its tap sees to the machine.
fn follow(bytes: &[u8]) -> TestCaseResult {
    let mut script = Script::new(bytes);
    let mut world = World::new(&mut script);
    let mut follower =
        Follower { flow: Flow::EMPTY, witness: Witness::default(), log: String::new(), wrong: Ok(()) };
    while !script.is_over() {
        let seen = world.step(&mut script);
        follower.see(&world, &seen);
    }
    let at_rest = world.come_to_rest(|world, seen| follower.see(world, &seen));
    prop_assert!(at_rest, "the model does not come to rest\n{}", follower.log);
    follower.wrong.clone()?;
    follower.check_remote(&world)?;
    follower.check_close(&world)
}

struct Follower {
    flow: Flow,
    witness: Witness,
    log: String,
    wrong: TestCaseResult,
}

impl Follower {
    fn see(&mut self, world: &World, seen: &[Seen]) {
        for seen @ Seen { at_ns, sender, segment } in seen {
            self.witness.watch(world, seen);
            let Outcome { cause, to, .. } = self.flow.on_segment(*at_ns, *sender, segment, &Rules::RFC);
            let Segment { seq, ack, payload_len, .. } = segment;
            let kind = segment.kind();
            let truth = [world.state(End::A), world.state(End::B)];
            _ = writeln!(
                self.log,
                "{sender:?} {kind:?} {seq} ack {ack} len {payload_len}: {cause:?} {to:?}, truly {truth:?}"
            );
        }
        self.flow.tick(world.now_ns, &Rules::RFC);
        if self.wrong.is_ok() && !world.beyond {
            self.wrong = self.check_local(world);
        }
    }

    fn check_local(&self, world: &World) -> TestCaseResult {
        let (said, truth) = (self.flow.state(End::A), world.state(End::A));
        prop_assert_eq!(plain(said), plain(truth), "the local end\n{}", self.log);
        let deadline_ns = self.flow.time_wait_deadline_ns(End::A, &Rules::RFC);
        let expected_ns = (truth == State::TimeWait)
            .then_some(world.ends[0].time_wait_at_ns + Rules::RFC.time_wait_remote_ns);
        prop_assert_eq!(deadline_ns, expected_ns, "TIME-WAIT of the local end\n{}", self.log);
        Ok(())
    }

    /// The remote end is right at rest, unless no segment can have shown its state: after a crash,
    /// after a RST that was lost on its way to an end in TIME-WAIT, or after a first copy of a FIN that
    /// the tap missed.
    fn check_remote(&self, world: &World) -> TestCaseResult {
        let (said, truth) = (self.flow.state(End::B), world.state(End::B));
        let in_time_wait_unknowingly =
            truth == State::TimeWait && (world.lost_reset || !self.witness.is_exact());
        if !world.ends[1].crashed && !in_time_wait_unknowingly {
            prop_assert_eq!(plain(said), plain(truth), "the remote end at rest\n{}", self.log);
        }
        Ok(())
    }

    fn check_close(&self, world: &World) -> TestCaseResult {
        if !self.witness.is_exact() || world.ends[1].crashed || world.beyond {
            return Ok(());
        }
        if let (Some(closer), Some(kinds)) = (self.witness.closer(world), self.witness.kinds(world)) {
            prop_assert_eq!(self.flow.closer(), closer, "the closer\n{}", self.log);
            let kind = self.flow.close_kind();
            prop_assert!(kinds.contains(&kind), "{kind:?} is not among {kinds:?}\n{}", self.log);
        }
        Ok(())
    }
}

/// LISTEN as CLOSED: an observer cannot distinguish two ends without a connection.
fn plain(state: State) -> State {
    if state == State::Listen { State::Closed } else { state }
}

fn after_hostile(bytes: &[u8], mut see: impl FnMut(&Flow, &Outcome, &Segment)) -> (Flow, u64) {
    let mut script = Script::new(bytes);
    let mut hostile = Hostile::new(&mut script);
    let mut flow = Flow::EMPTY;
    while !script.is_over() {
        let (sender, segment) = hostile.next(&mut script);
        let outcome = flow.on_segment(hostile.now_ns, sender, &segment, &Rules::RFC);
        see(&flow, &outcome, &segment);
    }
    (flow, hostile.now_ns)
}

fn facts_of_close(flow: &Flow) -> (CloseKind, Closer, bool, u32) {
    (flow.close_kind(), flow.closer(), flow.complete(), flow.incarnation())
}

fn mirror_outcome(mut outcome: Outcome) -> Outcome {
    outcome.from.swap(0, 1);
    outcome.to.swap(0, 1);
    outcome.previous = match outcome.previous {
        Previous::AbortedByA => Previous::AbortedByB,
        Previous::AbortedByB => Previous::AbortedByA,
        other => other,
    };
    outcome
}

fn mirror_closer(closer: Closer) -> Closer {
    match closer {
        Closer::One(end) => Closer::One(end.peer()),
        other => other,
    }
}
