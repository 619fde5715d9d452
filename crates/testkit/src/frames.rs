//! Ethernet frames of TCP segments, for `BPF_PROG_TEST_RUN` and for captures.

use std::net::Ipv4Addr;

use tcp_common::{End, Endpoint, Flags, FlowKey, Segment};

/// A segment without options and with a window of 60,000 bytes.
pub fn segment(flags: u8, seq: u32, ack: u32, payload_len: u32) -> Segment {
    Segment {
        seq,
        ack,
        payload_len,
        window: 60_000,
        flags: Flags(flags),
        wire_segments: 1,
        ..Segment::default()
    }
}

/// Ethernet, IPv4 and TCP headers of a segment between 10.9.0.1:40000 (end A) and 10.9.0.2:80. The IP
/// header counts the payload, but its bytes are left out: no program reads them.
pub fn frame(sender: End, segment: &Segment) -> Vec<u8> {
    frame_of(40_000, sender, segment)
}

/// The key of the connection that [`frame`] belongs to.
pub fn key() -> FlowKey {
    let [a, b] = [End::A, End::B].map(|end| address(end).octets());
    FlowKey::new(Endpoint::v4(a, 40_000), Endpoint::v4(b, 80), 0, 4).0
}

/// The address of an end in [`frame`].
pub const fn address(end: End) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, host(end))
}

/// Headers of an IPv4 segment as in [`frame`], with another port of end A.
pub fn frame_of(port_a: u16, sender: End, segment: &Segment) -> Vec<u8> {
    let tcp = tcp_header(port_a, sender, segment);
    let total = 20 + tcp.len() + segment.payload_len as usize;
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(total).expect("fits into IPv4").to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    for end in [sender, sender.peer()] {
        ip.extend(address(end).octets());
    }
    ethernet([8, 0], &ip, &tcp)
}

/// Headers of an IPv4 segment as in [`frame`]; the address and the port of end A follow from `number`.
pub fn frame_between(number: u32, sender: End, segment: &Segment) -> Vec<u8> {
    let [first, second, third, fourth] = number.to_be_bytes();
    let mut frame = frame_of(u16::from_be_bytes([third, fourth]), sender, segment);
    let address = if sender == End::A { 26 } else { 30 };
    frame[address..address + 4].copy_from_slice(&[10, 8, first, second]);
    frame
}

/// The key of the connection that [`frame_between`] makes from the same `number`.
pub fn key_between(number: u32) -> FlowKey {
    let [first, second, third, fourth] = number.to_be_bytes();
    let a = Endpoint::v4([10, 8, first, second], u16::from_be_bytes([third, fourth]));
    FlowKey::new(a, Endpoint::v4([10, 9, 0, host(End::B)], 80), 0, 4).0
}

/// Headers of an IPv6 segment between fd00::1 (end A, `port_a`) and port 80 of fd00::2, without payload
/// bytes.
pub fn frame_v6_of(port_a: u16, sender: End, segment: &Segment) -> Vec<u8> {
    let tcp = tcp_header(port_a, sender, segment);
    let len = tcp.len() + segment.payload_len as usize;
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(u16::try_from(len).expect("fits into IPv6").to_be_bytes());
    ip.extend([6, 64]);
    for end in [sender, sender.peer()] {
        ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host(end)]);
    }
    ethernet([0x86, 0xdd], &ip, &tcp)
}

/// Divides an IPv4 packet in an Ethernet frame into fragments that begin at these offsets of its payload, besides
/// 0. The payload of [`frame`] is filled up with zeros.
///
/// # Panics
///
/// If an offset is no multiple of 8.
pub fn fragments(frame: &[u8], identification: u16, offsets: &[usize]) -> Vec<Vec<u8>> {
    const PAYLOAD: usize = ETHERNET + 20;
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let mut whole = frame.to_vec();
    whole.resize(ETHERNET + total, 0);
    let starts: Vec<usize> = [0].into_iter().chain(offsets.iter().copied()).collect();
    let fragment = |(number, &start): (usize, &usize)| {
        assert!(start.is_multiple_of(8), "offsets are in units of 8 bytes");
        let end = starts.get(number + 1).copied().unwrap_or(total - 20);
        let more = if number + 1 < starts.len() { 0x2000 } else { 0 };
        let mut fragment = [&whole[..PAYLOAD], &whole[PAYLOAD + start..PAYLOAD + end]].concat();
        fragment[16..18].copy_from_slice(&((20 + end - start) as u16).to_be_bytes());
        fragment[18..20].copy_from_slice(&identification.to_be_bytes());
        fragment[20..22].copy_from_slice(&(more | (start / 8) as u16).to_be_bytes());
        fragment
    };
    starts.iter().enumerate().map(fragment).collect()
}

/// An ICMP error of a router at 10.9.0.254, to the sender of the IPv4 packet in `frame`, which it quotes.
pub fn icmp_error(frame: &[u8], kind: u8, code: u8) -> Vec<u8> {
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let quoted = &frame[ETHERNET..][..total.min(frame.len() - ETHERNET)];
    let mut ip = vec![0x45, 0];
    ip.extend(((28 + quoted.len()) as u16).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, 254]);
    ip.extend(&quoted[12..16]);
    ethernet([8, 0], &ip, &[&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat())
}

/// Length of an Ethernet header, in bytes.
const ETHERNET: usize = 14;

fn ethernet(ether_type: [u8; 2], ip: &[u8], tcp: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ether_type);
    frame.extend(ip);
    frame.extend(tcp);
    frame.resize(frame.len().max(60), 0);
    frame
}

const fn host(end: End) -> u8 {
    match end {
        End::A => 1,
        End::B => 2,
    }
}

fn tcp_header(port_a: u16, sender: End, segment: &Segment) -> Vec<u8> {
    let ports = [port_a, 80];
    let mut options = Vec::new();
    if segment.has(Segment::HAS_WSCALE) {
        options.extend([3, 3, segment.wscale, 1]);
    }
    if segment.has(Segment::HAS_TIMESTAMP) {
        options.extend([1, 1, 8, 10]);
        options.extend(segment.tsval.to_be_bytes());
        options.extend(segment.tsecr.to_be_bytes());
    }
    let mut header = Vec::new();
    header.extend(ports[sender as usize].to_be_bytes());
    header.extend(ports[sender.peer() as usize].to_be_bytes());
    header.extend(segment.seq.to_be_bytes());
    header.extend(segment.ack.to_be_bytes());
    header.extend([((20 + options.len() as u8) / 4) << 4, segment.flags.0]);
    header.extend(segment.window.to_be_bytes());
    header.extend([0, 0, 0, 0]);
    header.extend(options);
    header
}
