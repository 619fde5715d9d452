//! Captures in memory: pcap and pcapng, both byte orders, every timestamp resolution and every link type.

/// A captured frame.
#[derive(Clone)]
pub struct Captured {
    /// Time of capture, ns since the Unix epoch.
    pub at_ns: u64,
    /// The whole frame, Ethernet header included.
    pub frame: Vec<u8>,
}

/// Byte order of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// Timestamp unit of a pcap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Micro,
    /// Nanoseconds.
    Nano,
}

struct Writer {
    order: Order,
    bytes: Vec<u8>,
}

impl Writer {
    fn u16(&mut self, value: u16) {
        self.bytes.extend(match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
    }

    fn i64(&mut self, value: i64) {
        self.bytes.extend(match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: impl FnOnce(&mut Writer)) {
        let mut inner = Writer { order: self.order, bytes: Vec::new() };
        value(&mut inner);
        self.u16(code);
        self.u16(inner.bytes.len() as u16);
        self.padded(&inner.bytes);
    }

    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Writer)) {
        let mut inner = Writer { order: self.order, bytes: Vec::new() };
        body(&mut inner);
        assert_eq!(inner.bytes.len() % 4, 0);
        let len = inner.bytes.len() as u32 + 12;
        self.u32(kind);
        self.u32(len);
        self.bytes.extend(inner.bytes);
        self.u32(len);
    }
}

/// Writes a pcap file of one link type.
pub fn pcap(order: Order, unit: Unit, link: u32, frames: &[Captured]) -> Vec<u8> {
    snapped_pcap(order, unit, link, 262_144, frames)
}

/// Writes a pcap file of one link type that has at most `snap_len` bytes of each frame.
pub fn cut_pcap(order: Order, link: u32, snap_len: u32, frames: &[Captured]) -> Vec<u8> {
    snapped_pcap(order, Unit::Micro, link, snap_len, frames)
}

fn snapped_pcap(order: Order, unit: Unit, link: u32, snap_len: u32, frames: &[Captured]) -> Vec<u8> {
    let mut writer = Writer { order, bytes: Vec::new() };
    let (magic, unit_ns) = match unit {
        Unit::Micro => (0xa1b2_c3d4, 1_000),
        Unit::Nano => (0xa1b2_3c4d, 1),
    };
    writer.u32(magic);
    writer.u16(2);
    writer.u16(4);
    for value in [0, 0, snap_len, link] {
        writer.u32(value);
    }
    for Captured { at_ns, frame } in frames {
        writer.u32((at_ns / 1_000_000_000) as u32);
        writer.u32((at_ns % 1_000_000_000 / unit_ns) as u32);
        let captured = &frame[..frame.len().min(snap_len as usize)];
        writer.u32(captured.len() as u32);
        writer.u32(frame.len() as u32);
        writer.bytes.extend(captured);
    }
    writer.bytes
}

/// An interface of a pcapng file.
#[derive(Clone, Copy)]
pub struct Interface {
    /// The link type of the interface (`LINKTYPE_*` of pcap).
    pub link: u16,
    /// The name of the interface, in the `if_name` option.
    pub name: &'static str,
    /// The byte of the `if_tsresol` option and the units per second it stands for; `None`: microseconds.
    pub resolution: Option<(u8, u64)>,
    /// The `if_tsoffset` option: seconds to add to every timestamp.
    pub offset_s: i64,
}

impl Interface {
    /// An Ethernet interface with timestamps in microseconds.
    pub const ETHERNET: Interface = Interface { link: 1, name: "eth0", resolution: None, offset_s: 0 };
}

