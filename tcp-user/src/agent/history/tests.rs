use tcp_common::{Cause, End, Flags, Flow, FlowKey, Rules, Segment, State};

use super::*;
use crate::why::SentSegment;

/// A flow in a slot, whose segments are remembered as the agent does.
struct PlayedFlow {
    flow: Flow,
    slot: u32,
}

impl PlayedFlow {
    fn open(histories: &mut Histories, slot: u32, at_ns: u64) -> PlayedFlow {
        let mut played = PlayedFlow { flow: Flow::EMPTY, slot };
        // The first SYN makes no event.
        played.send(None, at_ns, End::A, Flags::SYN, 100, 0);
        played.send(Some(histories), at_ns + 1, End::B, Flags::SYN | Flags::ACK, 900, 101);
        played.send(Some(histories), at_ns + 2, End::A, Flags::ACK, 101, 901);
        played
    }

    fn send(
        &mut self,
        histories: Option<&mut Histories>,
        at_ns: u64,
        sender: End,
        flags: u8,
        seq: u32,
        ack: u32,
    ) {
        let segment =
            Segment { flags: Flags(flags), seq, ack, window: 1000, wire_segments: 1, ..Segment::default() };
        let outcome = self.flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
        if let Some(histories) = histories {
            let key = &FlowKey { family: 4, ..FlowKey::default() };
            let (from, to, cause) = (outcome.from, outcome.to, outcome.cause);
            let segment = Some(SentSegment::new(sender, &segment));
            let change = Change { key, flow: &self.flow, hook: 0, at_ns, from, to, cause, segment };
            histories.record(self.slot, &change);
        }
    }

    fn entry(&self) -> Entry {
        let key = FlowKey { family: 4, ..FlowKey::default() };
        Entry { index: self.slot, key, hook: 0, tags: [0; 2], flow: self.flow }
    }

    /// Times and causes that are remembered, and the number of forgotten moments.
    fn remembered(&self, histories: &Histories) -> (Vec<(u64, Cause)>, u64) {
        remembered(&histories.of(&self.entry()))
    }
}

fn remembered(history: &History) -> (Vec<(u64, Cause)>, u64) {
    (history.moments().map(|moment| (moment.at_ns, moment.cause)).collect(), history.forgotten())
}

/// Memory for this many moments, an eighth of them of what is not established, and as many ended flows as go beside.
fn memory(moments: usize) -> u64 {
    (moments * Moments::BYTES).div_ceil(MOMENTS_PART as usize) as u64 * WHOLE
}

#[test]
fn each_flow_has_its_own_history_from_its_first_syn_on() {
    let mut histories = Histories::new(8, memory(64));
    let mut one = PlayedFlow::open(&mut histories, 1, 10);
    let two = PlayedFlow::open(&mut histories, 2, 11);
    one.send(Some(&mut histories), 20, End::B, Flags::FIN | Flags::ACK, 901, 101);
    one.send(Some(&mut histories), 21, End::B, Flags::FIN | Flags::ACK, 901, 101);
    let opened = |at_ns| vec![(at_ns, Cause::Syn), (at_ns + 1, Cause::SynAck), (at_ns + 2, Cause::Ack)];
    assert_eq!(two.remembered(&histories), (opened(11), 0));
    let (mut all, forgotten) = one.remembered(&histories);
    assert_eq!((all.split_off(3), forgotten), (vec![(20, Cause::Fin), (21, Cause::FinAgain)], 0));
    assert_eq!(all, opened(10));
}

#[test]
fn the_next_connection_of_a_slot_begins_anew() {
    let mut histories = Histories::new(8, memory(64));
    let one = PlayedFlow::open(&mut histories, 1, 10);
    histories.end(one.entry());
    let two = PlayedFlow::open(&mut histories, 1, 20);
    assert_eq!(two.remembered(&histories).0[0], (20, Cause::Syn));
    assert_eq!(two.remembered(&histories).0.len(), 3);
    let ended = histories.ended().next().expect("one ended");
    assert_eq!(remembered(&histories.of_ended(ended)).0[0], (10, Cause::Syn));
    assert_eq!(remembered(&histories.of_ended(ended)).0.len(), 3);
}

#[test]
fn the_oldest_is_forgotten_and_its_number_known() {
    let mut histories = Histories::new(8, memory(64));
    let mut one = PlayedFlow::open(&mut histories, 1, 10);
    for at_ns in 100..200 {
        one.send(Some(&mut histories), at_ns, End::B, Flags::FIN | Flags::ACK, 901, 101);
    }
    let (all, forgotten) = one.remembered(&histories);
    // SYN-ACK is in the other ring; the ACK and 100 FINs are in one of 56.
    assert_eq!((all.len(), all[0], forgotten), (56, (144, Cause::FinAgain), 46));
    assert_eq!(histories.extent().since_ns, Some(144));
    let (kept, room) = histories.extent().moments;
    assert_eq!((kept, room), (57, 64));
}

#[test]
fn what_is_not_established_crowds_out_nothing_else() {
    let mut histories = Histories::new(8, memory(64));
    let one = PlayedFlow::open(&mut histories, 1, 10);
    histories.end(one.entry());
    for at_ns in 100..1000 {
        let mut attempt = PlayedFlow { flow: Flow::EMPTY, slot: 2 };
        attempt.send(None, at_ns, End::A, Flags::SYN, 100, 0);
        attempt.send(Some(&mut histories), at_ns, End::B, Flags::RST | Flags::ACK, 0, 101);
        assert_eq!(attempt.flow.state(End::A), State::Closed);
        histories.end(attempt.entry());
    }
    let ended = histories.ended().next().expect("connections come first");
    assert_eq!(ended.entry.flow.opened_ns(), 10);
    let times: Vec<_> =
        remembered(&histories.of_ended(ended)).0.into_iter().map(|(at_ns, _)| at_ns).collect();
    assert_eq!(times, [12], "the handshake before the ACK is forgotten");
    let (kept, room) = histories.extent().connections;
    assert!(kept > 1 && kept < room, "{kept} of {room}");
}

#[test]
fn no_memory_remembers_nothing() {
    let mut histories = Histories::new(8, 0);
    let one = PlayedFlow::open(&mut histories, 1, 10);
    histories.end(one.entry());
    assert_eq!(histories.ended().count(), 0);
    assert_eq!(histories.extent().since_ns, None);
    assert_eq!(one.remembered(&histories).0, [(10, Cause::Syn)]);
}
