//! The scenarios of `conformance/scenarios.toml`, and how a state machine is checked against one.
use serde::Deserialize;
use tcp_common::flow::{Closer, Opener};
use tcp_common::{CloseKind, End, Flags, Flow, Outcome, Rules, Segment, State, flow::Previous};

/// The pairs of initial sequence numbers that every scenario is run with.
pub const ISN_PAIRS: [(u32, u32); 5] = [
    (1000, 5000),
    (0, 0),
    (4_294_967_295, 4_294_967_290),
    (2_147_483_647, 2_147_483_640),
    (4_294_967_294, 4_294_967_294),
];

/// One way to run a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The initial sequence numbers of ends a and b.
    pub isn: (u32, u32),
    /// Whether the scenario's end a is end B of the flow's key.
    pub swapped: bool,
    /// Whether every segment is seen twice.
    pub doubled: bool,
    /// Whether the scenario's ends a and b are on the observer's own host.
    pub local: [bool; 2],
}

impl Variant {
    /// Whether this end of the flow's key is on the observer's own host.
    pub fn is_local(&self, end: End) -> bool {
        self.local[usize::from((end == End::B) != self.swapped)]
    }

    /// A flow of which only the location of its ends is known.
    pub fn empty(&self) -> Flow {
        let mut flow = Flow::EMPTY;
        for end in [End::A, End::B] {
            flow.set_local(end, self.is_local(end));
        }
        flow
    }
}

#[derive(Deserialize)]
struct File {
    format: u32,
    scenario: Vec<Scenario>,
}

/// A scenario: segments, and what is right about both ends after each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, `S001` for example.
    pub id: String,
    /// What happens in it.
    pub title: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "tags")]
    _tags: Vec<String>,
    /// The rules it is run with, and where it holds.
    #[serde(default)]
    pub cfg: Cfg,
    /// A pair of initial sequence numbers to run besides [`ISN_PAIRS`].
    pub isn: Option<Isn>,
    /// The steps in the order in which the tap sees them.
    pub steps: Vec<Step>,
    /// One close record per incarnation, as reported after the last step.
    #[serde(default)]
    pub close: Vec<Close>,
}

/// A pair of initial sequence numbers.
#[derive(Deserialize, Clone, Copy)]
pub struct Isn {
    /// That of end a.
    pub a: u32,
    /// That of end b.
    pub b: u32,
}

/// The configuration of a scenario.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Cfg {
    msl_ms: Option<u64>,
    rfc1337: Option<bool>,
    tw_restart: Option<String>,
    /// Holds only where this end is not on the observer's own host.
    far: Option<String>,
    /// Holds only where this end is on the observer's own host.
    near: Option<String>,
    #[serde(default)]
    timeouts: std::collections::BTreeMap<String, u64>,
}

/// One segment, or a tick of the clock, and the expected states after it.
#[derive(Deserialize)]
pub struct Step {
    /// When it happens, ms since the start of the scenario.
    pub at_ms: u64,
    /// Whether only the clock advances.
    #[serde(default)]
    pub tick: bool,
    from: Option<String>,
    flags: Option<String>,
    #[serde(default)]
    seq: i64,
    #[serde(default)]
    ack: i64,
    #[serde(default)]
    len: u32,
    win: Option<u16>,
    wscale: Option<u8>,
    ts: Option<[u32; 2]>,
    #[serde(default = "yes")]
    captured: bool,
    expect: Option<Pair<Vec<String>>>,
    proved: Option<Pair<String>>,
    tw_deadline_ms: Option<Pair<Option<u64>>>,
}

#[derive(Deserialize)]
struct Pair<T> {
    #[serde(default = "Option::default")]
    a: Option<T>,
    #[serde(default = "Option::default")]
    b: Option<T>,
}

/// The expected close record of one incarnation.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// Acceptable close kinds.
    pub kind: Vec<String>,
    /// The end that opened the connection: `a`, `b`, `both` or `unknown`.
    pub opener: String,
    /// Acceptable answers to which end closed first.
    pub closer: Vec<String>,
    /// The end that reset the connection.
    pub aborter: String,
    /// The ends that sent a FIN.
    pub fins: String,
    /// Whether both FINs were acknowledged.
    pub complete: bool,
    /// Whether an end lost its state, if it matters.
    #[serde(default)]
    pub state_lost: Option<bool>,
}

fn yes() -> bool {
    true
}

/// All scenarios.
///
/// # Panics
///
/// If the file is malformed.
pub fn load() -> Vec<Scenario> {
    let file: File = toml::from_str(include_str!("../../../conformance/scenarios.toml"))
        .expect("scenarios.toml is well formed");
    assert_eq!(file.format, 1);
    file.scenario
}

