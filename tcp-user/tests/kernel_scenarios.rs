//! Every scenario through the loaded kernel programs (`BPF_PROG_TEST_RUN`) with the scenario's own clock.
//! States, close records and flow records must equal those of the pure machine.

use std::cell::RefCell;

use finwait::kernel::{Events, Kernel, LoadOptions, Prefix, ProgramName};
use tcp_common::record::event_kind;
use tcp_common::wire::IcmpError;
use tcp_common::{End, Flow, Ignored, Outcome, Previous, Rules, Segment};
use testkit::frames;
use testkit::scenario::{QuotingError, StateMachine, Variant, check, load};

/// Which program handles the segments that local ends send, and which handles all others.
#[derive(Clone, Copy)]
struct Hooks {
    local: [bool; 2],
    ingress: ProgramName,
}

/// The positions of the observer: in the middle, at either end, and on the host of both ends, whose segments
/// all leave it.
const PLACES: [Hooks; 5] = [
    Hooks { local: [false, false], ingress: ProgramName::Xdp },
    Hooks { local: [false, false], ingress: ProgramName::In },
    Hooks { local: [true, false], ingress: ProgramName::Xdp },
    Hooks { local: [false, true], ingress: ProgramName::In },
    Hooks { local: [true, true], ingress: ProgramName::In },
];

struct InKernel<'a> {
    kernel: &'a mut Kernel,
    events: &'a RefCell<Events>,
    ingress: ProgramName,
    variant: Variant,
    earlier: Vec<Flow>,
    pure: Flow,
    rules: Rules,
    differences: Vec<String>,
}

impl InKernel<'_> {
    /// Returns the flow's slot, if it has one.
    fn index(&self) -> Option<u32> {
        self.kernel.table().find(&frames::key())
    }

    fn flow(&self) -> Flow {
        let entry = self.index().and_then(|index| self.kernel.table().read(index));
        entry.map_or(Flow::EMPTY, |entry| entry.flow)
    }

    fn compare(&mut self, what: &str) {
        let (flow, pure) = (self.flow(), self.pure);
        if pure.is_empty() && flow.is_empty() {
            return;
        }
        if flow != pure {
            self.differences.push(format!("after {what}:\n kernel {flow:?}\n   pure {pure:?}"));
        }
    }
}

impl InKernel<'_> {
    /// Runs a program on a frame that this end has sent.
    fn run(&mut self, now_ns: u64, sender: End, frame: &[u8]) {
        self.kernel.set_clock_ns(now_ns).expect("setting the clock");
        let program = if self.variant.is_local(sender) { ProgramName::Out } else { self.ingress };
        let verdict = self.kernel.test_run(program, frame, 1).expect("running").0;
        let expected = if program == ProgramName::Xdp { 2 } else { u32::MAX };
        assert_eq!(verdict, expected, "the verdict is constant");
        let rules = self.rules;
        let earlier = &mut self.earlier;
        self.events.borrow_mut().drain(usize::MAX, |event| {
            if event.kind == event_kind::PREVIOUS {
                let mut flow = event.flow;
                flow.end_previous(
                    event.at_ns,
                    Previous::from_repr(event.previous).expect("a Previous"),
                    &rules,
                );
                earlier.push(flow);
            }
        });
    }

    fn set_reported(&mut self, outcome: &Outcome) {
        if outcome.is_transition() {
            self.pure.report();
        }
    }
}

impl StateMachine for InKernel<'_> {
    fn segment(&mut self, now_ns: u64, sender: End, segment: &Segment) -> Flow {
        self.run(now_ns, sender, &frames::frame(sender, segment));
        let outcome = self.pure.on_segment(now_ns, sender, segment, &self.rules);
        self.set_reported(&outcome);
        self.compare(&format!("{segment:?}"));
        self.flow()
    }

    fn icmp_error(&mut self, now_ns: u64, sender: End, quoted: &Segment, error: QuotingError) -> Flow {
        let QuotingError { kind, code } = error;
        // The error comes from the other side.
        self.run(now_ns, sender.peer(), &frames::icmp_error(&frames::frame(sender, quoted), kind, code));
        if let Some(error) = IcmpError::new(4, kind, code) {
            let outcome = self.pure.on_icmp_error(now_ns, sender, quoted.seq, error, 4, &self.rules);
            self.set_reported(&outcome);
        }
        self.compare(&format!("ICMP {kind}/{code}"));
        self.flow()
    }

    fn tick(&mut self, now_ns: u64) -> Flow {
        if let Some(mut slot) = self.index().and_then(|index| self.kernel.table().try_lock(index)) {
            slot.tick(now_ns, &self.rules);
        }
        self.pure.tick(now_ns, &self.rules);
        self.compare("a tick");
        self.flow()
    }

    fn earlier(&self) -> Vec<Flow> {
        self.earlier.clone()
    }
}

fn run_all(kernel: &mut Kernel, events: &RefCell<Events>, Hooks { local, ingress }: Hooks) {
    let (mut runs, mut failures) = (0, Vec::new());
    for scenario in load() {
        if !scenario.holds(local) {
            continue;
        }
        for isn in scenario.isn_pairs() {
            for (swapped, doubled) in [(false, false), (true, false), (false, true), (true, true)] {
                let variant = Variant { isn, swapped, doubled, local };
                let rules = scenario.rules;
                kernel.table().clear();
                kernel.set_rules(rules).expect("setting the rules");
                let own = [End::A, End::B].into_iter().filter(|&end| variant.is_local(end));
                let prefixes =
                    own.map(|end| Prefix { address: frames::address(end).into(), len: 32 }).collect();
                kernel.set_local_prefixes(prefixes).expect("setting the addresses of the host");
                let mut tracker = InKernel {
                    kernel,
                    events,
                    ingress,
                    variant,
                    earlier: Vec::new(),
                    pure: variant.empty(),
                    rules,
                    differences: Vec::new(),
                };
                runs += 1;
                let result = check(&scenario, variant, &mut tracker);
                assert!(tracker.kernel.table().entries().count() <= 1, "one flow, one slot");
                if let Err(message) = result {
                    failures.push(format!("{} {variant:?}: {message}", scenario.id));
                }
                failures.extend(
                    tracker.differences.drain(..).map(|d| format!("{} {variant:?} {d}", scenario.id)),
                );
            }
        }
    }
    let counters = kernel.counters().expect("counters");
    assert!(runs > 2_000, "only {runs} runs");
    assert!(failures.is_empty(), "{} failures in {runs} runs, the first:\n{}", failures.len(), failures[0]);
    assert_eq!(
        counters.packets_seen(),
        counters.packets_tracked() + counters.ignored.iter().sum::<u64>(),
        "every packet in one counter"
    );
    assert_eq!(counters.events_lost, 0);
    assert_eq!(counters.ignored[Ignored::Malformed as usize], 0);
    println!("{}, of this host {local:?}: {runs} runs", ingress.name());
}

/// This is one test, because loading takes a minute on a kernel without hardware virtualization.
#[test]
#[ignore = "needs root"]
fn through_xdp_and_tc() {
    let options =
        LoadOptions { rules: Rules::RFC, max_flows: 64, max_flows_v6: 64, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    let events = RefCell::new(kernel.take_events().expect("the ring is ours"));
    for place in PLACES {
        run_all(&mut kernel, &events, place);
    }
    for (name, count) in kernel.verified_instructions() {
        println!("verifier walked {count} instructions for {name}");
    }
}
