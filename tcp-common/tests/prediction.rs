//! Header prediction changes only the cost. A flow with predicted segments equals the flow of the full
//! state machine once the prediction is flushed, and the short parser agrees with the full one.

use proptest::prelude::*;
use tcp_common::flow::Prediction;
use tcp_common::record::short_hook;
use tcp_common::wire::plain::{self, Plain};
use tcp_common::wire::{Bytes as _, FirstHeader, parse};
use tcp_common::{End, Flags, Flow, FlowKey, FlowKey4, Rules, Segment, SegmentKind, TableKey as _};

/// The parts of a slot that a packet uses.
struct Resting {
    flow: Flow,
    prediction: Prediction,
    steady: bool,
    predicted: usize,
}

impl Resting {
    fn segment(&mut self, now_ns: u64, sender: End, segment: &Segment, rules: &Rules) {
        let tcp = header_of(segment);
        let tcp = tcp[..].header::<20>(0).expect("as long as that");
        let plain = Plain { key: (), sender: sender as usize, payload_len: segment.payload_len, tcp };
        let silence = rules.steady_silence_ns();
        let is_plain = segment.kind() == SegmentKind::Ack;
        let wire_segments = segment.wire_segments;
        let hook = self.prediction.directions[sender as usize].hook;
        if self.steady && is_plain && self.prediction.fits(&plain, wire_segments, hook, now_ns, silence) {
            self.prediction.apply(&plain, wire_segments, hook, now_ns);
            self.predicted += 1;
            return;
        }
        if self.steady {
            self.prediction.flush_into(&mut self.flow);
        }
        self.flow.on_segment(now_ns, sender, segment, rules);
        self.steady = self.prediction.renew(&self.flow);
    }

    fn settled(&self) -> Flow {
        let (mut flow, mut prediction) = (self.flow, self.prediction);
        if self.steady {
            prediction.flush_into(&mut flow);
        }
        flow
    }
}

