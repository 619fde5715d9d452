//! Capture files: pcap and pcapng as a stream of frames. The only module that uses the library for these
//! formats.
//!
//! Records are split here by the lengths that they carry, and only those that matter are parsed. So an
//! unknown block or option cannot stop a replay, and the position of an error is known to the byte.

mod buffer;
mod pcap;
mod pcapng;
mod points;

use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, poll};

use super::error::{Fault, Offset};
use super::input::Input;
use super::link::LinkType;
use super::tracker::Frame;
use super::warning::Warning;
use buffer::Buffer;
use points::CapturePoints;

/// A capture that is being read.
pub struct Capture {
    buffer: Buffer,
    decompressed: bool,
    format: CaptureFormat,
    points: CapturePoints,
    /// Length of the record returned last, in bytes. It is consumed when the next one is read.
    pending: usize,
    /// The pipe that is read, if it is one.
    pipe: Option<OwnedFd>,
    /// Number of frames so far.
    frames: u64,
    /// Found since [`Capture::take_warnings`] was called.
    warnings: Vec<Warning>,
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
    /// Number of its capture point, from 1; 0 if it has none yet.
    point: u32,
}

/// The record at the start of the buffer, as the reader of one format finds it.
enum CaptureRecord {
    /// A frame: the range of its bytes, its length on the wire, its time, the index of its interface; `len`
    /// of the record.
    Frame { bytes: Range<usize>, wire_len: usize, stamp: Stamp, interface: usize, len: usize },
    /// A record without a frame, of this length.
    Other { len: usize },
    /// Instead of a record, the header of another capture: files were concatenated.
    Begin,
    /// The end of the capture.
    End,
}

/// The timestamp of a record.
#[derive(Clone, Copy)]
enum Stamp {
    /// The format has none.
    None,
    /// Time of capture, ns since the epoch.
    At(u64),
    /// The fraction is a second or more; the whole seconds, in ns since the epoch.
    Fraction(u64),
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
        let format = CaptureFormat::open(&mut buffer, Offset { bytes: 0, decompressed })?;
        let points = CapturePoints::default();
        let pipe = input.pipe;
        Ok(Capture {
            buffer,
            decompressed,
            format,
            points,
            pending: 0,
            pipe,
            frames: 0,
            warnings: Vec::new(),
        })
    }

    /// The next frame; `None` at the end. Where captures were concatenated, the frames of the next one
    /// follow.
    ///
    /// # Errors
    ///
    /// If the next record is damaged, cut short or unreadable.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Fault> {
        let (bytes, wire_len, stamp, index) = loop {
            self.buffer.consume(std::mem::take(&mut self.pending));
            let record = match &mut self.format {
                CaptureFormat::Pcap(format) => format.next(&mut self.buffer),
                CaptureFormat::PcapNg(format) => format.next(&mut self.buffer, &mut self.points),
            };
            match record.map_err(|why| why.at(self.offset()))? {
                CaptureRecord::End => return Ok(None),
                CaptureRecord::Begin => self.begin_another()?,
                CaptureRecord::Other { len } => self.pending = len,
                CaptureRecord::Frame { bytes, wire_len, stamp, interface, len } => {
                    self.pending = len;
                    break (bytes, wire_len, stamp, interface);
                }
            }
        };
        self.frames += 1;
        let at_ns = match stamp {
            Stamp::None => None,
            Stamp::At(at_ns) => Some(at_ns),
            Stamp::Fraction(seconds_ns) => {
                self.warnings.push(Warning::Fraction { frame: self.frames });
                // The first frame has none before it.
                (self.frames == 1).then_some(seconds_ns)
            }
        };
        let offset = self.offset();
        let interfaces = self.format.interfaces_mut();
        self.points.assign(interfaces);
        let (Some(interface), Some(bytes)) = (interfaces.get(index), self.buffer.bytes().get(bytes)) else {
            let what = format!("a frame of interface {index}, which was not described");
            return Err(Fault::Damaged(offset, what));
        };
        Ok(Some(Frame {
            bytes,
            wire_len: wire_len.max(bytes.len()),
            link: interface.link,
            at_ns,
            interface: interface.name.as_ref(),
            point: interface.point,
        }))
    }

    /// The link type of the first interface; `None` if none was described.
    pub(super) fn first_link_type(&self) -> Option<u16> {
        self.format.interfaces().first().map(|interface| interface.number)
    }

    /// Waits for more of the capture. Returns whether there is none after [`PATIENCE_MS`]: the writer of the
    /// pipe has paused. A file is never idle.
    pub(super) fn is_idle(&self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let is_ahead = self.buffer.bytes().len() > self.pending;
        !is_ahead && poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], PATIENCE_MS) == Ok(0)
    }

    /// Removes and returns what was unusual about the capture since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// Reads the header of another capture. Its interfaces are those of another section.
    fn begin_another(&mut self) -> Result<(), Fault> {
        let offset = self.offset();
        self.points.end_section(self.format.interfaces());
        self.format = CaptureFormat::open(&mut self.buffer, offset)?;
        self.warnings.push(Warning::AnotherCapture(offset));
        Ok(())
    }

    fn offset(&self) -> Offset {
        Offset { bytes: self.buffer.consumed, decompressed: self.decompressed }
    }
}

impl CaptureFormat {
    /// Reads the header at the start of the buffer.
    fn open(buffer: &mut Buffer, offset: Offset) -> Result<CaptureFormat, Fault> {
        let head = buffer.fill(4).map_err(|error| Fault::Read(offset, error))?;
        match *head {
            [] => Err(Fault::Empty),
            [a, b, c, d, ..] if [a, b, c, d] == pcapng::SECTION_HEADER => {
                Ok(CaptureFormat::PcapNg(pcapng::PcapNg::default()))
            }
            [a, b, c, d, ..] if pcap::is_magic([a, b, c, d]) => {
                let (format, len) = pcap::Pcap::open(buffer).map_err(|why| why.at(offset))?;
                buffer.consume(len);
                Ok(CaptureFormat::Pcap(format))
            }
            _ => Err(Fault::NotACapture(head.iter().copied().take(4).collect())),
        }
    }

    fn interfaces(&self) -> &[CaptureInterface] {
        match self {
            CaptureFormat::Pcap(format) => std::slice::from_ref(&format.interface),
            CaptureFormat::PcapNg(format) => &format.interfaces,
        }
    }

    fn interfaces_mut(&mut self) -> &mut [CaptureInterface] {
        match self {
            CaptureFormat::Pcap(format) => std::slice::from_mut(&mut format.interface),
            CaptureFormat::PcapNg(format) => &mut format.interfaces,
        }
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
/// How long frames are held while the writer of a pipe pauses, ms.
const PATIENCE_MS: u16 = 1_000;
