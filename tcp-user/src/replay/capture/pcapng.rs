//! The pcapng format: sections of blocks (draft-ietf-opsawg-pcapng).

use std::sync::Arc;

use pcap_parser::{Block, parse_block_be, parse_block_le};

use super::points::CapturePoints;
use super::{Buffer, CaptureInterface, CaptureRecord, LinkType, Stamp, Unreadable, pcap, whole};

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
    pub(super) fn next(
        &mut self,
        buffer: &mut Buffer,
        points: &mut CapturePoints,
    ) -> Result<CaptureRecord, Unreadable> {
        if buffer.fill(1)?.is_empty() {
            return Ok(CaptureRecord::End);
        }
        if pcap::begins_here(buffer)? {
            return Ok(CaptureRecord::Begin);
        }
        let head = whole(buffer, 12)?;
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let begins_section = word(0) == SECTION_HEADER;
        if begins_section {
            self.big_endian = match u32::from_be_bytes(word(8)) {
                BYTE_ORDER => true,
                other if other.swap_bytes() == BYTE_ORDER => false,
                _ => return Err(Unreadable::Damaged("a section whose byte order is unknown".to_owned())),
            };
        }
        let (kind, len) = (self.u32(head, 0), self.u32(head, 4) as usize);
        if len < 12 {
            return Err(Unreadable::Damaged(format!("a block claims to be {len} bytes long")));
        }
        let block = whole(buffer, len)?;
        if block[len - 4..] != block[4..8] {
            return Err(Unreadable::Damaged("the two lengths of a block differ".to_owned()));
        }
        match kind {
            _ if begins_section => {
                points.end_section(&self.interfaces);
                self.interfaces.clear();
                self.clocks.clear();
            }
            INTERFACE => self.describe(block)?,
            PACKET | ENHANCED_PACKET => return self.packet(block, kind),
            SIMPLE_PACKET => return self.simple_packet(block),
            _ => {}
        }
        Ok(CaptureRecord::Other { len })
    }

    /// Reads the description of an interface.
    fn describe(&mut self, block: &[u8]) -> Result<(), Unreadable> {
        let parsed = if self.big_endian { parse_block_be(block) } else { parse_block_le(block) };
        let Ok((_, Block::InterfaceDescription(interface))) = parsed else {
            return Err(Unreadable::Damaged("the description of an interface cannot be read".to_owned()));
        };
        let number = interface.linktype.0 as u16;
        let name = interface.if_name().and_then(Result::ok).map(Arc::from);
        self.interfaces.push(CaptureInterface {
            number,
            link: LinkType::from_number(number),
            name,
            point: 0,
        });
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
        Ok(())
    }

    /// Reads an Enhanced Packet Block, or the obsolete Packet Block (draft-ietf-opsawg-pcapng, appendix A),
    /// which differs in the field of the interface alone: it has 16 bits, and a count of drops follows.
    fn packet(&self, block: &[u8], kind: u32) -> Result<CaptureRecord, Unreadable> {
        let Some((head, data)) = block.split_at_checked(PACKET_HEADER_LEN) else {
            return Err(Unreadable::Damaged(format!("a packet block of {} bytes", block.len())));
        };
        let interface = match kind {
            PACKET => u32::from(self.u16(head, 8)),
            _ => self.u32(head, 8),
        };
        let stamp = u64::from(self.u32(head, 12)) << 32 | u64::from(self.u32(head, 16));
        let (captured, wire_len) = (self.u32(head, 20) as usize, self.u32(head, 24) as usize);
        if captured > data.len().saturating_sub(TRAILER_LEN) {
            let what = format!("a packet claims to be {captured} bytes long, which its block is not");
            return Err(Unreadable::Damaged(what));
        }
        Ok(CaptureRecord::Frame {
            bytes: PACKET_HEADER_LEN..PACKET_HEADER_LEN + captured,
            wire_len,
            stamp: self
                .clocks
                .get(interface as usize)
                .map_or(Stamp::None, |clock| Stamp::At(clock.ns(stamp))),
            interface: interface as usize,
            len: block.len(),
        })
    }

    /// Reads a Simple Packet Block, whose frame was captured at the first interface.
    fn simple_packet(&self, block: &[u8]) -> Result<CaptureRecord, Unreadable> {
        let Some((head, data)) = block.split_at_checked(SIMPLE_HEADER_LEN) else {
            return Err(Unreadable::Damaged(format!("a packet block of {} bytes", block.len())));
        };
        let wire_len = self.u32(head, 8) as usize;
        let snap_len = self.clocks.first().map_or(usize::MAX, |clock| clock.snap_len);
        let captured = wire_len.min(snap_len).min(data.len().saturating_sub(TRAILER_LEN));
        Ok(CaptureRecord::Frame {
            bytes: SIMPLE_HEADER_LEN..SIMPLE_HEADER_LEN + captured,
            wire_len,
            // It has no timestamp: it counts as captured with the frame before it.
            stamp: Stamp::None,
            interface: 0,
            len: block.len(),
        })
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes = [bytes[at], bytes[at + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// Whether a section begins at the start of the buffer.
pub(super) fn begins_here(buffer: &mut Buffer) -> Result<bool, Unreadable> {
    if !buffer.fill(4)?.starts_with(&SECTION_HEADER) {
        return Ok(false);
    }
    let order = buffer.fill(12)?.get(8..12).and_then(|order| order.first_chunk::<4>());
    Ok(order.is_some_and(|order| matches!(u32::from_be_bytes(*order), BYTE_ORDER | SWAPPED_BYTE_ORDER)))
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

pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const SWAPPED_BYTE_ORDER: u32 = BYTE_ORDER.swap_bytes();
const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Bytes of a packet block before the frame: type, length, interface, timestamp, captured and original
/// length.
const PACKET_HEADER_LEN: usize = 28;
/// Bytes of a Simple Packet Block before the frame: type, length, original length.
const SIMPLE_HEADER_LEN: usize = 12;
/// Bytes of a block after its body: the length again.
const TRAILER_LEN: usize = 4;
const NS_PER_S: u128 = 1_000_000_000;
