//! Cases that the lab cannot provoke.

use tcp_common::{Endpoint, Flags, Rules, Segment};

use super::*;

#[test]
fn a_segment_between_two_checks_is_noticed() {
    let mut flow = Flow::EMPTY;
    let mut send = |at_ns, sender, flags, seq, ack| {
        let segment = Segment { flags: Flags(flags), seq, ack, window: 1000, ..Segment::default() };
        flow.on_segment(at_ns, sender, &segment, &Rules::RFC);
        flow
    };
    send(1_000, End::A, Flags::SYN, 100, 0);
    send(1_000, End::B, Flags::SYN | Flags::ACK, 900, 101);
    let flow = send(1_000, End::A, Flags::ACK, 101, 901);
    let later = send(1_001, End::B, Flags::ACK, 901, 101);
    let first = Suspect::of(3, &flow, [Standing::Missing, Standing::Fine]);
    assert!(first.is_same(&Suspect::of(3, &flow, [Standing::Missing, Standing::Fine])));
    assert!(!first.is_same(&Suspect::of(3, &later, [Standing::Missing, Standing::Fine])));
    assert!(!first.is_same(&Suspect::of(3, &flow, [Standing::Missing; 2])));
    let key = FlowKey::new(Endpoint::v4([10, 9, 0, 1], 1), Endpoint::v4([10, 9, 0, 2], 2), 0, 4).0;
    assert!(!first.is_same(&Suspect { key, ..first }));
}
