//! Checks which segments take the short path, by the programs' counters. Every in-order segment of an open or
//! half-closed connection takes it, except those that docs/FLOW_TABLE.md lists. The test computes their
//! number and requires equality on every hook and in both families, so it does not depend on the processor.

use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use tcp_common::record::predicted;
use tcp_common::{End, Flags, Rules, Segment};
use testkit::frames::{self, segment};

const ACK: u8 = Flags::ACK;
/// Payload of a data segment, bytes.
const MSS: u32 = 1448;
/// Number of segments of one direction that the slot can count before the machine must add them to the flow.
const COUNTED_IN_SLOT: u32 = (1 << 14) - 1;
/// Rounds of a data segment and its ACK, more than the slot can count.
const MANY: u32 = COUNTED_IN_SLOT + 1_000;
const FEW: u32 = 10;
const PORT_A: u16 = 40_000;

/// The hooks that see a connection's two directions: `[from A, from B]`.
const HOOKS: [[ProgramName; 2]; 4] = [
    [ProgramName::Xdp, ProgramName::Out],
    [ProgramName::Out, ProgramName::Xdp],
    [ProgramName::In, ProgramName::Out],
    [ProgramName::Out, ProgramName::In],
];

/// One end and its next sequence number.
struct Sender {
    seq: u32,
    /// Segments since the machine last processed the flow.
    counted: u32,
}

/// A connection through the loaded programs, with the expected number of segments on the short path.
struct Conversation<'a> {
    kernel: &'a mut Kernel,
    hooks: [ProgramName; 2],
    ipv6: bool,
    now_ns: u64,
    ends: [Sender; 2],
    /// Expected segments on the short path by direction and kind, as in `Counters::predicted`.
    short: [[u64; predicted::COUNT]; 2],
    /// Expected segments that the whole machine processes.
    machine: u64,
}

impl Conversation<'_> {
    /// Advances the clock.
    fn wait_ns(&mut self, duration_ns: u64) {
        self.now_ns += duration_ns;
        self.kernel.set_clock_ns(self.now_ns).expect("setting the clock");
    }

    fn send(&mut self, sender: End, segment: &Segment) {
        let frame = if self.ipv6 {
            frames::frame_v6_of(PORT_A, sender, segment)
        } else {
            frames::frame_of(PORT_A, sender, segment)
        };
        self.kernel.test_run(self.hooks[sender as usize], &frame, 1).expect("running");
        let own = &mut self.ends[sender as usize];
        let flags = segment.flags.0;
        let controls = u32::from(flags & Flags::SYN != 0) + u32::from(flags & Flags::FIN != 0);
        own.seq = segment.seq.wrapping_add(segment.payload_len + controls);
    }

    /// Sends a segment that only the machine can process.
    fn through_machine(&mut self, sender: End, flags: u8, payload_len: u32) {
        let segment = self.next(sender, flags, payload_len);
        self.send(sender, &segment);
        self.machine += 1;
        self.ends.iter_mut().for_each(|end| end.counted = 0);
    }

    /// Sends an ACK with or without payload. It is predicted, unless the slot's counter is full or the
    /// sequence number crosses the middle of its space.
    fn predicted(&mut self, sender: End, payload_len: u32) {
        let segment = self.next(sender, ACK, payload_len);
        let own = &self.ends[sender as usize];
        let crosses_half = (segment.seq ^ segment.seq.wrapping_add(payload_len)) >> 31 != 0;
        if own.counted == COUNTED_IN_SLOT || crosses_half {
            return self.through_machine(sender, ACK, payload_len);
        }
        self.send(sender, &segment);
        self.ends[sender as usize].counted += 1;
        let direction = usize::from(matches!(self.hooks[sender as usize], ProgramName::Out));
        let kind = if payload_len == 0 { predicted::ACK } else { predicted::DATA };
        self.short[direction][kind] += 1;
    }

    fn next(&self, sender: End, flags: u8, payload_len: u32) -> Segment {
        let ack = if flags & ACK == 0 { 0 } else { self.ends[sender.peer() as usize].seq };
        segment(flags, self.ends[sender as usize].seq, ack, payload_len)
    }

    /// Sends the handshake and the server's first data, which proves that the server is ESTABLISHED.
    fn open(&mut self) {
        self.through_machine(End::A, Flags::SYN, 0);
        self.through_machine(End::B, Flags::SYN | ACK, 0);
        self.through_machine(End::A, ACK, 0);
        self.through_machine(End::B, ACK, MSS);
        self.predicted(End::A, 0);
    }

    fn bulk(&mut self, sender: End, rounds: u32) {
        for _ in 0..rounds {
            self.predicted(sender, MSS);
            self.predicted(sender.peer(), 0);
        }
    }

    fn check(&self, what: &str) {
        let counters = self.kernel.counters().expect("counters");
        let what = format!("{what}, {:?}, IPv6: {}", self.hooks, self.ipv6);
        assert_eq!(counters.predicted, self.short, "{what}: the short path, by direction and kind");
        assert_eq!(counters.seen, self.machine, "{what}: all other segments go through the machine");
        assert_eq!(counters.tracked, counters.seen, "{what}: every segment belongs to the flow");
    }
}

