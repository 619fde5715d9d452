//! Segments in orders that no TCP implementation sends: every kind, with numbers near the boundaries of
//! the rules.

use tcp_common::{End, Flags, Segment};

use super::Script;

/// A stream of hostile segments, all of one flow.
pub struct Hostile {
    isn: [u32; 2],
    last: [Segment; 2],
    /// When the last segment was sent, ns.
    pub now_ns: u64,
}

impl Hostile {
    /// Starts a stream; the script chooses the initial sequence numbers.
    pub fn new(script: &mut Script) -> Hostile {
        let isn = |script: &mut Script| match script.below(4) {
            0 => 1_000,
            1 => 0,
            2 => u32::MAX,
            _ => script.number(),
        };
        let isn = [isn(script), isn(script)];
        Hostile { isn, last: [Segment::default(); 2], now_ns: 3_600_000_000_000 }
    }

    /// The next sender and segment, some time after the last one.
    pub fn next(&mut self, script: &mut Script) -> (End, Segment) {
        self.now_ns += PAUSES_NS[script.below(PAUSES_NS.len())];
        let sender = if script.below(2) == 0 { End::A } else { End::B };
        let flags = FLAGS[script.below(FLAGS.len())];
        let mut segment = Segment {
            seq: self.number(script, sender),
            ack: if flags & Flags::ACK != 0 { self.number(script, sender.peer()) } else { 0 },
            payload_len: LENGTHS[script.below(LENGTHS.len())],
            window: [65_535, 0, 1_000][script.below(3)],
            flags: Flags(flags),
            wire_segments: 1,
            ..Segment::default()
        };
        if script.one_in(8) {
            segment.options |= Segment::HAS_TIMESTAMP;
            segment.tsval = script.number();
        }
        if flags & Flags::SYN != 0 && script.one_in(2) {
            segment.options |= Segment::HAS_WSCALE;
            segment.wscale = script.below(15) as u8;
        }
        self.last[sender as usize] = segment;
        (sender, segment)
    }

    /// A sequence number near the ISN of `end`, near either edge of its last segment, or near the
    /// peer's last ACK.
    fn number(&self, script: &mut Script, end: End) -> u32 {
        let last = &self.last[end as usize];
        let base = [self.isn[end as usize], last.seq, last.end(), self.last[end.peer() as usize].ack];
        base[script.below(base.len())].wrapping_add_signed(OFFSETS[script.below(OFFSETS.len())])
    }
}

const PAUSES_NS: [u64; 6] = [0, 1_000, 1_000_000, 1_000_000, 1_000_000_000, 61_000_000_000];
const FLAGS: [u8; 16] = [
    Flags::SYN,
    Flags::SYN | Flags::ACK,
    Flags::ACK,
    Flags::ACK,
    Flags::ACK,
    Flags::ACK | Flags::PSH,
    Flags::FIN | Flags::ACK,
    Flags::FIN | Flags::ACK,
    Flags::FIN | Flags::ACK,
    Flags::RST,
    Flags::RST | Flags::ACK,
    Flags::SYN | Flags::ECE | Flags::CWR,
    Flags::FIN,
    Flags::SYN | Flags::FIN,
    Flags::RST | Flags::FIN | Flags::SYN | Flags::ACK,
    0,
];
const LENGTHS: [u32; 5] = [0, 0, 1, 100, 1_460];
const OFFSETS: [i32; 14] = [0, 0, 0, 1, 1, 2, -1, 100, 101, 1_461, 65_536, -70_000, 70_000, i32::MIN];