/// Writes a pcapng file; each frame comes with the index of its interface. Blocks of unknown types are
/// mixed in.
pub fn pcapng(order: Order, interfaces: &[Interface], frames: &[(usize, Captured)]) -> Vec<u8> {
    let mut writer = Writer { order, bytes: Vec::new() };
    writer.block(0x0a0d_0d0a, |body| {
        body.u32(0x1a2b_3c4d);
        body.u16(1);
        body.u16(0);
        body.i64(-1);
        body.option(4, |value| value.bytes.extend(b"a test"));
        body.option(0, |_| {});
    });
    for interface in interfaces {
        writer.block(1, |body| {
            body.u16(interface.link);
            body.u16(0);
            body.u32(0);
            body.option(2, |value| value.bytes.extend(interface.name.as_bytes()));
            if let Some((byte, _)) = interface.resolution {
                body.option(9, |value| value.bytes.push(byte));
            }
            if interface.offset_s != 0 {
                body.option(14, |value| value.i64(interface.offset_s));
            }
            body.option(0, |_| {});
        });
    }
    for (index, Captured { at_ns, frame }) in frames {
        let interface = interfaces[*index];
        let since_ns = u128::from(*at_ns) - interface.offset_s as u128 * 1_000_000_000;
        let per_second = interface.resolution.map_or(1_000_000, |(_, per_second)| per_second);
        // Rounded up: a coarse timestamp must not precede the frame.
        let stamp = (since_ns * u128::from(per_second)).div_ceil(1_000_000_000) as u64;
        writer.block(6, |body| {
            body.u32(*index as u32);
            body.u32((stamp >> 32) as u32);
            body.u32(stamp as u32);
            body.u32(frame.len() as u32);
            body.u32(frame.len() as u32);
            body.padded(frame);
            body.option(1, |value| value.bytes.extend(b"a comment"));
            body.option(0, |_| {});
        });
        writer.block(0x0bad_beef, |body| body.padded(b"nobody knows this block"));
    }
    writer.bytes
}

/// Makes obsolete Packet Blocks of the Enhanced Packet Blocks of a pcapng section, except for the first
/// `kept`.
pub fn into_packet_blocks(order: Order, mut file: Vec<u8>, kept: usize) -> Vec<u8> {
    let read = |bytes: &[u8]| {
        let bytes = bytes.try_into().expect("four bytes");
        match order {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        }
    };
    let (mut at, mut packets) = (0, 0);
    while at < file.len() {
        if read(&file[at..at + 4]) == 6 {
            packets += 1;
            if packets > kept {
                let interface = read(&file[at + 8..at + 12]) as u16;
                let mut head = Writer { order, bytes: Vec::new() };
                head.u32(2);
                head.u32(read(&file[at + 4..at + 8]));
                head.u16(interface);
                // A count of drops, which is no part of the interface's number.
                head.u16(7);
                file[at..at + 12].copy_from_slice(&head.bytes);
            }
        }
        at += read(&file[at + 4..at + 8]) as usize;
    }
    file
}

/// Appends a simple packet block, which has no timestamp, to a little-endian pcapng file.
pub fn add_simple_packet(file: &mut Vec<u8>, frame: &[u8]) {
    let mut writer = Writer { order: Order::Little, bytes: std::mem::take(file) };
    writer.block(3, |body| {
        body.u32(frame.len() as u32);
        body.padded(frame);
    });
    *file = writer.bytes;
}

/// A frame that is not TCP and only advances the clock.
pub fn arp(at_ns: u64) -> Captured {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(60, 0);
    Captured { at_ns, frame }
}

/// Replaces the Ethernet header of a frame by the header of another link type.
pub fn relink(frame: &[u8], link: u32) -> Vec<u8> {
    let (protocol, packet) = (&frame[12..14], &frame[14..]);
    let ip = protocol == [0x08, 0x00];
    let mut out = match link {
        0 => vec![if ip { 2 } else { 7 }, 0, 0, 0],
        108 => vec![0, 0, 0, if ip { 2 } else { 7 }],
        113 => {
            let mut header = vec![0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
            header.extend(protocol);
            header
        }
        276 => {
            let mut header = protocol.to_vec();
            header.extend([0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
            header
        }
        104 => [&[0x0f, 0], protocol].concat(),
        // NFLOG: the packet header, a prefix of odd length, the packet.
        239 => {
            let mut message = vec![if ip { 2 } else { 7 }, 0, 0, 5];
            message.extend([8, 0, 1, 0, protocol[0], protocol[1], 1, 0]);
            message.extend([7, 0, 10, 0, b'i', b'n', 0, 0]);
            message.extend(((4 + packet.len()) as u16).to_le_bytes());
            message.extend([9, 0]);
            message
        }
        // PPP without address and control fields, then with them.
        9 => vec![if ip { 0x21 } else { 0x29 }],
        50 => vec![0xff, 0x03, 0, if ip { 0x21 } else { 0x29 }],
        12 | 14 | 101 | 228 | 229 => Vec::new(),
        1 => return frame.to_vec(),
        other => panic!("no link type {other} here"),
    };
    out.extend(packet);
    out
}
