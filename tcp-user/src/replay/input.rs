//! Where a capture comes from: a file or standard input, plain or compressed.

use std::fs::File;
use std::io::{self, BufReader, Cursor, IsTerminal, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Fault;

/// An input whose format is known from its first bytes.
pub struct Input {
    /// The bytes, decompressed.
    pub(super) reader: Box<dyn Read>,
    /// Whether it was compressed.
    pub(super) compressed: bool,
    /// Bytes read so far, before decompression.
    pub(super) read: Arc<AtomicU64>,
    /// Bytes in total, before decompression, if known.
    pub(super) size: Option<u64>,
    /// The pipe that is read, if it is one: its writer may pause. Of a compressed stream the decoder may hold
    /// more.
    pub(super) pipe: Option<OwnedFd>,
}

impl Input {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// If there is no such file, it cannot be read, or it is a directory, a terminal or empty.
    pub fn open(path: &Path) -> Result<Input, Fault> {
        if path == Path::new("-") {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                return Err(Fault::Terminal);
            }
            // Without the buffer of `Stdin`, which would hide what has arrived.
            let file = stdin.as_fd().try_clone_to_owned().map_err(Fault::Open)?;
            return Input::from_file(File::from(file));
        }
        Input::from_file(File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::Missing,
            _ => Fault::Open(error),
        })?)
    }

    fn from_file(file: File) -> Result<Input, Fault> {
        let metadata = file.metadata().map_err(Fault::Open)?;
        if metadata.is_dir() {
            return Err(Fault::Directory);
        }
        if metadata.is_file() {
            return Ok(Input { size: Some(metadata.len()), ..Input::new(file)? });
        }
        let pipe = file.as_fd().try_clone_to_owned().map_err(Fault::Open)?;
        let input = Input::new(file)?;
        Ok(Input { pipe: (!input.compressed).then_some(pipe), ..input })
    }

    /// Reads from any source of bytes.
    ///
    /// # Errors
    ///
    /// If the first bytes cannot be read, or there are none.
    pub fn new(source: impl Read + 'static) -> Result<Input, Fault> {
        let read = Arc::new(AtomicU64::new(0));
        let mut source = Counted { source, read: Arc::clone(&read) };
        let mut magic = Vec::with_capacity(4);
        source.by_ref().take(4).read_to_end(&mut magic).map_err(Fault::Open)?;
        if magic.is_empty() {
            return Err(Fault::Empty);
        }
        let start: [u8; 4] = std::array::from_fn(|i| magic.get(i).copied().unwrap_or(0));
        let whole = Cursor::new(magic).chain(source);
        let (reader, compressed): (Box<dyn Read>, bool) = match start {
            [0x1f, 0x8b, ..] => (Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))), true),
            [0x28, 0xb5, 0x2f, 0xfd] => (Box::new(zstd::Decoder::new(whole).map_err(Fault::Open)?), true),
            _ => (Box::new(whole), false),
        };
        Ok(Input { reader, compressed, read, size: None, pipe: None })
    }
}

/// A reader that counts the bytes read.
struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
