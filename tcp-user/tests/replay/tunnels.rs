//! Connections inside other protocols: each header alone, nested, malformed, and without decapsulation.

use finwait::view::Tunnel;

use super::*;

/// Puts a packet, from its Ethernet header on, into something.
type Wrap = fn(&[u8]) -> Vec<u8>;

fn be(value: u16) -> [u8; 2] {
    value.to_be_bytes()
}

/// An Ethernet header between two routers.
fn ethernet(ether_type: u16, content: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 9, 2, 2, 0, 0, 0, 9, 1][..], &be(ether_type), content].concat()
}

/// The packet without its Ethernet header and padding.
fn ip_of(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

fn ipv4(protocol: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(be(20 + content.len() as u16));
    header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2]);
    [&header[..], content].concat()
}

fn ipv6(next: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(be(content.len() as u16));
    header.extend([next, 64]);
    for host in [1, 2] {
        header.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    [&header[..], content].concat()
}

fn udp(source: u16, destination: u16, content: &[u8]) -> Vec<u8> {
    [&be(source)[..], &be(destination), &be(8 + content.len() as u16), &[0, 0], content].concat()
}

fn in_ipv4(protocol: u8, content: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &ipv4(protocol, content))
}

fn in_udp(destination: u16, header: &[u8], content: &[u8]) -> Vec<u8> {
    in_ipv4(17, &udp(45_000, destination, &[header, content].concat()))
}

fn gre(flags: u16, protocol: u16, optional: &[u8], content: &[u8]) -> Vec<u8> {
    [&be(flags)[..], &be(protocol), optional, content].concat()
}

const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
const MPLS: [u8; 4] = [0, 0x06, 0x41, 0x40];
const MPLS_STACK: [u8; 12] = [0, 0x06, 0x40, 0x40, 0, 0x07, 0x40, 0x40, 0, 0x06, 0x41, 0x40];

