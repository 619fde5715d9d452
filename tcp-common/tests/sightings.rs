//! Which packets count where several hooks see one flow: a copy brings nothing new.

use tcp_common::flow::Prediction;
use tcp_common::record::{Record, Sighting, short_hook};
use tcp_common::table::phase_of;
use tcp_common::{Cause, End, Flags, Ignored, Rules, Segment, State};
use testkit::frames::segment;

const A: End = End::A;
const B: End = End::B;
const FIN: u8 = Flags::FIN | Flags::ACK;
const ACK: u8 = Flags::ACK;
const MS: u64 = 1_000_000;
/// Number of segments in [`life`] before the close.
const OPEN: usize = 18;

/// A flow at any number of hooks.
struct Host {
    record: Record,
    prediction: Prediction,
    now_ns: u64,
}

impl Host {
    fn new() -> Host {
        Host { record: Record::EMPTY, prediction: Prediction::EMPTY, now_ns: 1_000_000 * MS }
    }

    /// One segment at one hook, with VLAN tags.
    fn tagged(&mut self, hook: u32, tags: u32, sender: End, segment: &Segment) -> Result<Cause, Ignored> {
        self.now_ns += 10_000;
        let seen = Sighting { hook, tags, at_ns: self.now_ns, sender, segment };
        let outcome = self.record.observe(&mut self.prediction, &seen, &Rules::AGENT)?;
        phase_of(&mut self.prediction, &self.record.flow);
        Ok(outcome.cause)
    }

    fn at(&mut self, hook: u32, sender: End, segment: &Segment) -> Result<Cause, Ignored> {
        self.tagged(hook, 0, sender, segment)
    }

    fn wait(&mut self, ms: u64) {
        self.now_ns += ms * MS;
    }

    fn states(&self) -> [State; 2] {
        self.record.flow.states()
    }

    fn segments(&self) -> [u32; 2] {
        [A, B].map(|end| self.record.flow.end(end).segments())
    }
}

/// A whole life: A opens, both talk, A closes.
fn life() -> Vec<(End, Segment)> {
    let mut life = vec![
        (A, segment(Flags::SYN, 100, 0, 0)),
        (B, segment(Flags::SYN | ACK, 500, 101, 0)),
        (A, segment(ACK, 101, 501, 0)),
    ];
    for turn in 0..5 {
        let (a, b) = (101 + 10 * turn, 501 + 20 * turn);
        life.push((A, segment(ACK, a, b, 10)));
        life.push((B, segment(ACK, b, a + 10, 20)));
        life.push((A, segment(ACK, a + 10, b + 20, 0)));
    }
    life.push((A, segment(FIN, 151, 601, 0)));
    life.push((B, segment(ACK, 601, 152, 0)));
    life.push((B, segment(FIN, 601, 152, 0)));
    life.push((A, segment(ACK, 152, 602, 0)));
    life
}

/// A segment of the same life in another network: only the initial sequence numbers differ.
fn elsewhere(segment: &Segment, sender: End) -> Segment {
    let opens = sender == A && segment.flags.has(Flags::SYN);
    let ack = if opens { 0 } else { segment.ack + 1_000_000_000 };
    Segment { seq: segment.seq + 1_000_000_000, ack, ..*segment }
}

