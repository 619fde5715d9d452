//! Link headers, VLAN tags, and the key of both directions.

use tcp_common::Ignored;
use tcp_common::wire::{FirstHeader, parse};

use crate::datagrams::{ACK, V4_PLAIN, ethernet, ip, segment, tcp, v4, v6};

#[test]
fn an_ip_link_takes_both_versions_and_nothing_else() {
    assert_eq!(tcp(&v4(V4_PLAIN, &segment(ACK, &[], 3))).segment.payload_len, 3);
    assert_eq!(tcp(&v6(&[], &segment(ACK, &[], 3))).segment.payload_len, 3);
    assert_eq!(ip(&[0x55; 60]), Err(Ignored::NotTcp));
    assert_eq!(ip(&[]), Err(Ignored::Truncated));
}

#[test]
fn both_tags_are_read_and_neither_is_in_the_key() {
    let packet = ethernet(&[0x88a8, 0xe00a, 0x8100, 0x0014], 0x0800, &v4(V4_PLAIN, &segment(ACK, &[], 0)));
    let packet = parse(&packet[..], FirstHeader::Ethernet, None).expect("a TCP packet");
    assert_eq!(packet.tags, 20 << 16 | 10, "the ids alone, without priority and drop eligibility");
    assert_eq!(packet.key.domain, 0);
    assert_eq!((packet.vlan_count, packet.vlans), (2, [10, 20]));
}

#[test]
fn a_tag_that_the_nic_stripped_is_the_outer_one() {
    let datagram = v4(V4_PLAIN, &segment(ACK, &[], 0));
    let plain = ethernet(&[], 0x0800, &datagram);
    let tagged = ethernet(&[0x8100, 20], 0x0800, &datagram);
    for (frame, tags) in [(plain, 7), (tagged, 20 << 16 | 7)] {
        let packet = parse(&frame[..], FirstHeader::Ethernet, Some(7)).expect("a TCP packet");
        assert_eq!((packet.tags, packet.key.domain), (tags, 0));
    }
}

#[test]
fn three_tags_are_unsupported() {
    let frame = ethernet(&[0x88a8, 1, 0x8100, 2, 0x8100, 3], 0x0800, &v4(V4_PLAIN, &segment(ACK, &[], 0)));
    assert_eq!(parse(&frame[..], FirstHeader::Ethernet, None), Err(Ignored::Unsupported));
}

#[test]
fn the_ether_type_must_agree_with_the_version() {
    let (four, six) = (v4(V4_PLAIN, &segment(ACK, &[], 0)), v6(&[], &segment(ACK, &[], 0)));
    for (ether_type, datagram) in [(0x86dd, four), (0x0800, six)] {
        let frame = ethernet(&[], ether_type, &datagram);
        assert_eq!(parse(&frame[..], FirstHeader::Ethernet, None), Err(Ignored::Malformed));
    }
}

#[test]
fn the_reverse_packet_has_the_same_key_and_the_other_sender() {
    let there = tcp(&v4(V4_PLAIN, &segment(ACK, &[], 0)));
    let mut back = v4(V4_PLAIN, &segment(ACK, &[], 0));
    back[12..20].rotate_left(4);
    back[20..24].rotate_left(2);
    let back = tcp(&back);
    assert_eq!(there.key, back.key);
    assert_eq!(there.sender, back.sender.peer());
}

#[test]
fn what_an_encapsulation_carries_is_counted_by_its_outermost_name() {
    let udp = |port: u16| [&[0xb0, 0][..], &port.to_be_bytes(), &[0, 40, 0, 0], &[0; 32]].concat();
    let in_v4 = |protocol: u8, content: &[u8]| {
        let mut datagram = v4(V4_PLAIN, content);
        datagram[9] = protocol;
        ip(&datagram)
    };
    let in_v6 = |next: u8, content: &[u8]| {
        let mut datagram = v6(&[], content);
        datagram[6] = next;
        ip(&datagram)
    };
    let inner = v4(V4_PLAIN, &segment(ACK, &[], 0));
    for (protocol, of_v4, of_v6) in [
        (47, Ignored::Gre, Ignored::Gre),
        (4, Ignored::Ipip, Ignored::FourInSix),
        (41, Ignored::SixInFour, Ignored::SixInSix),
        (137, Ignored::Mpls, Ignored::Mpls),
        (50, Ignored::NotTcp, Ignored::NotTcp),
    ] {
        assert_eq!(
            (in_v4(protocol, &inner), in_v6(protocol, &inner)),
            (Err(of_v4), Err(of_v6)),
            "{protocol}"
        );
    }
    for (port, reason) in [
        (4789, Ignored::Vxlan),
        (8472, Ignored::Vxlan),
        (6081, Ignored::Geneve),
        (2152, Ignored::GtpU),
        (53, Ignored::NotTcp),
    ] {
        assert_eq!((in_v4(17, &udp(port)), in_v6(17, &udp(port))), (Err(reason), Err(reason)), "{port}");
    }
    // A later fragment has no ports.
    let mut later = v4(8, &udp(4789));
    later[9] = 17;
    assert_eq!(ip(&later), Err(Ignored::NotTcp));
    for (ether_type, reason) in [(0x8847, Ignored::Mpls), (0x8848, Ignored::Mpls), (0x8864, Ignored::Pppoe)] {
        for tags in [&[][..], &[0x8100, 7]] {
            let frame = ethernet(tags, ether_type, &inner);
            assert_eq!(parse(&frame[..], FirstHeader::Ethernet, None), Err(reason));
        }
    }
}