/// Everything that carries IPv4.
const WRAPS: &[(&str, Option<Tunnel>, Wrap)] = &[
    ("three tags", None, |f| {
        let tags = [&[0, 10][..], &be(0x8100), &[0, 20], &be(0x8100), &[0, 30], &be(0x0800)].concat();
        ethernet(0x8100, &[&tags, ip_of(f)].concat())
    }),
    ("nine tags of every kind", None, |f| {
        let kinds = [0x88a8, 0x9100, 0x8100].map(be);
        let tags: Vec<u8> = (0..8).flat_map(|i| [&[0, i][..], &kinds[i as usize % 3]].concat()).collect();
        ethernet(0x88a8, &[&tags[..], &[0, 9], &be(0x0800), ip_of(f)].concat())
    }),
    ("SNAP", None, |f| {
        let llc = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        ethernet(8 + ip_of(f).len() as u16, &[&llc, ip_of(f)].concat())
    }),
    ("SNAP in a VLAN", None, |f| {
        let llc = [0, 7, 0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        ethernet(0x8100, &[&llc, ip_of(f)].concat())
    }),
    ("LLC", None, |f| ethernet(3 + ip_of(f).len() as u16, &[&[6, 6, 3], ip_of(f)].concat())),
    ("MPLS", Some(Tunnel::Mpls), |f| ethernet(0x8847, &[&MPLS, ip_of(f)].concat())),
    ("MPLS multicast, three labels", Some(Tunnel::Mpls), |f| {
        ethernet(0x8848, &[&MPLS_STACK, ip_of(f)].concat())
    }),
    ("MPLS in a VLAN", Some(Tunnel::Mpls), |f| {
        ethernet(0x8100, &[&[0, 7, 0x88, 0x47][..], &MPLS, ip_of(f)].concat())
    }),
    ("a pseudowire with a control word", Some(Tunnel::Mpls), |f| {
        ethernet(0x8847, &[&MPLS[..], &[0; 4], f].concat())
    }),
    ("a pseudowire", Some(Tunnel::Mpls), |f| ethernet(0x8847, &[&MPLS, f].concat())),
    ("PPPoE", Some(Tunnel::Pppoe), |f| {
        let len = be(2 + ip_of(f).len() as u16);
        ethernet(0x8864, &[&[0x11, 0, 0, 1][..], &len, &[0, 0x21], ip_of(f)].concat())
    }),
    ("GRE", Some(Tunnel::Gre), |f| in_ipv4(47, &gre(0, 0x0800, &[], ip_of(f)))),
    ("GRE with every field", Some(Tunnel::Gre), |f| in_ipv4(47, &gre(0xb000, 0x0800, &[1; 12], ip_of(f)))),
    ("GRE with a key", Some(Tunnel::Gre), |f| in_ipv4(47, &gre(0x2000, 0x6558, &[1; 4], f))),
    ("GRE over IPv6", Some(Tunnel::Gre), |f| {
        ethernet(0x86dd, &ipv6(47, &gre(0x1000, 0x0800, &[1; 4], ip_of(f))))
    }),
    ("PPTP", Some(Tunnel::Gre), |f| {
        in_ipv4(47, &gre(0x3081, 0x880b, &[1; 12], &[&[0xff, 3, 0, 0x21], ip_of(f)].concat()))
    }),
    ("ERSPAN I", Some(Tunnel::Erspan), |f| in_ipv4(47, &gre(0, 0x88be, &[], f))),
    ("ERSPAN II", Some(Tunnel::Erspan), |f| {
        in_ipv4(47, &gre(0x1000, 0x88be, &[0, 0, 0, 1, 0x10, 0, 0, 1, 0, 0, 0, 0], f))
    }),
    ("ERSPAN III", Some(Tunnel::Erspan), |f| {
        in_ipv4(47, &gre(0x1000, 0x22eb, &[0, 0, 0, 1, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], f))
    }),
    ("ERSPAN III with a subheader", Some(Tunnel::Erspan), |f| {
        let mut header = vec![0, 0, 0, 1, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        header.extend([7; 8]);
        in_ipv4(47, &gre(0x1000, 0x22eb, &header, f))
    }),
    ("ERSPAN III with IP", Some(Tunnel::Erspan), |f| {
        in_ipv4(47, &gre(0x1000, 0x22eb, &[0, 0, 0, 1, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0], ip_of(f)))
    }),
    ("IPv4 in IPv4", Some(Tunnel::Ipip), |f| in_ipv4(4, ip_of(f))),
    ("IPv4 in IPv6", Some(Tunnel::FourInSix), |f| ethernet(0x86dd, &ipv6(4, ip_of(f)))),
    ("IPv4 in IPv6 after options", Some(Tunnel::FourInSix), |f| {
        ethernet(0x86dd, &ipv6(60, &[&[4, 0, 4, 1, 4, 1, 1, 0], ip_of(f)].concat()))
    }),
    ("MPLS in IP", Some(Tunnel::Mpls), |f| in_ipv4(137, &[&MPLS, ip_of(f)].concat())),
    ("VXLAN", Some(Tunnel::Vxlan), |f| in_udp(4789, &VXLAN, f)),
    ("VXLAN at Linux's first port", Some(Tunnel::Vxlan), |f| in_udp(8472, &VXLAN, f)),
    ("VXLAN over IPv6 with a tag inside", Some(Tunnel::Vxlan), |f| {
        let tagged = [&f[..12], &[0x81, 0, 0, 5], &f[12..]].concat();
        ethernet(0x86dd, &ipv6(17, &udp(1, 4789, &[&VXLAN[..], &tagged].concat())))
    }),
    ("GENEVE", Some(Tunnel::Geneve), |f| in_udp(6081, &[0, 0, 0x65, 0x58, 0, 0, 42, 0], f)),
    ("GENEVE with options and IP", Some(Tunnel::Geneve), |f| {
        in_udp(6081, &[2, 0, 8, 0, 0, 0, 42, 0, 1, 2, 3, 1, 9, 9, 9, 9], ip_of(f))
    }),
    ("GTP-U", Some(Tunnel::GtpU), |f| in_udp(2152, &[0x30, 0xff, 0, 60, 0, 0, 0, 1], ip_of(f))),
    ("GTP-U with a sequence number", Some(Tunnel::GtpU), |f| {
        in_udp(2152, &[0x32, 0xff, 0, 60, 0, 0, 0, 1, 0, 5, 0, 0], ip_of(f))
    }),
    ("GTP-U with extensions", Some(Tunnel::GtpU), |f| {
        let extensions = [1, 0x10, 9, 0x85, 2, 1, 1, 1, 1, 1, 1, 0];
        in_udp(2152, &[&[0x34, 0xff, 0, 60, 0, 0, 0, 1, 0, 0, 0, 0x85][..], &extensions].concat(), ip_of(f))
    }),
];

/// Everything that carries IPv6.
const WRAPS_V6: &[(&str, Tunnel, Wrap)] = &[
    ("IPv6 in IPv4", Tunnel::SixInFour, |f| in_ipv4(41, ip_of(f))),
    ("IPv6 in IPv6", Tunnel::SixInSix, |f| ethernet(0x86dd, &ipv6(41, ip_of(f)))),
    ("GRE", Tunnel::Gre, |f| in_ipv4(47, &gre(0, 0x86dd, &[], ip_of(f)))),
    ("PPPoE", Tunnel::Pppoe, |f| ethernet(0x8864, &[&[0x11, 0, 0, 1, 0, 62, 0, 0x57], ip_of(f)].concat())),
    ("MPLS", Tunnel::Mpls, |f| ethernet(0x8847, &[&MPLS, ip_of(f)].concat())),
    ("Teredo", Tunnel::Teredo, |f| in_udp(3544, &[], ip_of(f))),
    ("Teredo with an origin", Tunnel::Teredo, |f| in_udp(3544, &[0, 0, 1, 1, 1, 1, 1, 1], ip_of(f))),
    ("Teredo with both indications", Tunnel::Teredo, |f| {
        let both = [&[0, 1, 2, 3][..], &[9; 5], &[7; 8], &[0], &[0, 0, 1, 1, 1, 1, 1, 1]].concat();
        ethernet(0x0800, &ipv4(17, &udp(3544, 50_000, &[&both, ip_of(f)].concat())))
    }),
    ("GTP-U", Tunnel::GtpU, |f| in_udp(2152, &[0x30, 0xff, 0, 60, 0, 0, 0, 1], ip_of(f))),
];

fn wrapped(frames: &[Captured], wrap: Wrap) -> Vec<Captured> {
    frames.iter().map(|c| Captured { at_ns: c.at_ns, frame: wrap(&c.frame) }).collect()
}

fn read(frames: &[Captured], options: &Options) -> Replayed {
    replay_broken(pcap(Order::Little, Unit::Nano, 1, frames), options)
}

/// Without what a tunnel changes.
fn reported(replayed: &Replayed) -> String {
    let mut connections = replayed.connections.clone();
    for connection in &mut connections {
        connection.tunnel = None;
        connection.client.vlan = None;
        connection.server.vlan = None;
    }
    format!("{connections:?}")
}

fn tunnels(replayed: &Replayed) -> Vec<Option<Tunnel>> {
    replayed.connections.iter().map(|connection| connection.tunnel).collect()
}

fn ipv6_frames() -> Vec<Captured> {
    let segments = [(End::A, Flags::SYN, 1_000, 0), (End::B, Flags::SYN | Flags::ACK, 5_000, 1_001)];
    let frame = |(index, (sender, flags, seq, ack)): (usize, (End, u8, u32, u32))| Captured {
        at_ns: SECOND_NS + index as u64,
        frame: frames::frame_v6_of(41_000, sender, &segment_of(flags, seq, ack)),
    };
    segments.into_iter().enumerate().map(frame).collect()
}

#[test]
fn a_connection_inside_is_followed_and_its_tunnel_is_named() {
    let frames = connection_of(41_000, SECOND_NS);
    let wanted = reported(&read(&frames, &Options::default()));
    for (name, tunnel, wrap) in WRAPS {
        let replayed = read(&wrapped(&frames, *wrap), &Options::default());
        assert_eq!(replayed.statistics.tracked, 6, "{name}: {}", replayed.statistics);
        assert_eq!(tunnels(&replayed), [*tunnel], "{name}");
        assert_eq!(reported(&replayed), wanted, "{name}");
    }
    let frames = ipv6_frames();
    let wanted = reported(&read(&frames, &Options::default()));
    for (name, tunnel, wrap) in WRAPS_V6 {
        let replayed = read(&wrapped(&frames, *wrap), &Options::default());
        assert_eq!(replayed.statistics.tracked, 2, "{name}: {}", replayed.statistics);
        assert_eq!(tunnels(&replayed), [Some(*tunnel)], "{name}");
        assert_eq!(reported(&replayed), wanted, "{name}");
    }
}

#[test]
fn the_outermost_of_nested_tunnels_is_named() {
    let frames = connection_of(41_000, SECOND_NS);
    let mut tried = 0;
    for (outer_name, outer_tunnel, outer) in WRAPS {
        for (inner_name, inner_tunnel, inner) in WRAPS {
            // A frame that is not IPv4 fits only into what carries Ethernet.
            let sample = inner(&frames[0].frame);
            let is_carried = || outer(&sample).windows(sample.len()).any(|bytes| bytes == sample);
            if sample[12..14] != [8, 0] && !is_carried() {
                continue;
            }
            tried += 1;
            let frames: Vec<_> =
                frames.iter().map(|c| Captured { at_ns: c.at_ns, frame: outer(&inner(&c.frame)) }).collect();
            let replayed = read(&frames, &Options::default());
            let what = format!("{inner_name} in {outer_name}");
            assert_eq!(replayed.statistics.tracked, 6, "{what}: {}", replayed.statistics);
            assert_eq!(tunnels(&replayed), [outer_tunnel.or(*inner_tunnel)], "{what}");
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn tunnels_are_followed_to_a_bounded_depth() {
    for (depth, tracked) in [(8, 6), (9, 0), (60, 0)] {
        let nested = |frame: &[u8]| (0..depth).fold(frame.to_vec(), |frame, _| in_ipv4(4, ip_of(&frame)));
        let frames: Vec<_> = connection_of(41_000, SECOND_NS)
            .into_iter()
            .map(|c| Captured { at_ns: c.at_ns, frame: nested(&c.frame) })
            .collect();
        let replayed = read(&frames, &Options::default());
        assert_eq!(replayed.statistics.tracked, tracked, "{depth}");
        assert_eq!(replayed.statistics.ignored_by[Ignored::Unsupported as usize], 6 - tracked, "{depth}");
    }
}

#[test]
fn without_decapsulation_what_is_inside_is_ignored() {
    let options = Options { decap: false, ..Options::default() };
    for (name, tunnel, wrap) in WRAPS {
        let replayed = read(&wrapped(&connection_of(41_000, SECOND_NS), *wrap), &options);
        assert_eq!(replayed.statistics.tracked, 0, "{name}");
        let ignored: Vec<_> = replayed.statistics.ignored().collect();
        // As live, by the outermost encapsulation.
        let reason = match tunnel {
            None if name.contains("tags") => "unsupported",
            None | Some(Tunnel::Teredo) => "not_tcp",
            Some(Tunnel::Erspan) => "gre",
            Some(tunnel) => tunnel.name(),
        };
        assert_eq!(ignored, [(reason, 6)], "{name}");
    }
}

#[test]
fn what_is_malformed_or_cut_inside_is_ignored_for_that_reason() {
    let frame = connection_of(41_000, SECOND_NS).remove(0).frame;
    let reason = |frame: Vec<u8>, wire_len: usize| {
        let mut replay = Replay::new(Rules::AGENT, Selection::default());
        replay.push(&Frame { wire_len, ..Frame::new(&frame, LinkType::Ethernet, 1) });
        let statistics = *replay.statistics();
        statistics.ignored().map(|(reason, _)| reason).next().unwrap_or("tracked")
    };
    let whole = |frame: Vec<u8>| reason(frame.clone(), frame.len());
    let mut inner = frame.clone();
    inner[46] = 0x10;
    assert_eq!(whole(in_ipv4(4, ip_of(&inner))), "malformed", "a TCP header of 4 bytes");
    inner = frame.clone();
    inner[14] = 0x44;
    assert_eq!(whole(in_udp(4789, &VXLAN, &inner)), "malformed", "an IPv4 header of 16 bytes");
    inner = frame.clone();
    inner[14] = 0x65;
    assert_eq!(whole(in_ipv4(4, ip_of(&inner))), "malformed", "version 6 as IPv4 in IPv4");
    inner = frame.clone();
    inner[23] = 17;
    assert_eq!(whole(in_ipv4(47, &gre(0, 0x0800, &[], ip_of(&inner)))), "not_tcp", "UDP inside");
    inner = frame.clone();
    inner[20..22].copy_from_slice(&[0x20, 1]);
    assert_eq!(whole(in_ipv4(4, ip_of(&inner))), "fragment", "a later fragment inside");
    assert_eq!(whole(in_ipv4(47, &gre(0x4000, 0x0800, &[0; 8], ip_of(&frame)))), "unsupported", "routing");
    assert_eq!(whole(in_ipv4(47, &gre(2, 0x0800, &[], ip_of(&frame)))), "not_tcp", "GRE version 2");
    let gtp = [0x34, 0xff, 0, 60, 0, 0, 0, 1, 0, 0, 0, 0x85, 0];
    assert_eq!(whole(in_udp(2152, &gtp, ip_of(&frame))), "malformed", "an extension of length 0");
    assert_eq!(whole(in_udp(2152, &[0x30, 1, 0, 60, 0, 0, 0, 1], ip_of(&frame))), "not_tcp", "GTP echo");
    assert_eq!(whole(in_udp(4789, &[0; 8], &frame)), "not_tcp", "VXLAN without a network id");
    assert_eq!(whole(in_udp(53, &VXLAN, &frame)), "not_tcp", "another port");
    assert_eq!(whole(ethernet(0x8864, &[0x11, 9, 0, 1, 0, 2, 0, 0x21])), "not_tcp", "PPPoE discovery");
    assert_eq!(whole(ethernet(40, &[0x42, 0x42, 3])), "not_tcp", "spanning tree");
    // Every byte of these headers is needed.
    for (name, _, wrap) in WRAPS {
        let frame = wrap(&frame[..54]);
        for len in 14..frame.len() {
            let reason = reason(frame[..len].to_vec(), frame.len());
            assert_eq!(reason, "truncated", "{name}: {len}");
        }
    }
}

#[test]
fn any_byte_of_a_tunnel_may_be_wrong() {
    let frame = connection_of(41_000, SECOND_NS).remove(0).frame;
    let mut replay = Replay::new(Rules::AGENT, Selection::default());
    let mut pushed = 0;
    for (_, _, wrap) in WRAPS {
        let frame = wrap(&frame);
        for at in 0..frame.len() {
            for value in [0, 1, 0x45, 0x60, 0x7f, 0x80, 0xff, !frame[at]] {
                let mut frame = frame.clone();
                frame[at] = value;
                pushed += 1;
                // The result may be wrong, but the program must end and not panic.
                replay.push(&Frame::new(&frame, LinkType::Ethernet, pushed));
            }
        }
    }
    let statistics = *replay.statistics();
    assert_eq!(statistics.frames, pushed);
    let ignored: u64 = statistics.ignored().map(|(_, n)| n).sum();
    assert_eq!(statistics.frames, statistics.tracked + ignored + statistics.fragments_pending);
}

#[test]
fn tunnels_behind_every_link_type_are_followed() {
    for link in [1, 9, 12, 50, 101, 104, 113, 239, 276] {
        let frames: Vec<_> = connection_of(41_000, SECOND_NS)
            .iter()
            .map(|c| Captured { at_ns: c.at_ns, frame: relink(&in_ipv4(4, ip_of(&c.frame)), link) })
            .collect();
        let replayed = replay(pcap(Order::Little, Unit::Micro, link, &frames), Rules::AGENT);
        assert_eq!(tunnels(&replayed), [Some(Tunnel::Ipip)], "{link}");
        assert_eq!(replayed.statistics.tracked, 6, "{link}");
    }
}

#[test]
fn a_cooked_header_may_name_any_protocol() {
    for link in [113, 276, 104] {
        for (name, tunnel, wrap) in WRAPS {
            let frames: Vec<_> = connection_of(41_000, SECOND_NS)
                .iter()
                .map(|c| Captured { at_ns: c.at_ns, frame: relink(&wrap(&c.frame), link) })
                .collect();
            if frames[0].frame.is_empty() {
                continue;
            }
            let replayed = replay(pcap(Order::Little, Unit::Micro, link, &frames), Rules::AGENT);
            assert_eq!(replayed.statistics.tracked, 6, "{name} {link}: {}", replayed.statistics);
            assert_eq!(tunnels(&replayed), [*tunnel], "{name} {link}");
        }
    }
}
