//! Programs to compare with. One only passes the packet, and one only parses the TCP fields that any tracker
//! needs. The third is a small tracker on a BPF hash map.

use anyhow::Result;

use crate::assembler::{Code, Label, Op, Size};
use crate::bpf::{Map, MapKind, Program, ProgramType};

/// A program that passes the packet: the cost of a run.
pub(crate) fn pass(program_type: ProgramType) -> Result<Program> {
    let mut code = Code::new();
    code.with_value(Op::Move, 0, PASS).exit();
    Program::load(program_type, &code)
}

/// A TC program that passes the packet on: the cost of the hook.
pub(crate) fn hand_on() -> Result<Program> {
    let mut code = Code::new();
    code.with_value(Op::Move, 0, ACT_UNSPEC).exit();
    Program::load(ProgramType::Tc, &code)
}

/// A program that checks bounds, EtherType, header and protocol and loads addresses, ports, seq, ack, flags,
/// window and length.
pub(crate) fn parse(program_type: ProgramType, ipv6: bool) -> Result<Program> {
    let (data, end) = if program_type == ProgramType::Xdp { (0, 4) } else { (76, 80) };
    let mut code = Code::new();
    code.with_value(Op::Move, 0, 0);
    bounds(&mut code, (1, data, end), if ipv6 { 74 } else { 54 });
    read_fields(&mut code, ipv6);
    code.with_value(Op::Move, 0, PASS).label(Label::Leave).exit();
    Program::load(program_type, &code)
}

/// Parses a packet at R7 without checking its bounds.
pub(crate) fn read_fields(code: &mut Code, ipv6: bool) {
    let tcp = if ipv6 { 54 } else { 34 };
    let loads: &[(Size, i16)] = if ipv6 {
        code.load(Size::U16, 5, DATA, 12).jump_not_equal(5, 0xdd86, Label::Leave);
        code.load(Size::U8, 5, DATA, 20).jump_not_equal(5, 6, Label::Leave);
        &[(Size::U64, 22), (Size::U64, 30), (Size::U64, 38), (Size::U64, 46), (Size::U16, 18)]
    } else {
        ipv4_tcp(code);
        &[(Size::U32, 26), (Size::U32, 30), (Size::U16, 16), (Size::U16, 20)]
    };
    let header = [
        (Size::U32, tcp),
        (Size::U32, tcp + 4),
        (Size::U32, tcp + 8),
        (Size::U16, tcp + 12),
        (Size::U16, tcp + 14),
    ];
    for &(size, offset) in loads.iter().chain(&header) {
        code.load(size, 5, DATA, offset).with(Op::Xor, 0, 5);
    }
}

/// Loads the address of the packet into R7. Leaves if the packet has fewer than `length` bytes. `context`:
/// its register and the offsets of its two pointers.
pub(crate) fn bounds(code: &mut Code, context: (u8, i16, i16), length: i32) {
    let (register, data, end) = context;
    code.load(Size::U32, DATA, register, data).load(Size::U32, 3, register, end);
    code.with(Op::Move, 4, DATA).with_value(Op::Add, 4, length).jump_greater(4, 3, Label::Leave);
}

/// Leaves unless the packet is TCP over IPv4 without options.
fn ipv4_tcp(code: &mut Code) {
    code.load(Size::U16, 5, DATA, 12).jump_not_equal(5, 0x0008, Label::Leave);
    code.load(Size::U8, 5, DATA, 14).jump_not_equal(5, 0x45, Label::Leave);
    code.load(Size::U8, 5, DATA, 23).jump_not_equal(5, 6, Label::Leave);
}

/// A minimal tracker on `BPF_MAP_TYPE_HASH`: a key of 16 bytes, equal for both directions; for each direction
/// packets, bytes and the highest sequence number; the time of the last packet. It keeps no TCP state, sends
/// no events and expires no entry.
pub(crate) struct HashTracker {
    flows: Map,
}

impl HashTracker {
    pub(crate) fn new(most: u32) -> Result<HashTracker> {
        Ok(HashTracker { flows: Map::new(MapKind::Hash, 16, 64, most)? })
    }

