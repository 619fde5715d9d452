//! The flow table of the loaded programs, full: as many connections as were asked for are all followed, and every packet
//! that finds no place is counted.

mod frames;

use finwait::kernel::{Kernel, LoadOptions, ProgramName};
use tcp_common::record::Counters;
use tcp_common::table::places_for;
use tcp_common::{End, Flags, Ignored, Rules, Segment};

fn load(max_flows: u32) -> Kernel {
    let options = LoadOptions { rules: Rules::RFC, max_flows, max_flows_v6: max_flows, ring_bytes: 64 << 20 };
    let mut kernel = Kernel::load(&options).expect("loading the kernel programs (root needed)");
    kernel.set_clock_ns(1_000_000_000).expect("setting the clock");
    kernel
}

fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment { seq, ack, window: 60_000, flags: Flags(flags), wire_segments: 1, ..Segment::default() }
}

fn syn() -> Segment {
    segment(Flags::SYN, 999, 0)
}

/// A whole handshake of connection `number`.
fn open(kernel: &Kernel, number: u32) {
    for (sender, segment) in [
        (End::A, syn()),
        (End::B, segment(Flags::SYN | Flags::ACK, 4999, 1000)),
        (End::A, segment(Flags::ACK, 1000, 5000)),
    ] {
        let frame = frames::frame_between(number, sender, &segment);
        kernel.test_run(ProgramName::Xdp, &frame, 1).expect("running");
    }
}

fn refused(counters: &Counters) -> u64 {
    let refused = counters.ignored[Ignored::TableFull as usize];
    assert_eq!(counters.ignored.iter().sum::<u64>(), refused, "nothing else is ignored");
    assert_eq!(counters.seen, counters.tracked + refused);
    refused
}

fn classes(kernel: &Kernel) -> [u32; 3] {
    kernel.table().fill()[0].classes()
}

#[test]
fn as_many_connections_as_were_asked_for_find_a_place_and_those_beyond_are_counted() {
    const RATED: u32 = 100_000;
    let kernel = load(RATED);
    (0..RATED).for_each(|number| open(&kernel, number));
    assert_eq!(refused(&kernel.counters().expect("counters")), 0);
    assert_eq!(classes(&kernel), [0, RATED, 0]);

    let beyond = places_for(RATED) + 1_000;
    (RATED..beyond).for_each(|number| open(&kernel, number));
    let counters = kernel.counters().expect("counters");
    let [half_open, live, finished] = classes(&kernel);
    assert_eq!((half_open, finished), (0, 0));
    // Each of the three segments of a handshake asks anew.
    assert_eq!(refused(&counters), 3 * u64::from(beyond - live));
    assert!(live > RATED && live <= places_for(RATED), "{live}");
    assert_eq!(counters.evicted, [0; 3], "a live one never makes room");
    println!("{RATED} rated, {} places, {live} live at the end", places_for(RATED));
}
