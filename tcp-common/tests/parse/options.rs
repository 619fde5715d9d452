//! The options of a TCP header.

use tcp_common::wire::{Captured, FirstHeader, parse};
use tcp_common::{Ignored, Segment};

use crate::datagrams::{ACK, NOP, SYN, V4_PLAIN, ip, segment, tcp, v4};

const TIMESTAMPS: [u8; 10] = [8, 10, 0, 0, 0, 5, 0, 0, 0, 6];

#[test]
fn timestamps_are_found_at_any_offset() {
    let usual = [&[NOP, NOP][..], &TIMESTAMPS].concat();
    let behind = [&TIMESTAMPS[..], &[NOP, NOP]].concat();
    let with_sack = [&usual[..], &[NOP, NOP, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]].concat();
    let last = [&[NOP; 30][..], &TIMESTAMPS].concat();
    for options in [usual, behind, with_sack, last] {
        let segment = read(ACK, &options);
        assert_eq!((segment.tsval, segment.tsecr), (5, 6), "{options:?}");
        assert_eq!(segment.options, Segment::HAS_TIMESTAMP, "{options:?}");
    }
}

#[test]
fn nothing_is_read_after_the_end_of_options() {
    assert_eq!(read(SYN, &[0, 2, 4, 5, 180, 0, 0, 0]).options, 0);
}

#[test]
fn an_option_with_a_wrong_length_ends_the_options_and_keeps_the_segment() {
    for garbage in [[8, 0, 1, 1], [8, 1, 1, 1], [8, 5, 1, 1], [8, 255, 1, 1], [1, 1, 1, 8]] {
        let segment = read(SYN, &[&[2, 4, 5, 180][..], &garbage].concat());
        assert_eq!((segment.mss, segment.options), (1460, Segment::HAS_MSS), "{garbage:?}");
    }
}

#[test]
fn a_known_option_with_another_length_is_skipped() {
    let segment = read(SYN, &[2, 3, 9, 3, 4, 9, 9, 4, 3, 9, NOP, NOP, 2, 4, 5, 180]);
    assert_eq!((segment.mss, segment.options), (1460, Segment::HAS_MSS));
}

/// The first 64 bytes of a SYN that Linux sends, and what a snapshot length left of them.
#[test]
fn options_cut_by_the_capture_are_read_as_far_as_they_are_present() {
    let options = [&[2, 4, 5, 180, 4, 2][..], &TIMESTAMPS, &[NOP, 3, 3, 7]].concat();
    let datagram = v4(V4_PLAIN, &segment(SYN, &options, 9));
    for len in 40..=datagram.len() {
        let cut = Captured { bytes: &datagram[..len], wire_len: datagram.len() };
        let segment = parse(&cut, FirstHeader::Ip, None).expect("the fixed bytes are present").segment;
        assert_eq!(segment.payload_len, 9, "{len}: the lengths on the wire count");
        let present = |end: usize| len >= 40 + end;
        assert_eq!(segment.has(Segment::HAS_MSS), present(4), "{len}");
        assert_eq!(segment.has(Segment::HAS_SACK_PERMITTED), present(6), "{len}");
        assert_eq!(segment.has(Segment::HAS_TIMESTAMP), present(16), "{len}");
        let shift = if present(20) { 7 } else { 14 };
        assert!(segment.has(Segment::HAS_WSCALE), "{len}: it may have been cut off");
        assert_eq!(segment.wscale, shift, "{len}");
    }
    let cut = Captured { bytes: &datagram[..39], wire_len: datagram.len() };
    assert_eq!(parse(&cut, FirstHeader::Ip, None), Err(Ignored::Truncated));
}

#[test]
fn only_a_syn_may_have_lost_its_window_scale() {
    let datagram = v4(V4_PLAIN, &segment(ACK, &[&[NOP, NOP][..], &TIMESTAMPS].concat(), 0));
    let cut = Captured { bytes: &datagram[..50], wire_len: datagram.len() };
    let segment = parse(&cut, FirstHeader::Ip, None).expect("the fixed bytes are present").segment;
    assert_eq!((segment.options, segment.wscale), (0, 0));
}

#[test]
fn options_that_were_not_on_the_wire_are_truncated() {
    let datagram = v4(V4_PLAIN, &segment(SYN, &[2, 4, 5, 180], 0));
    let live = &datagram[..43];
    assert_eq!(ip(live), Err(Ignored::Truncated));
    for (len, wire_len) in [(43, 43), (42, 43), (40, 43)] {
        let cut = Captured { bytes: &datagram[..len], wire_len };
        assert_eq!(parse(&cut, FirstHeader::Ip, None), Err(Ignored::Truncated), "{len} of {wire_len}");
    }
}

#[test]
fn a_data_offset_below_five_is_malformed() {
    let mut datagram = v4(V4_PLAIN, &segment(SYN, &[], 8));
    datagram[32] = 0x40;
    assert_eq!(ip(&datagram), Err(Ignored::Malformed));
}

fn read(flags: u8, options: &[u8]) -> Segment {
    tcp(&v4(V4_PLAIN, &segment(flags, options, 0))).segment
}