#[test]
#[ignore = "needs root"]
fn every_in_order_segment_takes_the_short_path_but_the_listed_ones() {
    let options = LoadOptions { rules: RULES, max_flows: 64, max_flows_v6: 64, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs");
    let mut talk = Conversation {
        kernel: &mut kernel,
        hooks: HOOKS[0],
        ipv6: false,
        now_ns: 1_000_000_000_000,
        ends: [Sender { seq: 0, counted: 0 }, Sender { seq: 0, counted: 0 }],
        short: [[0; predicted::COUNT]; 2],
        machine: 0,
    };
    for ipv6 in [false, true] {
        for hooks in HOOKS {
            for closer in [End::A, End::B] {
                talk.kernel.table().clear();
                (talk.ipv6, talk.hooks) = (ipv6, hooks);
                one_connection(&mut talk, closer);
            }
        }
    }
}

fn one_connection(talk: &mut Conversation<'_>, closer: End) {
    // B's sequence numbers cross the middle of their space during the connection.
    let before_middle = (1u32 << 31) - 500 * MSS - 7;
    talk.ends = [Sender { seq: 999, counted: 0 }, Sender { seq: before_middle, counted: 0 }];
    talk.wait_ns(1_000);
    talk.open();
    talk.check("open");
    talk.bulk(End::B, MANY);
    talk.bulk(End::A, FEW);
    talk.check("bulk");

    // Silence does not end the short path until it reaches the idle timeout.
    talk.wait_ns(RULES.steady_silence_ns() - 1);
    talk.bulk(End::A, FEW);
    talk.check("silence shorter than the idle timeout");
    // After the idle timeout the connection is CLOSED. A segment of each end, with data or the ACK of data,
    // opens it midstream.
    talk.wait_ns(RULES.steady_silence_ns());
    talk.through_machine(End::A, ACK, 0);
    talk.through_machine(End::A, ACK, MSS);
    talk.through_machine(End::B, ACK, 0);
    talk.bulk(End::A, FEW);
    talk.check("picked up again");

    // The machine processes the FIN, its ACK, the first data towards the closer and its ACK: they determine
    // the close kind.
    let open = closer.peer();
    talk.through_machine(closer, Flags::FIN | ACK, 0);
    talk.through_machine(open, ACK, 0);
    talk.through_machine(open, ACK, MSS);
    talk.through_machine(closer, ACK, 0);
    talk.check("half close");
    talk.bulk(open, MANY);
    talk.check("half-closed");

    talk.through_machine(open, Flags::FIN | ACK, 0);
    talk.through_machine(closer, ACK, 0);
    talk.check("closed");
}

const RULES: Rules = Rules::AGENT;
