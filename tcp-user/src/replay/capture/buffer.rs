//! A buffer over a stream that holds one whole record at a time.

use std::io::{self, Read};

/// Bytes that were read ahead, and the number of bytes before them.
pub(super) struct Buffer {
    reader: Box<dyn Read>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes consumed so far.
    pub(super) consumed: u64,
}

impl Buffer {
    pub(super) fn new(reader: Box<dyn Read>) -> Buffer {
        Buffer { reader, bytes: vec![0; CHUNK], start: 0, end: 0, consumed: 0 }
    }

    /// Reads until the buffer has at least `wanted` bytes or the stream ends, and returns all that it has.
    /// Reads no more than that, so a live capture from a pipe is processed without delay.
    pub(super) fn fill(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.end - self.start < wanted {
            if self.end == self.bytes.len() {
                self.make_room();
            }
            match self.reader.read(&mut self.bytes[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A compressed stream that was cut short ends like a plain one.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.bytes())
    }

    /// The bytes in the buffer.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.consumed += count as u64;
    }

    /// Makes room for more bytes. The buffer grows by what was read, not by what a record claims as its
    /// length.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}

const CHUNK: usize = 1 << 16;
