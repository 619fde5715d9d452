//! A connection that is older than the tap: its flow starts with the state of the local host's socket
//! (R25).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tcp_common::flow::SocketReport;
use tcp_common::{Cause, End, Flow, Rules, Segment, State};
use testkit::model::{Script, Seen, World, random_bytes};

/// Runs of two endpoints over a bad network, each adopted at some point.
const RUNS: u64 = 100_000;

/// The states in which a host reports its socket.
const REPORTED: [State; 7] = [
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

#[test]
fn the_local_end_of_an_adopted_connection_is_right_at_rest() {
    let mut checked: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..RUNS {
        if let Some(adopted_in) = follow(seed) {
            *checked.entry(adopted_in.name()).or_default() += 1;
        }
    }
    for state in REPORTED {
        assert!(checked.get(state.name()).is_some_and(|&count| count >= 20), "{state:?}: {checked:?}");
    }
}

#[test]
fn silence_before_the_adoption_is_reported_and_does_not_count() {
    const DAY_NS: u64 = 86_400_000_000_000;
    let adopted_ns = 100 * DAY_NS;
    let report = SocketReport {
        state: State::CloseWait,
        last_ns: adopted_ns - 9 * DAY_NS,
        time_wait_at_ns: 0,
        wscale: None,
    };
    let mut flow = Flow::adopted(adopted_ns, End::A, &report).expect("a connection");
    assert_eq!(flow.last_ns(), report.last_ns);
    let limit_ns = Rules::AGENT.silence_ns[State::CloseWait as usize];
    assert_eq!(flow.due_ns(&Rules::AGENT), Some(adopted_ns + limit_ns));
    assert_eq!(flow.tick(adopted_ns + limit_ns - 1, &Rules::AGENT).cause, Cause::Nothing);
    assert_eq!(flow.tick(adopted_ns + limit_ns, &Rules::AGENT).cause, Cause::Silence);
}

/// Runs one seed. Returns the state in which the local end was adopted; `None` if it never was, or if
/// no tap could follow.
fn follow(seed: u64) -> Option<State> {
    let bytes = random_bytes(seed, 300);
    let mut script = Script::new(&bytes);
    let mut world = World::new(&mut script);
    let (mut adopted, mut log) = (None, String::new());
    while !script.is_over() {
        let seen = world.step(&mut script);
        match &mut adopted {
            Some((_, flow)) => see(flow, &world, seen, &mut log),
            None if script.below(8) == 0 => adopted = adopt(&mut world),
            None => {}
        }
    }
    let (state, mut flow) = adopted?;
    let at_rest = world.come_to_rest(|world, seen| see(&mut flow, world, seen, &mut log));
    if world.beyond || world.ends.iter().any(|end| end.crashed) {
        return None;
    }
    let (said, truth) = (plain(flow.state(End::A)), plain(world.state(End::A)));
    assert!(at_rest && said == truth, "{seed}: adopted in {state:?}, {said:?}, truly {truth:?}\n{log}");
    Some(state)
}

/// Adopts the local end if everything sent has arrived, except for a FIN of the local end.
fn adopt(world: &mut World) -> Option<(State, Flow)> {
    let [own, peer] = &world.ends;
    let fin = u64::from(matches!(own.state, State::FinWait1 | State::Closing | State::LastAck));
    let is_silent = own.unacknowledged() == fin
        && peer.unacknowledged() == 0
        && peer.state != State::SynReceived
        && own.blocks_held() == 0;
    if !is_silent {
        return None;
    }
    let report = SocketReport {
        state: own.state,
        last_ns: world.now_ns,
        time_wait_at_ns: own.time_wait_at_ns,
        wscale: None,
    };
    let flow = Flow::adopted(world.now_ns, End::A, &report)?;
    assert_eq!(flow.state(End::A), report.state);
    assert_eq!(flow.time_wait_deadline_ns(End::A, &Rules::RFC).is_some(), report.state == State::TimeWait);
    world.lose_everything();
    Some((report.state, flow))
}

fn see(flow: &mut Flow, world: &World, seen: Vec<Seen>, log: &mut String) {
    for Seen { at_ns, sender, segment } in seen {
        let outcome = flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
        let Segment { seq, ack, payload_len, .. } = segment;
        let truth = [world.state(End::A), world.state(End::B)];
        let kind = segment.kind();
        _ = writeln!(
            log,
            "{sender:?} {kind:?} {seq} ack {ack} len {payload_len}: {:?} {:?}, truly {truth:?}",
            outcome.cause, outcome.to
        );
    }
    flow.tick(world.now_ns, &Rules::RFC);
}

/// LISTEN as CLOSED: an observer cannot distinguish two ends without a connection.
fn plain(state: State) -> State {
    if state == State::Listen { State::Closed } else { state }
}