impl Cfg {
    /// Whether the scenario's expectations hold with these ends on the observer's own host.
    pub fn holds(&self, local: [bool; 2]) -> bool {
        let is_local = |end: &str| local[usize::from(end == "b")];
        !self.far.as_deref().is_some_and(is_local) && self.near.as_deref().is_none_or(is_local)
    }
}

/// The rules of a scenario's `cfg`.
pub fn rules(cfg: &Cfg) -> Rules {
    let mut rules = Rules::RFC;
    if let Some(msl_ms) = cfg.msl_ms {
        rules.time_wait_local_ns = 2 * msl_ms * MS;
        rules.time_wait_remote_ns = 2 * msl_ms * MS;
    }
    rules.rfc1337 = u32::from(cfg.rfc1337 == Some(true));
    if cfg.tw_restart.as_deref() == Some("linux") {
        rules.linux_restart_local = 1;
        rules.linux_restart_remote = 1;
    }
    for (name, ms) in &cfg.timeouts {
        let states: &[State] = match name.as_str() {
            "syn_sent" => &[State::SynSent],
            "syn_recv" => &[State::SynReceived],
            "established" => &[State::Established],
            "fin_wait" => &[State::FinWait1, State::FinWait2],
            "close_wait" => &[State::CloseWait],
            "last_ack" => &[State::LastAck, State::Closing],
            other => panic!("unknown timeout {other}"),
        };
        for &state in states {
            rules.silence_ns[state as usize] = ms * MS;
        }
    }
    rules
}

const MS: u64 = 1_000_000;
/// The machine's clock at the start of a scenario; not 0, because 0 must mean nothing special to the
/// machine.
const START_NS: u64 = 3_600_000_000_000;

/// When a step happens, on the machine's clock.
pub fn at_ns(step: &Step) -> u64 {
    START_NS + step.at_ms * MS
}

/// The end of the flow's key that the scenario's end `a` or `b` is.
pub fn end_of(name: &str, swapped: bool) -> End {
    match (name, swapped) {
        ("a", false) | ("b", true) => End::A,
        ("b", false) | ("a", true) => End::B,
        other => panic!("unknown end {other:?}"),
    }
}

/// The sender and the segment of a step, or `None` if the tap sees none.
pub fn segment(step: &Step, variant: Variant) -> Option<(End, Segment)> {
    if step.tick || !step.captured {
        return None;
    }
    let from = step.from.as_deref().expect("a segment has a sender");
    let (own, peer) = match from {
        "a" => variant.isn,
        _ => (variant.isn.1, variant.isn.0),
    };
    let mut flags = 0;
    for letter in step.flags.as_deref().expect("a segment has flags").chars() {
        flags |= match letter {
            'S' => Flags::SYN,
            'A' => Flags::ACK,
            'F' => Flags::FIN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            'U' => Flags::URG,
            'E' => Flags::ECE,
            'W' => Flags::CWR,
            'N' => 0,
            other => panic!("unknown flag {other}"),
        };
    }
    let acks = flags & Flags::ACK != 0;
    let mut segment = Segment {
        seq: own.wrapping_add(step.seq as u32),
        ack: if acks { peer.wrapping_add(step.ack as u32) } else { 0 },
        payload_len: step.len,
        window: step.win.unwrap_or(65_535),
        flags: Flags(flags),
        wire_segments: 1,
        ..Segment::default()
    };
    if let Some(shift) = step.wscale {
        segment.wscale = shift;
        segment.options |= Segment::HAS_WSCALE;
    }
    if let Some([value, echo]) = step.ts {
        segment.tsval = value;
        segment.tsecr = echo;
        segment.options |= Segment::HAS_TIMESTAMP;
    }
    Some((end_of(from, variant.swapped), segment))
}

/// A state machine under test: the pure one, or that of the kernel programs.
pub trait Tracker {
    /// Feeds one segment and returns the flow after it.
    fn segment(&mut self, now_ns: u64, sender: End, segment: &Segment) -> Flow;
    /// Advances the clock and returns the flow.
    fn tick(&mut self, now_ns: u64) -> Flow;
    /// The earlier incarnations of the flow, oldest first.
    fn earlier(&self) -> Vec<Flow>;
}

struct Pure {
    flow: Flow,
    rules: Rules,
    earlier: Vec<Flow>,
}