#[test]
fn each_packet_counts_once_at_the_first_of_two_hooks() {
    let mut host = Host::new();
    for (sender, segment) in life() {
        host.at(2, sender, &segment).expect("the first hook");
        assert_eq!(host.at(3, sender, &segment), Err(Ignored::Duplicate), "{sender:?} {segment:?}");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
    assert_eq!(host.segments(), [14, 8]);
}

#[test]
fn copies_that_come_behind_other_packets_do_not_count() {
    let mut host = Host::new();
    let life = life();
    let mut copied = 0;
    for (index, (sender, segment)) in life.iter().enumerate() {
        host.at(2, *sender, segment).expect("the first hook");
        // The second hook lags by two packets.
        if index >= 2 {
            let (sender, segment) = &life[index - 2];
            copied += u32::from(host.at(3, *sender, segment) == Err(Ignored::Duplicate));
        }
    }
    assert_eq!(copied, life.len() as u32 - 2);
    assert_eq!(host.segments(), [14, 8]);
}

#[test]
fn packets_that_alternate_between_two_links_all_count() {
    let mut host = Host::new();
    for (index, (sender, segment)) in life().into_iter().enumerate() {
        let cause = host.at(2 + (index as u32 & 1) * 2, sender, &segment);
        assert!(cause.is_ok_and(Cause::has_effect), "{index} {sender:?} {segment:?}: {cause:?}");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
    assert_eq!(host.segments(), [14, 8]);
}

#[test]
fn a_fin_sent_again_over_another_link_restarts_time_wait() {
    let mut host = Host::new();
    let life = life();
    for (sender, segment) in &life {
        host.at(2, *sender, segment).expect("one link");
    }
    let (sender, fin) = &life[life.len() - 2];
    assert_eq!(host.at(4, *sender, fin), Err(Ignored::Duplicate), "at once, it is a copy");
    host.wait(250);
    assert_eq!(host.at(4, *sender, fin), Ok(Cause::FinAgain));
    assert_eq!(host.record.flow.end(A).restarts(), 1);
}

#[test]
fn a_forged_ack_takes_no_direction_over() {
    let mut host = Host::new();
    for (sender, segment) in &life()[..OPEN] {
        host.at(2, *sender, segment).expect("one link");
    }
    let far = segment(ACK, 151, 5_000_000, 0);
    assert_eq!(host.at(6, A, &far), Err(Ignored::OtherNetwork), "no copy: it brings another number");
    assert_eq!(host.prediction.directions[0].hook, short_hook(2));
    for (sender, segment) in &life()[OPEN..] {
        host.at(2, *sender, segment).expect("the same link");
        assert_eq!(host.at(3, *sender, segment), Err(Ignored::Duplicate));
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
}

#[test]
fn an_ack_of_bytes_that_were_not_seen_takes_no_direction_over() {
    let mut host = Host::new();
    for (sender, segment) in &life()[..OPEN] {
        host.at(2, *sender, segment).expect("one link");
    }
    host.at(6, A, &segment(ACK, 151, 30_000, 0)).expect("in the window");
    assert_eq!(host.prediction.directions[0].hook, short_hook(2));
}

#[test]
fn segments_without_effect_count_once_too() {
    let mut host = Host::new();
    for (sender, segment) in &life()[..OPEN] {
        host.at(2, *sender, segment).expect("one link");
    }
    for blind in [
        segment(Flags::RST, 90_000_000, 0, 0),
        segment(Flags::SYN, 90_000_000, 0, 0),
        segment(ACK, 90_000_000, 601, 10),
        segment(ACK, 151, 90_000_000, 0),
    ] {
        let first = host.at(2, A, &blind);
        assert!(first.is_ok_and(|cause| !cause.has_effect()), "{blind:?}: {first:?}");
        assert_eq!(host.at(3, A, &blind), Err(Ignored::Duplicate), "{blind:?}");
    }
    assert_eq!(host.states(), [State::Established; 2]);
}

#[test]
fn a_rst_and_its_copy_count_once() {
    let mut host = Host::new();
    for (sender, segment) in &life()[..OPEN] {
        host.at(2, *sender, segment).expect("one link");
    }
    let rst = segment(Flags::RST | ACK, 151, 601, 0);
    assert_eq!(host.at(2, A, &rst), Ok(Cause::Rst));
    assert_eq!(host.at(3, A, &rst), Err(Ignored::Duplicate));
}

#[test]
fn the_same_addresses_at_another_hook_are_another_network() {
    let mut host = Host::new();
    for (sender, segment) in &life()[..OPEN] {
        host.at(2, *sender, segment).expect("the first one");
    }
    for (sender, segment) in &life() {
        let answer = host.at(4, *sender, &elsewhere(segment, *sender));
        assert_eq!(answer, Err(Ignored::OtherNetwork), "{sender:?} {segment:?}");
    }
    for (sender, segment) in &life()[OPEN..] {
        host.at(2, *sender, segment).expect("the first one");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
}

#[test]
fn a_box_that_shifts_the_numbers_leaves_the_flow_on_one_side() {
    let mut host = Host::new();
    // A SYN proxy answers for B, whose numbers are others beyond it.
    for (sender, segment) in life() {
        host.at(2, sender, &segment).expect("this side");
        let shifted = match sender {
            A if segment.flags.has(ACK) => Segment { ack: segment.ack + 700_000_000, ..segment },
            A => segment,
            B => Segment { seq: segment.seq + 700_000_000, ..segment },
        };
        let before = host.states();
        let _ = host.at(4, sender, &shifted);
        assert_eq!(host.states(), before, "{sender:?} {shifted:?}");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
    assert!(matches!(host.record.flow.coverage(), tcp_common::flow::Coverage::Exact));
}

#[test]
fn directions_in_different_vlans_are_one_connection() {
    let mut host = Host::new();
    for (sender, segment) in life() {
        let tags = if sender == A { 10 } else { 20 };
        host.tagged(2, tags, sender, &segment).expect("one trunk");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
}

#[test]
fn a_connection_may_move_to_another_vlan() {
    let mut host = Host::new();
    for (index, (sender, segment)) in life().into_iter().enumerate() {
        host.tagged(2, if index < 9 { 10 } else { 20 }, sender, &segment).expect("in the window");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
}

#[test]
fn the_same_addresses_in_another_vlan_are_another_network() {
    let mut host = Host::new();
    for (sender, segment) in &life()[..OPEN] {
        host.tagged(2, 10, *sender, segment).expect("the first one");
    }
    for (sender, segment) in &life() {
        let answer = host.tagged(2, 20, *sender, &elsewhere(segment, *sender));
        assert_eq!(answer, Err(Ignored::OtherNetwork), "{sender:?} {segment:?}");
    }
    assert_eq!(host.states(), [State::Established; 2]);
    for (sender, segment) in &life()[OPEN..] {
        host.tagged(2, 10, *sender, segment).expect("the first one");
    }
    assert_eq!(host.states(), [State::TimeWait, State::Closed]);
}
