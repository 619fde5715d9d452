//! Options of IPv4, as `__ip_options_compile` of Linux accepts or drops them.

use tcp_common::Ignored;

use super::datagrams::*;

/// Parses a packet with these options, padded by END.
fn with(options: &[u8]) -> Result<u32, Ignored> {
    let padded = options.len().next_multiple_of(4);
    let content = [options, &vec![0; padded - options.len()], &segment(0x10, &[], 9)].concat();
    let mut datagram = v4(0, &content);
    datagram[0] = 0x45 + (padded / 4) as u8;
    ip(&datagram).map(|packet| packet.segment.payload_len)
}

#[test]
fn well_formed_options_are_skipped() {
    for options in [
        &[1, 1, 1, 0][..],
        &[0, 77, 77, 77],
        // Router alert, an unknown option, a security option.
        &[148, 4, 0, 0],
        &[0x9e, 6, 1, 2, 3, 4],
        &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // Record route with room, and full; source routes; timestamps of each kind.
        &[7, 7, 4, 0, 0, 0, 0],
        &[7, 7, 8, 1, 2, 3, 4],
        &[131, 7, 4, 9, 9, 9, 9],
        &[137, 3, 4],
        &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[68, 8, 9, 0xe0, 0, 0, 0, 0],
        &[1; 40],
    ] {
        assert_eq!(with(options), Ok(9), "{options:?}");
    }
}

#[test]
fn malformed_options_are_dropped_as_a_host_does() {
    for options in [
        // No length, a length below 2, or beyond the header.
        &[1, 1, 1, 7][..],
        &[7, 1, 4, 0],
        &[148, 0, 0, 0],
        &[7, 9, 4, 0, 0, 0, 0, 0],
        // A router alert that is too short; a pointer before the list, or to less than one entry.
        &[148, 3, 0, 0],
        &[7, 7, 3, 0, 0, 0, 0],
        &[7, 7, 6, 0, 0, 0, 0],
        &[7, 2, 0, 0],
        &[131, 7, 3, 9, 9, 9, 9],
        &[68, 3, 5, 0],
        &[68, 8, 4, 0, 0, 0, 0, 0],
        &[68, 8, 5, 1, 0, 0, 0, 0],
        // As many hosts without room as can be counted.
        &[68, 8, 9, 0xf0, 0, 0, 0, 0],
        // One of a kind twice.
        &[7, 3, 4, 7, 3, 4, 0, 0],
        &[131, 3, 4, 137, 3, 4, 0, 0],
    ] {
        assert_eq!(with(options), Err(Ignored::Malformed), "{options:?}");
    }
}