impl Tracker for Pure {
    fn segment(&mut self, now_ns: u64, sender: End, segment: &Segment) -> Flow {
        let mut before = self.flow;
        let outcome: Outcome = self.flow.on_segment(now_ns, sender, segment, &self.rules);
        if outcome.previous != Previous::None {
            before.end_previous(now_ns, outcome.previous, &self.rules);
            self.earlier.push(before);
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

/// Runs a scenario through the pure machine.
pub fn run(scenario: &Scenario, variant: Variant) -> Result<(), String> {
    let rules = rules(&scenario.cfg);
    check(scenario, variant, &mut Pure { flow: variant.empty(), rules, earlier: Vec::new() })
}

/// Runs a scenario through a state machine under test.
pub fn check(scenario: &Scenario, variant: Variant, tracker: &mut impl Tracker) -> Result<(), String> {
    let rules = rules(&scenario.cfg);
    let mut flow = Flow::EMPTY;
    let mut any = false;
    for (index, step) in scenario.steps.iter().enumerate() {
        let now_ns = at_ns(step);
        if step.tick {
            flow = tracker.tick(now_ns);
        } else if let Some((sender, segment)) = segment(step, variant) {
            any = true;
            flow = tracker.segment(now_ns, sender, &segment);
            if variant.doubled {
                flow = tracker.segment(now_ns, sender, &segment);
            }
        } else {
            continue;
        }
        check_step(step, variant, &flow, &rules)
            .map_err(|e| format!("step {index} at {} ms: {e}", step.at_ms))?;
    }
    assert!(any, "{}: no segment at all", scenario.id);
    let mut records = tracker.earlier();
    if !flow.is_empty() {
        records.push(flow);
    }
    if records.len() != scenario.close.len() {
        return Err(format!("{} incarnations, expected {}", records.len(), scenario.close.len()));
    }
    for (index, (record, expected)) in records.iter().zip(&scenario.close).enumerate() {
        check_close(record, expected, variant).map_err(|e| format!("close record {index}: {e}"))?;
    }
    Ok(())
}

fn check_step(step: &Step, variant: Variant, flow: &Flow, rules: &Rules) -> Result<(), String> {
    let Some(expect) = &step.expect else { return Ok(()) };
    for (name, expected) in [("a", &expect.a), ("b", &expect.b)] {
        let end = end_of(name, variant.swapped);
        let state = spell(flow.state(end));
        let acceptable = expected.as_ref().expect("both ends are named");
        if !acceptable.contains(&state) {
            return Err(format!("{name} is {state}, expected one of {acceptable:?}"));
        }
        if let Some(proved) = &step.proved {
            let (got, wanted) = (spell(flow.proved(end)), if name == "a" { &proved.a } else { &proved.b });
            if wanted.as_ref().is_some_and(|wanted| *wanted != got) {
                return Err(format!("{name} proves {got}, expected {wanted:?}"));
            }
        }
        let deadline = flow.time_wait_deadline_ns(end, rules).map(|ns| (ns - START_NS) / MS);
        let wanted =
            step.tw_deadline_ms.as_ref().and_then(|pair| if name == "a" { pair.a } else { pair.b }).flatten();
        if deadline != wanted {
            return Err(format!("{name}'s TIME-WAIT ends at {deadline:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

fn check_close(flow: &Flow, expected: &Close, variant: Variant) -> Result<(), String> {
    let letter = |end| if (end == End::A) != variant.swapped { "a" } else { "b" };
    let kind: CloseKind = flow.close_kind();
    let closer = match flow.closer() {
        Closer::None => "none",
        Closer::One(end) => letter(end),
        Closer::Both => "both",
    };
    let opener = match flow.opener() {
        Opener::Unknown => "unknown",
        Opener::One(end) => letter(end),
        Opener::Both => "both",
    };
    let aborter = flow.aborter().map_or("none", letter);
    let mut fins = String::new();
    for name in ["a", "b"] {
        if flow.sent_fin(end_of(name, variant.swapped)) {
            fins.push_str(name);
        }
    }
    let got = format!(
        "{} opener {opener} closer {closer} aborter {aborter} fins {fins} {}",
        kind.name(),
        flow.complete()
    );
    let right = expected.kind.iter().any(|k| k == kind.name())
        && expected.opener == opener
        && expected.closer.iter().any(|c| c == closer)
        && expected.aborter == aborter
        && expected.fins == fins
        && expected.complete == flow.complete()
        && expected.state_lost.is_none_or(|lost| lost == flow.state_lost());
    if right {
        Ok(())
    } else {
        Err(format!(
            "{got}, expected {:?} opener {} closer {:?} aborter {} fins {} {}",
            expected.kind,
            expected.opener,
            expected.closer,
            expected.aborter,
            expected.fins,
            expected.complete
        ))
    }
}

fn spell(state: State) -> String {
    state.name().to_ascii_uppercase()
}
