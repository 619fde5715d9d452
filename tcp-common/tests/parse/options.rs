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

#[test]
fn options_cut_by_the_capture_are_truncated() {
    let datagram = v4(V4_PLAIN, &segment(SYN, &[2, 4, 5, 180], 0));
    let cut = Captured { bytes: &datagram[..43], wire_len: 44 };
    assert_eq!(parse(&cut, FirstHeader::Ip, None), Err(Ignored::Truncated));
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
