//! The trace of an incarnation's segments that Zeek's summary needs.

use tcp_common::flow::end_fact;
use tcp_common::seq::{Seq, at_or_before, later};
use tcp_common::{Cause, End, Flags, Flow, Segment};

use super::endpoint::{self, ZeekState};

/// The trace of one incarnation.
#[derive(Clone, Debug, Default)]
pub(in crate::replay) struct Trace {
    ends: [EndTrace; 2],
    /// Letters of end A in upper case, of end B in lower case.
    letters: Vec<u8>,
    /// The end that sent the first segment.
    first: Option<End>,
    /// Time of the last segment before both ends had closed, ns.
    pub(super) last_ns: u64,
    pub(super) missed_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct EndTrace {
    endpoint: ZeekState,
    /// State before its FIN was accepted.
    before_fin: ZeekState,
    fin: bool,
    closed: bool,
    /// Highest sequence number sent, plus one.
    high: Option<Seq>,
    /// Letters that were recorded, of those that occur once.
    recorded: u32,
    /// Numbers of the last SYN, FIN and RST: a letter is recorded again when its number differs.
    numbers: [Option<Seq>; 3],
    /// Retransmissions, zero windows, gaps and bad checksums: recorded at the first, 10th, 100th ...
    counts: [u32; 4],
}

/// One segment and its effect.
pub(in crate::replay) struct SeenSegment<'a> {
    pub(in crate::replay) at_ns: u64,
    pub(in crate::replay) sender: End,
    pub(in crate::replay) segment: &'a Segment,
    /// The flow before the segment: the incarnation before if the segment began one.
    pub(in crate::replay) before: &'a Flow,
    pub(in crate::replay) after: &'a Flow,
    pub(in crate::replay) cause: Cause,
    /// The originator.
    pub(in crate::replay) orig: End,
    pub(in crate::replay) checksum_wrong: bool,
}

impl Trace {
    /// Records the next segment.
    pub(in crate::replay) fn record(&mut self, seen: &SeenSegment<'_>) {
        let SeenSegment { sender, segment, .. } = *seen;
        if self.first.is_none() {
            self.begin(seen);
        }
        if !self.ends.iter().all(|side| side.closed) {
            self.last_ns = seen.at_ns;
        }
        if segment.flags.has(Flags::RST) && seen.after.incarnation() != seen.before.incarnation() {
            // The RST ended the incarnation before.
            return;
        }
        self.record_flags(sender, segment);
        if seen.checksum_wrong {
            self.counted(sender, 'C', CHECKSUM);
        }
        self.record_window(sender, segment);
        self.record_retransmission(sender, segment);
        let (own, peer) = sides(&mut self.ends, sender);
        endpoint::opens(&mut own.endpoint, &mut peer.endpoint, sender == seen.orig, segment);
        self.follow_fins(seen.after);
        if segment.flags.has(Flags::RST) && matches!(seen.cause, Cause::Rst | Cause::Refused) {
            self.reset(sender);
        }
        self.record_gap(seen);
    }

    /// Records a segment that no flow accepts: a bad checksum, or flags that contradict each other.
    pub(in crate::replay) fn record_ignored(&mut self, sender: End, segment: &Segment, checksum_wrong: bool) {
        if checksum_wrong {
            self.counted(sender, 'C', CHECKSUM);
        } else {
            self.record_flags(sender, segment);
        }
    }

    /// Records a RST that ended this incarnation and belongs to the next.
    pub(in crate::replay) fn aborted(&mut self, aborter: End) {
        if self.side(aborter).endpoint != ZeekState::Reset {
            self.letter(aborter, 'R');
            self.reset(aborter);
        }
    }

    pub(super) fn endpoint(&self, end: End) -> ZeekState {
        self.ends[end as usize].endpoint
    }

    /// The letters, in upper case for the originator, after a `^` if the other end sent the first segment.
    pub(super) fn history(&self, orig: End) -> String {
        let flipped = self.first.is_some_and(|first| first != orig);
        let swap = |letter: &u8| match (orig, letter.is_ascii_uppercase()) {
            (End::A, _) => *letter,
            (End::B, true) => letter.to_ascii_lowercase(),
            (End::B, false) => letter.to_ascii_uppercase(),
        };
        let letters = self.letters.iter().map(swap).map(char::from);
        flipped.then_some('^').into_iter().chain(letters).collect()
    }

    /// Begins the trace. A SYN that was pending in the incarnation before is the first segment of this one
    /// (R14).
    fn begin(&mut self, seen: &SeenSegment<'_>) {
        self.first = Some(seen.sender);
        if seen.segment.flags.has(Flags::SYN) && !seen.segment.flags.has(Flags::ACK) {
            return;
        }
        if seen.after.end(seen.orig).has(end_fact::BARE_SYN) {
            self.first = Some(seen.orig);
            self.letter(seen.orig, 'S');
            let (own, _) = sides(&mut self.ends, seen.orig);
            own.recorded |= SYN;
            own.numbers[0] = Some(seen.after.end(seen.orig).isn());
            own.endpoint = ZeekState::SynSent;
        }
    }

