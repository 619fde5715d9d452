//! Capture files: pcap and pcapng as a stream of frames. The only module that uses the library for these
//! formats.
//!
//! Records are split here by the lengths that they carry, and only those that matter are parsed. So an
//! unknown block or option cannot stop a replay, and the position of an error is known to the byte.

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

/// A capture that is being read.
pub struct Capture {
    buffer: Buffer,
    decompressed: bool,
    format: CaptureFormat,
    /// Length of the record returned last, in bytes. It is consumed when the next one is read.
    pending: usize,
}

enum CaptureFormat {
    Pcap(pcap::Pcap),
    PcapNg(pcapng::PcapNg),
}

/// An interface on which frames were captured.
struct CaptureInterface {
    /// Number of the link type in the file.
    number: u16,
    link: Option<LinkType>,
    name: Option<Arc<str>>,
}

/// The record at the start of the buffer, as the reader of one format finds it.
enum CaptureRecord {
    /// A frame: the range of its bytes, its length on the wire, its time, the index of its interface; `len`
    /// of the record.
    Frame { bytes: Range<usize>, wire_len: usize, at_ns: Option<u64>, interface: usize, len: usize },
    /// A record without a frame, of this length.
    Other { len: usize },
    /// The end of the capture.
    End,
}

/// Why the record at the start of the buffer cannot be read.
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
    /// Reads the header of a capture.
    ///
    /// # Errors
    ///
    /// If the input is empty, is not a capture, or its header cannot be read.
    pub fn new(input: Input) -> Result<Capture, Fault> {
        let mut buffer = Buffer::new(input.reader);
        let decompressed = input.compressed;
        let start = Offset { bytes: 0, decompressed };
        let head = buffer.fill(4).map_err(|error| Fault::Read(start, error))?;
        let format = match *head {
            [] => return Err(Fault::Empty),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => CaptureFormat::PcapNg(pcapng::PcapNg::default()),
            [a, b, c, d, ..] if pcap::is_magic([a, b, c, d]) => {
                let (format, len) = pcap::Pcap::open(&mut buffer).map_err(|why| why.at(start))?;
                buffer.consume(len);
                CaptureFormat::Pcap(format)
            }
            _ => return Err(Fault::NotACapture(head.iter().copied().take(4).collect())),
        };
        Ok(Capture { buffer, decompressed, format, pending: 0 })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the next record is damaged, cut short or unreadable, or no interface has a link type that finwait
    /// reads.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Fault> {
        let (bytes, wire_len, at_ns, index) = loop {
            self.buffer.consume(std::mem::take(&mut self.pending));
            let record = match &mut self.format {
                CaptureFormat::Pcap(format) => format.next(&mut self.buffer),
                CaptureFormat::PcapNg(format) => format.next(&mut self.buffer),
            };
            match record.map_err(|why| why.at(self.offset()))? {
                CaptureRecord::End => return Ok(None),
                CaptureRecord::Other { len } => self.pending = len,
                CaptureRecord::Frame { bytes, wire_len, at_ns, interface, len } => {
                    self.pending = len;
                    break (bytes, wire_len, at_ns, interface);
                }
            }
        };
        let interfaces = match &self.format {
            CaptureFormat::Pcap(format) => std::slice::from_ref(&format.interface),
            CaptureFormat::PcapNg(format) => &format.interfaces,
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

/// Fills the buffer with one whole record of `len` bytes.
fn whole(buffer: &mut Buffer, len: usize) -> Result<&[u8], Unreadable> {
    if len > MAX_RECORD {
        return Err(Unreadable::Damaged(format!("a record claims to be {len} bytes long")));
    }
    buffer.fill(len)?.get(..len).ok_or(Unreadable::Cut)
}

/// Maximum length of a record, in bytes. A BIG TCP frame has 512 KiB, and snapshot lengths are 256 KiB at
/// most as a rule.
const MAX_RECORD: usize = 16 << 20;
