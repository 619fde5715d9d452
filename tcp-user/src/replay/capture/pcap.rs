//! The pcap format: a header, then records.

use pcap_parser::{
    LegacyPcapBlock, PcapError, nom, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header,
};

use super::{Buffer, CaptureInterface, CaptureRecord, LinkType, Stamp, Unreadable, pcapng, whole};

/// The contents of the header.
pub(super) struct Pcap {
    pub(super) interface: CaptureInterface,
    parse: Parse,
    big_endian: bool,
    /// Bytes before a frame; Kuznetzov's variant has eight more.
    header_len: usize,
    /// Unit of a timestamp's fraction, ns.
    unit_ns: u64,
}

type Parse = for<'a> fn(&'a [u8]) -> nom::IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

/// Whether these bytes begin a pcap file: either byte order, micro- or nanoseconds, or Kuznetzov's variant.
pub(super) fn is_magic(magic: [u8; 4]) -> bool {
    matches!(u32::from_le_bytes(magic), 0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0xa1b2_cd34)
}

/// Whether a pcap file begins at the start of the buffer: its magic number, then version 2.4 in the same byte
/// order. No record begins so: its length would be the time zone of the header, which is 0.
pub(super) fn begins_here(buffer: &mut Buffer) -> Result<bool, Unreadable> {
    if !buffer.fill(4)?.first_chunk::<4>().is_some_and(|magic| is_magic(*magic)) {
        return Ok(false);
    }
    let version = buffer.fill(8)?.get(4..8);
    Ok(matches!(version, Some([2, 0, 4, 0] | [0, 2, 0, 4])))
}

impl Pcap {
    /// Reads the header. Returns its length as well.
    pub(super) fn open(buffer: &mut Buffer) -> Result<(Pcap, usize), Unreadable> {
        let bytes = whole(buffer, HEADER_LEN)?;
        let (_, header) = parse_pcap_header(bytes)
            .map_err(|_| Unreadable::Damaged("the header cannot be read".to_owned()))?;
        // The upper half is about frame check sequences.
        let number = (header.network.0 & 0xffff) as u16;
        let (parse, header_len): (Parse, usize) = match (header.is_modified_format(), header.is_bigendian()) {
            (true, _) => (pcap_parser::parse_pcap_frame_modified, 24),
            (false, true) => (parse_pcap_frame_be, 16),
            (false, false) => (parse_pcap_frame, 16),
        };
        let format = Pcap {
            interface: CaptureInterface { number, link: LinkType::from_number(number), name: None, point: 0 },
            parse,
            big_endian: header.is_bigendian(),
            header_len,
            unit_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
        };
        Ok((format, HEADER_LEN))
    }

    pub(super) fn next(&mut self, buffer: &mut Buffer) -> Result<CaptureRecord, Unreadable> {
        if buffer.fill(1)?.is_empty() {
            return Ok(CaptureRecord::End);
        }
        if begins_here(buffer)? || pcapng::begins_here(buffer)? {
            return Ok(CaptureRecord::Begin);
        }
        let header = whole(buffer, self.header_len)?;
        let captured = [header[8], header[9], header[10], header[11]];
        let captured =
            if self.big_endian { u32::from_be_bytes(captured) } else { u32::from_le_bytes(captured) };
        let len = self.header_len + captured as usize;
        let (_, record) = (self.parse)(whole(buffer, len)?)
            .map_err(|_| Unreadable::Damaged("a record cannot be read".to_owned()))?;
        let (seconds_ns, fraction_ns) =
            (u64::from(record.ts_sec) * SECOND_NS, u64::from(record.ts_usec) * self.unit_ns);
        Ok(CaptureRecord::Frame {
            bytes: self.header_len..len,
            wire_len: record.origlen as usize,
            stamp: match fraction_ns < SECOND_NS {
                true => Stamp::At(seconds_ns + fraction_ns),
                false => Stamp::Fraction(seconds_ns),
            },
            interface: 0,
            len,
        })
    }
}

const HEADER_LEN: usize = 24;
const SECOND_NS: u64 = 1_000_000_000;
