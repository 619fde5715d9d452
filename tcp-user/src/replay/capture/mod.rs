//! Capture files: pcap and pcapng as a stream of frames. The one module that names the capture format's library.
//!
//! Records are framed here, by the lengths they carry, and only those that matter are parsed: a block that nobody knows,
//! or an option that nobody reads, cannot stop a replay, and the place of a fault is known to the octet.

mod buffer;
mod pcap;
mod pcapng;

use std::ops::Range;
use std::sync::Arc;

use super::error::{Fault, Offset};
use super::input::Input;
use super::link::LinkType;
use super::tracker::Frame;
use buffer::Buffer;

/// A capture being read.
pub struct Capture {
    buffer: Buffer,
    decompressed: bool,
    format: Format,
    /// Octets of the record given out last: consumed when the next one is asked for.
    pending: usize,
}

enum Format {
    Pcap(pcap::Pcap),
    PcapNg(pcapng::PcapNg),
}

/// Where frames were captured.
struct Interface {
    /// Number of the link type as the file has it.
    number: u16,
    link: Option<LinkType>,
    name: Option<Arc<str>>,
}

/// What a reader of one format says of the record at the buffer's begin.
enum Record {
    /// A frame: where its octets are, how long it was on the wire, when it was captured, on which interface.
    Frame { bytes: Range<usize>, wire_len: usize, at_ns: Option<u64>, interface: usize, len: usize },
    /// Something else, of this length.
    Other { len: usize },
    /// Nothing: the capture ends here.
    End,
}

/// Why a record cannot be read; the place is the buffer's begin.
enum Unreadable {
    Cut,
    Damaged(String),
    Io(std::io::Error),
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

impl Capture {
    /// Reads the header.
    pub fn new(input: Input) -> Result<Capture, Fault> {
        let mut buffer = Buffer::new(input.reader);
        let decompressed = input.compressed;
        let start = Offset { bytes: 0, decompressed };
        let head = buffer.fill(4).map_err(|error| Fault::Read(start, error))?;
        let format = match *head {
            [] => return Err(Fault::Empty),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => Format::PcapNg(pcapng::PcapNg::default()),
            [a, b, c, d, ..] if pcap::is_magic([a, b, c, d]) => {
                let (format, len) = pcap::Pcap::open(&mut buffer).map_err(|why| why.at(start))?;
                buffer.consume(len);
                Format::Pcap(format)
            }
            _ => return Err(Fault::NotACapture(head.iter().copied().take(4).collect())),
        };
        Ok(Capture { buffer, decompressed, format, pending: 0 })
    }

    /// The next frame; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Fault> {
        let (bytes, wire_len, at_ns, index) = loop {
            self.buffer.consume(std::mem::take(&mut self.pending));
            let record = match &mut self.format {
                Format::Pcap(format) => format.next(&mut self.buffer),
                Format::PcapNg(format) => format.next(&mut self.buffer),
            };
            match record.map_err(|why| why.at(self.offset()))? {
                Record::End => return Ok(None),
                Record::Other { len } => self.pending = len,
                Record::Frame { bytes, wire_len, at_ns, interface, len } => {
                    self.pending = len;
                    break (bytes, wire_len, at_ns, interface);
                }
            }
        };
        let interfaces = match &self.format {
            Format::Pcap(format) => std::slice::from_ref(&format.interface),
            Format::PcapNg(format) => &format.interfaces,
        };
        let (Some(interface), Some(bytes)) = (interfaces.get(index), self.buffer.bytes().get(bytes)) else {
            let what = format!("a frame of interface {index}, which was not described");
            return Err(Fault::Damaged(self.offset(), what));
        };
        if interface.link.is_none() && interfaces.iter().all(|other| other.link.is_none()) {
            return Err(Fault::LinkType(interface.number));
        }
        Ok(Some(Frame {
            bytes,
            wire_len: wire_len.max(bytes.len()),
            link: interface.link,
            at_ns,
            interface: interface.name.as_ref(),
            point: index as u32 + 1,
        }))
    }

    fn offset(&self) -> Offset {
        Offset { bytes: self.buffer.consumed, decompressed: self.decompressed }
    }
}

impl Unreadable {
    fn at(self, offset: Offset) -> Fault {
        match self {
            Unreadable::Cut => Fault::Truncated(offset),
            Unreadable::Damaged(what) => Fault::Damaged(offset, what),
            Unreadable::Io(error) => Fault::Read(offset, error),
        }
    }
}

/// Fills the buffer with one whole record of `len` octets.
fn whole(buffer: &mut Buffer, len: usize) -> Result<&[u8], Unreadable> {
    if len > MAX_RECORD {
        return Err(Unreadable::Damaged(format!("a record claims to be {len} octets long")));
    }
    buffer.fill(len)?.get(..len).ok_or(Unreadable::Cut)
}

/// More than any frame with its options: BIG TCP makes 512 KiB, a snapshot length is at most 256 KiB as a rule.
const MAX_RECORD: usize = 16 << 20;