/// The TCP header of a plain segment.
fn header_of(segment: &Segment) -> [u8; 20] {
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    header[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    header[14..16].copy_from_slice(&segment.window.to_be_bytes());
    header
}

/// One step of a conversation: mostly the next segment in order, sometimes anything.
#[derive(Clone, Debug)]
struct Step {
    from_b: bool,
    len: u32,
    flags: u8,
    seq_off: i32,
    ack_back: u32,
    window: u16,
    wire_segments: u16,
    tsval: Option<u32>,
    later_ns: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![3 => Just(0u32), 1 => Just(1), 3 => 1u32..3000, 1 => Just(1 << 30)];
    let flags = prop_oneof![
        40 => Just(Flags::ACK),
        8 => Just(Flags::ACK | Flags::PSH),
        1 => Just(Flags::ACK | Flags::FIN),
        1 => Just(Flags::SYN),
        1 => Just(Flags::RST | Flags::ACK),
    ];
    let seq_off = prop_oneof![16 => Just(0i32), 2 => Just(-1), 1 => -3000i32..3000];
    let ack_back = prop_oneof![8 => Just(0u32), 1 => 0u32..4000];
    let later_ns = prop_oneof![9 => 0u64..50_000_000, 1 => 0u64..500_000_000_000_000];
    let tsval = prop::option::of(0u32..100);
    (
        any::<bool>(),
        len,
        flags,
        seq_off,
        ack_back,
        any::<u16>(),
        prop_oneof![1u16..=64, 8_000..=Segment::MAX_WIRE_SEGMENTS],
        tsval,
        later_ns,
    )
        .prop_map(|(from_b, len, flags, seq_off, ack_back, window, wire_segments, tsval, later_ns)| {
            Step { from_b, len, flags, seq_off, ack_back, window, wire_segments, tsval, later_ns }
        })
}

fn handshake(isn: [u32; 2]) -> [(End, Segment); 4] {
    let segment = |flags, seq: u32, ack, payload_len| Segment {
        seq,
        ack,
        payload_len,
        window: 60_000,
        flags: Flags(flags),
        wscale: 7,
        options: if flags & Flags::SYN != 0 { Segment::HAS_WSCALE } else { 0 },
        wire_segments: 1,
        ..Segment::default()
    };
    let [a, b] = [isn[0].wrapping_add(1), isn[1].wrapping_add(1)];
    [
        (End::A, segment(Flags::SYN, isn[0], 0, 0)),
        (End::B, segment(Flags::SYN | Flags::ACK, isn[1], a, 0)),
        (End::A, segment(Flags::ACK, a, b, 7)),
        (End::B, segment(Flags::ACK, b, a.wrapping_add(7), 0)),
    ]
}

/// The FIN of one end and the ACK of the other.
fn half_close(flow: &Flow, closer: End) -> [(End, Segment); 2] {
    let [own, peer] = [closer, closer.peer()].map(|end| flow.end(end).snd_max());
    let fin = Segment { flags: Flags(Flags::FIN | Flags::ACK), ..plain(own, peer, 0) };
    [(closer, fin), (closer.peer(), plain(peer, own.wrapping_add(1), 0))]
}

fn plain(seq: u32, ack: u32, payload_len: u32) -> Segment {
    Segment { seq, ack, payload_len, flags: Flags(Flags::ACK), wire_segments: 1, ..Segment::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_flushed_flow_equals_that_of_the_machine(
        isn in any::<[u32; 2]>(),
        spoken in 3usize..=4,
        closer in prop_oneof![Just(None), Just(Some(End::A)), Just(Some(End::B))],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let rules = Rules::AGENT;
        let mut now_ns = 1_000_000_000_000;
        let mut pure = Flow::EMPTY;
        let mut resting =
            Resting { flow: Flow::EMPTY, prediction: Prediction::EMPTY, steady: false, predicted: 0 };
        for (sender, segment) in handshake(isn).into_iter().take(spoken) {
            pure.on_segment(now_ns, sender, &segment, &rules);
            resting.segment(now_ns, sender, &segment, &rules);
        }
        prop_assert!(resting.steady || spoken < 4, "a connection that has spoken is steady");
        for (sender, segment) in closer.map(|closer| half_close(&pure, closer)).into_iter().flatten() {
            pure.on_segment(now_ns, sender, &segment, &rules);
            resting.segment(now_ns, sender, &segment, &rules);
        }
        for step in steps {
            let sender = if step.from_b { End::B } else { End::A };
            let (own, peer) = (pure.end(sender).snd_max(), pure.end(sender.peer()).snd_max());
            let segment = Segment {
                seq: own.wrapping_add_signed(step.seq_off),
                ack: peer.wrapping_sub(step.ack_back),
                payload_len: step.len,
                window: step.window,
                flags: Flags(step.flags),
                wire_segments: step.wire_segments,
                tsval: step.tsval.unwrap_or_default(),
                options: step.tsval.map_or(0, |_| Segment::HAS_TIMESTAMP),
                ..Segment::default()
            };
            now_ns += step.later_ns;
            pure.on_segment(now_ns, sender, &segment, &rules);
            resting.segment(now_ns, sender, &segment, &rules);
            prop_assert_eq!(resting.settled(), pure, "after {:?} {:?}", sender, segment);
        }
    }
}

#[test]
fn an_open_connection_is_predicted() {
    let rules = Rules::AGENT;
    let mut resting =
        Resting { flow: Flow::EMPTY, prediction: Prediction::EMPTY, steady: false, predicted: 0 };
    for (sender, segment) in handshake([u32::MAX, 9]) {
        resting.segment(1_000, sender, &segment, &rules);
    }
    for round in 0..100u64 {
        for sender in [End::A, End::B] {
            let flow = resting.settled();
            let segment = plain(flow.end(sender).snd_max(), flow.end(sender.peer()).snd_max(), 1448);
            resting.segment(2_000 + round, sender, &segment, &rules);
        }
    }
    assert_eq!(resting.predicted, 200, "every segment in order is");
    assert_eq!(resting.settled().end(End::B).bytes(), 100 * 1448);
}

#[test]
fn a_half_closed_connection_is_predicted() {
    let rules = Rules::AGENT;
    for closer in [End::A, End::B] {
        let mut resting =
            Resting { flow: Flow::EMPTY, prediction: Prediction::EMPTY, steady: false, predicted: 0 };
        let take = |resting: &mut Resting, sender, segment: &Segment| {
            let before = resting.predicted;
            resting.segment(2_000, sender, segment, &rules);
            resting.predicted > before
        };
        for (sender, segment) in handshake([1, u32::MAX - 1000]) {
            take(&mut resting, sender, &segment);
        }
        for (sender, segment) in half_close(&resting.settled(), closer) {
            take(&mut resting, sender, &segment);
        }
        // Keepalives and their answers, though nothing was sent since.
        let [own, peer] = [closer, closer.peer()].map(|end| resting.settled().end(end).snd_max());
        for _ in 0..3 {
            assert!(take(&mut resting, closer, &plain(own.wrapping_sub(1), peer, 0)));
            assert!(take(&mut resting, closer.peer(), &plain(peer, own, 0)));
            assert!(take(&mut resting, closer.peer(), &plain(peer.wrapping_sub(1), own, 0)));
            assert!(take(&mut resting, closer, &plain(own, peer, 0)));
        }
        // The first data and its ACK show the form of the close; what follows is predicted.
        for round in 0..100 {
            let seq = peer.wrapping_add(round * 1448);
            let data = take(&mut resting, closer.peer(), &plain(seq, own, 1448));
            let ack = take(&mut resting, closer, &plain(own, seq.wrapping_add(1448), 0));
            assert_eq!((data, ack), (round > 0, round > 0), "round {round}");
        }
        let flow = resting.settled();
        assert_eq!(flow.end(closer.peer()).snd_max(), peer.wrapping_add(144_800));
        assert_eq!(flow.proved(closer), tcp_common::State::FinWait2);
        assert!(
            !take(&mut resting, closer, &plain(own, peer.wrapping_add(144_800), 10)),
            "data after the FIN"
        );
    }
}

const CASES: &str = include_str!("../../conformance/parse_cases.jsonl");

#[test]
fn the_short_parser_agrees_with_the_full_one() {
    let mut plain_ones = 0;
    for line in CASES.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let digits = case["frame"].as_str().expect("a frame");
        let frame: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits"))
            .collect();
        for len in 0..=frame.len() {
            plain_ones += compare(&frame[..len], FirstHeader::Ethernet);
            plain_ones += frame.get(14..len).map_or(0, |packet| compare(packet, FirstHeader::Ip));
        }
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut other = frame.clone();
                other[at] ^= 1 << bit;
                plain_ones += compare(&other, FirstHeader::Ethernet);
            }
        }
    }
    assert!(plain_ones > 500, "only {plain_ones} frames were plain");
}

/// Returns 1 for a plain segment.
fn compare(bytes: &[u8], link: FirstHeader) -> usize {
    let Some(start) = plain::start(bytes, link, None) else { return 0 };
    let read = match start.version {
        4 => plain::v4(bytes, start).map(|read| {
            let Plain { key, sender, payload_len, tcp } = read;
            Plain { key: FlowKey4::flow_key(&key), sender, payload_len, tcp }
        }),
        6 => plain::v6(bytes, start),
        _ => None,
    };
    let Some(read): Option<Plain<FlowKey, _>> = read else { return 0 };
    let parsed = parse(bytes, link, None).expect("what is plain is parsed");
    let segment = parsed.segment;
    assert_eq!(segment.kind(), SegmentKind::Ack);
    assert_eq!(
        (read.key, read.sender, read.seq(), read.ack(), read.payload_len, read.window()),
        (parsed.key, parsed.sender as usize, segment.seq, segment.ack, segment.payload_len, segment.window)
    );
    1
}

#[test]
fn no_hook_is_short_for_none() {
    assert!((0..1_000_000u32).all(|hook| short_hook(hook) != 0));
}
