//! What the lab cannot bring about at will.

use super::*;
use tcp_common::{CloseKind, Endpoint, Flags, Segment};

/// Established, then closed by A; B has acknowledged and goes on.
fn half_closed(local: [bool; 2]) -> Flow {
    let mut flow = Flow::EMPTY;
    let mut send = |sender, flags, seq, ack| {
        let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
        flow.on_segment(1_000, sender, &segment, &Rules::RFC);
    };
    send(End::A, Flags::SYN, 100, 0);
    send(End::B, Flags::SYN | Flags::ACK, 900, 101);
    send(End::A, Flags::ACK, 101, 901);
    send(End::A, Flags::FIN | Flags::ACK, 101, 901);
    send(End::B, Flags::ACK, 901, 102);
    flow.set_local(End::A, local[0]);
    flow.set_local(End::B, local[1]);
    assert_eq!([End::A, End::B].map(|end| flow.state(end)), [State::FinWait2, State::CloseWait]);
    flow
}

#[test]
fn the_flow_is_over_when_the_only_end_of_this_host_is_gone() {
    let mut flow = half_closed([true, false]);
    let outcome = forget(&mut flow, [true, false], 2_000);
    assert!(outcome.over && flow.is_over());
    assert_eq!(flow.close_kind(), CloseKind::Timeout);
}

#[test]
fn an_end_of_this_host_that_still_has_its_socket_lives_on() {
    let mut flow = half_closed([true, true]);
    let outcome = forget(&mut flow, [true, false], 2_000);
    assert_eq!(outcome.to, [State::Closed, State::CloseWait]);
    assert!(!flow.is_over() && outcome.is_transition());
    // Its FIN finds nobody, and the RST that answers ends it too.
    let fin = Segment { flags: Flags(Flags::FIN | Flags::ACK), seq: 901, ack: 102, ..Segment::default() };
    flow.on_segment(3_000, End::B, &fin, &Rules::RFC);
    assert_eq!(flow.state(End::A), State::Closed);
    let rst = Segment { flags: Flags(Flags::RST), seq: 102, ..Segment::default() };
    flow.on_segment(3_001, End::A, &rst, &Rules::RFC);
    assert!(flow.is_over());
}

#[test]
fn only_ends_of_this_host_that_are_not_closed_need_a_socket() {
    let flow = half_closed([true, false]);
    assert!(needs_socket(&flow, End::A) && !needs_socket(&flow, End::B));
    assert!(!needs_socket(&Flow::EMPTY, End::A));
}

#[test]
fn a_segment_between_two_looks_is_noticed() {
    let flow = half_closed([true, false]);
    let first = Absent::of(3, &flow, [true, false]);
    let mut later = flow;
    later.last_ns += 1;
    assert!(first.is_same(&Absent::of(3, &flow, [true, false])));
    assert!(!first.is_same(&Absent::of(3, &later, [true, false])));
    assert!(!first.is_same(&Absent::of(3, &flow, [true, true])));
    let key = FlowKey::new(Endpoint::v4([10, 9, 0, 1], 1), Endpoint::v4([10, 9, 0, 2], 2), 0, 4).0;
    assert!(!first.is_same(&Absent { key, ..first }));
}