    fn record_flags(&mut self, sender: End, segment: &Segment) {
        let flags = segment.flags;
        let (syn, fin, rst) = (flags.has(Flags::SYN), flags.has(Flags::FIN), flags.has(Flags::RST));
        let (index, bit, letter, number) = match (syn, fin, rst) {
            (_, true, true) => return self.once(sender, 'I', CONTRADICTION),
            (true, true, false) | (true, false, true) => return self.once(sender, 'Q', SEVERAL),
            (true, false, false) if flags.has(Flags::ACK) => (0, SYN, 'H', segment.seq),
            (true, false, false) => (0, SYN, 'S', segment.seq),
            (false, true, false) => (1, FIN, 'F', segment.seq.wrapping_add(segment.payload_len)),
            (false, false, true) => (2, RST, 'R', segment.seq),
            (false, false, false) if segment.payload_len != 0 => return self.once(sender, 'D', DATA),
            (false, false, false) if flags.has(Flags::ACK) => return self.once(sender, 'A', ACK),
            (false, false, false) => return,
        };
        let side = &mut self.ends[sender as usize];
        let differs = side.recorded & bit == 0 || side.numbers[index] != Some(number);
        side.recorded |= bit;
        side.numbers[index] = Some(number);
        if differs {
            self.letter(sender, letter);
        }
    }

    fn record_window(&mut self, sender: End, segment: &Segment) {
        let (own, peer) = sides(&mut self.ends, sender);
        let matters = peer.endpoint != ZeekState::Closed && own.endpoint != ZeekState::Reset;
        if segment.window == 0 && !segment.flags.has(Flags::RST) && matters {
            self.counted(sender, 'W', ZERO_WINDOW);
        }
    }

    /// Records payload that does not go beyond what was sent before.
    fn record_retransmission(&mut self, sender: End, segment: &Segment) {
        if segment.flags.has(Flags::RST) {
            return;
        }
        let side = &mut self.ends[sender as usize];
        let end = segment.end();
        let again = segment.payload_len != 0 && side.high.is_some_and(|high| at_or_before(end, high));
        side.high = Some(side.high.map_or(end, |high| later(high, end)));
        if again {
            self.counted(sender, 'T', RETRANSMISSION);
        }
    }

    /// Records bytes of the peer that the segment acknowledges and that were not seen.
    fn record_gap(&mut self, seen: &SeenSegment<'_>) {
        let SeenSegment { sender, segment, before, after, cause, .. } = *seen;
        if before.incarnation() != after.incarnation() {
            return;
        }
        let peer = sender.peer();
        if before.end(peer).has(end_fact::CLAIM) && !after.end(peer).has(end_fact::CLAIM) {
            // Both ends have jumped to where they agree (R19).
            for (end, seen) in [(peer, before.end(peer).claimed_bytes()), (sender, segment.payload_len)] {
                let passed = after.end(end).bytes().saturating_sub(before.end(end).bytes());
                self.missed(end, passed.saturating_sub(u64::from(seen)));
            }
            return;
        }
        let belongs = cause.has_effect() && cause != Cause::FinVoided;
        if belongs && segment.flags.has(Flags::ACK) {
            self.missed(peer, u64::from(before.end(peer).unseen_before(segment.ack)));
        }
    }

    fn missed(&mut self, end: End, bytes: u64) {
        if bytes != 0 {
            self.missed_bytes += bytes;
            self.counted(end, 'G', GAP);
        }
    }

    /// Follows which FINs the machine accepts: one may be accepted late, or taken back.
    fn follow_fins(&mut self, after: &Flow) {
        for end in [End::A, End::B] {
            let fin = after.sent_fin(end);
            let (own, peer) = sides(&mut self.ends, end);
            if fin && !own.fin {
                own.before_fin = own.endpoint;
                endpoint::closes(&mut own.endpoint, &mut peer.endpoint, peer.fin);
            } else if !fin && own.fin {
                own.endpoint = own.before_fin;
            }
            own.fin = fin;
            own.closed |= fin;
        }
    }

    fn reset(&mut self, sender: End) {
        let (own, peer) = sides(&mut self.ends, sender);
        endpoint::resets(&mut own.endpoint, peer.endpoint);
        own.closed = true;
    }

    fn side(&self, end: End) -> &EndTrace {
        &self.ends[end as usize]
    }

    fn once(&mut self, end: End, letter: char, bit: u32) {
        let side = &mut self.ends[end as usize];
        if side.recorded & bit == 0 {
            side.recorded |= bit;
            self.letter(end, letter);
        }
    }

    fn counted(&mut self, end: End, letter: char, index: usize) {
        let count = &mut self.ends[end as usize].counts[index];
        *count = count.saturating_add(1);
        if is_power_of_ten(*count) {
            self.letter(end, letter);
        }
    }

    fn letter(&mut self, end: End, letter: char) {
        if self.letters.len() < MAX_LETTERS {
            self.letters.push(match end {
                End::A => letter as u8,
                End::B => letter.to_ascii_lowercase() as u8,
            });
        }
    }
}

fn sides(ends: &mut [EndTrace; 2], sender: End) -> (&mut EndTrace, &mut EndTrace) {
    let [a, b] = ends;
    match sender {
        End::A => (a, b),
        End::B => (b, a),
    }
}

fn is_power_of_ten(count: u32) -> bool {
    count != 0 && 10_u32.pow(count.ilog10()) == count
}

const SYN: u32 = 1 << 0;
const FIN: u32 = 1 << 1;
const RST: u32 = 1 << 2;
const DATA: u32 = 1 << 3;
const ACK: u32 = 1 << 4;
const CONTRADICTION: u32 = 1 << 5;
const SEVERAL: u32 = 1 << 6;

const RETRANSMISSION: usize = 0;
const ZERO_WINDOW: usize = 1;
const GAP: usize = 2;
const CHECKSUM: usize = 3;

/// Maximum number of letters, so that a flood of SYNs with different numbers makes no endless line.
const MAX_LETTERS: usize = 128;
