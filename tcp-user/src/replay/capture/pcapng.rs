//! The pcapng format: sections of blocks (draft-ietf-opsawg-pcapng).

use std::sync::Arc;

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, parse_block_be, parse_block_le};

use super::{Buffer, CaptureInterface, CaptureRecord, LinkType, Unreadable, whole};

/// The section that is being read.
#[derive(Default)]
pub(super) struct PcapNg {
    pub(super) interfaces: Vec<CaptureInterface>,
    clocks: Vec<StampClock>,
    big_endian: bool,
}

/// How an interface timestamps its frames, and the length to which it cuts them.
#[derive(Clone, Copy)]
struct StampClock {
    /// Timestamp units in a second.
    resolution: u128,
    /// Offset of the timestamps, s.
    offset_s: i64,
    snap_len: usize,
}

impl PcapNg {
    pub(super) fn next(&mut self, buffer: &mut Buffer) -> Result<CaptureRecord, Unreadable> {
        if buffer.fill(1)?.is_empty() {
            return Ok(CaptureRecord::End);
        }
        let head = whole(buffer, 12)?;
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        if word(0) == SECTION_HEADER {
            self.big_endian = match u32::from_be_bytes(word(8)) {
                BYTE_ORDER => true,
                other if other.swap_bytes() == BYTE_ORDER => false,
                _ => return Err(Unreadable::Damaged("a section whose byte order is unknown".to_owned())),
            };
        }
        let number =
            |bytes| if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let (kind, len) = (number(word(0)), number(word(4)) as usize);
        if len < 12 {
            return Err(Unreadable::Damaged(format!("a block claims to be {len} bytes long")));
        }
        let block = whole(buffer, len)?;
        if block[len - 4..] != block[4..8] {
            return Err(Unreadable::Damaged("the two lengths of a block differ".to_owned()));
        }
        if block[..4] != SECTION_HEADER && !matches!(kind, INTERFACE | SIMPLE_PACKET | ENHANCED_PACKET) {
            return Ok(CaptureRecord::Other { len });
        }
        let parsed = if self.big_endian { parse_block_be(block) } else { parse_block_le(block) };
        match parsed {
            Ok((_, block)) => self.take(block, len),
            Err(_) => Err(Unreadable::Damaged("a block cannot be read".to_owned())),
        }
    }

    fn take(&mut self, block: Block<'_>, len: usize) -> Result<CaptureRecord, Unreadable> {
        match block {
            Block::SectionHeader(_) => {
                self.interfaces.clear();
                self.clocks.clear();
            }
            Block::InterfaceDescription(interface) => {
                let number = interface.linktype.0 as u16;
                let name = interface.if_name().and_then(Result::ok).map(Arc::from);
                self.interfaces.push(CaptureInterface { number, link: LinkType::from_number(number), name });
                self.clocks.push(StampClock {
                    resolution: resolution(interface.if_tsresol),
                    // The library always reads it as little-endian.
                    offset_s: match self.big_endian {
                        true => interface.if_tsoffset.swap_bytes(),
                        false => interface.if_tsoffset,
                    },
                    snap_len: match interface.snaplen {
                        0 => usize::MAX,
                        len => len as usize,
                    },
                });
            }
            Block::EnhancedPacket(packet) => {
                let interface = packet.if_id as usize;
                let stamp = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                return Ok(CaptureRecord::Frame {
                    bytes: 28..28 + packet.packet_data().len(),
                    wire_len: packet.origlen as usize,
                    at_ns: self.clocks.get(interface).map(|clock| clock.ns(stamp)),
                    interface,
                    len,
                });
            }
            Block::SimplePacket(packet) => {
                let snap_len = self.clocks.first().map_or(usize::MAX, |clock| clock.snap_len);
                let captured = packet.packet_data().len().min(snap_len);
                return Ok(CaptureRecord::Frame {
                    bytes: 12..12 + captured,
                    wire_len: packet.origlen as usize,
                    // It has no timestamp: it counts as captured with the frame before it.
                    at_ns: None,
                    interface: 0,
                    len,
                });
            }
            _ => {}
        }
        Ok(CaptureRecord::Other { len })
    }
}

impl StampClock {
    fn ns(&self, stamp: u64) -> u64 {
        let ns = u128::from(stamp) * NS_PER_S / self.resolution;
        let ns = i128::try_from(ns)
            .unwrap_or(i128::MAX)
            .saturating_add(i128::from(self.offset_s) * NS_PER_S as i128);
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// Timestamp units in a second: a power of two if the top bit is set, otherwise a power of ten.
fn resolution(option: u8) -> u128 {
    let exponent = u32::from(option & 0x7f);
    let base: u128 = if option & 0x80 != 0 { 2 } else { 10 };
    // With a larger exponent no timestamp of 64 bits reaches a second.
    base.checked_pow(exponent).unwrap_or(u128::MAX)
}

const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const NS_PER_S: u128 = 1_000_000_000;