    /// The tracker's program, for a complete packet at R7. It clobbers all registers except the context's.
    pub(crate) fn write(&self, code: &mut Code) {
        ipv4_tcp(code);
        code.load(Size::U32, 1, DATA, 26).load(Size::U32, 2, DATA, 30);
        code.load(Size::U16, 3, DATA, 34).load(Size::U16, 4, DATA, 36);
        code.with_value(Op::Move, 8, 0).jump_greater(1, 2, Label::Swapped);
        store_key(code, [1, 2, 3, 4]);
        code.jump(Label::Keyed).label(Label::Swapped).with_value(Op::Move, 8, 8);
        store_key(code, [2, 1, 4, 3]);
        code.label(Label::Keyed).store_value(Size::U32, 10, KEY + 12, 0);
        code.map(1, self.flows.fd()).with(Op::Move, 2, 10).with_value(Op::Add, 2, KEY.into());
        code.call(MAP_LOOKUP).jump_equal(0, 0, Label::Missing);

        code.with(Op::Move, 9, 0).call(JIFFIES).store(Size::U64, 9, 0, 0).with(Op::Add, 9, 8);
        code.load(Size::U64, 2, 9, 8).with_value(Op::Add, 2, 1).store(Size::U64, 9, 8, 2);
        code.load(Size::U16, 3, DATA, 16).swap_bytes(3, 16);
        code.load(Size::U64, 2, 9, 24).with(Op::Add, 2, 3).store(Size::U64, 9, 24, 2);
        code.load(Size::U32, 3, DATA, 38).swap_bytes(3, 32).load(Size::U64, 2, 9, 40);
        code.jump_greater(2, 3, Label::Leave).store(Size::U64, 9, 40, 3).jump(Label::Leave);

        code.label(Label::Missing);
        for offset in (VALUE..KEY).step_by(8) {
            code.store_value(Size::U64, 10, offset, 0);
        }
        code.call(JIFFIES).store(Size::U64, 10, VALUE, 0);
        code.map(1, self.flows.fd()).with(Op::Move, 2, 10).with_value(Op::Add, 2, KEY.into());
        code.with(Op::Move, 3, 10).with_value(Op::Add, 3, VALUE.into()).with_value(Op::Move, 4, NO_EXIST);
        code.call(MAP_UPDATE);
    }

    /// The number of packets counted in the frame's direction, without the first. `None` if the flow is
    /// unknown.
    pub(crate) fn packets(&self, frame: &[u8]) -> Result<Option<u64>> {
        let [from, to] = [&frame[26..30], &frame[30..34]];
        let number = |address: &[u8]| u32::from_ne_bytes([address[0], address[1], address[2], address[3]]);
        let swapped = number(from) > number(to);
        let (ports, zero) = (&frame[34..38], [0; 4]);
        let key = if swapped {
            [to, from, &ports[2..], &ports[..2], &zero].concat()
        } else {
            [from, to, ports, &zero].concat()
        };
        let value: Option<[u64; 8]> = self.flows.get(&key)?;
        Ok(value.map(|value| value[1 + usize::from(swapped)]))
    }
}

/// Registers of the addresses, then of the ports.
fn store_key(code: &mut Code, [address, other_address, port, other_port]: [u8; 4]) {
    code.store(Size::U32, 10, KEY, address).store(Size::U32, 10, KEY + 4, other_address);
    code.store(Size::U16, 10, KEY + 8, port).store(Size::U16, 10, KEY + 10, other_port);
}

/// `XDP_PASS`; a TC program may return any number.
pub(crate) const PASS: i32 = 2;
/// `TC_ACT_UNSPEC`
const ACT_UNSPEC: i32 = -1;
/// The register that points to the packet.
pub(crate) const DATA: u8 = 7;
/// Stack offsets.
const KEY: i16 = -16;
const VALUE: i16 = -80;
/// `bpf_map_lookup_elem`
pub(crate) const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
/// `bpf_jiffies64`
const JIFFIES: i32 = 118;
/// `BPF_NOEXIST`
const NO_EXIST: i32 = 1;
