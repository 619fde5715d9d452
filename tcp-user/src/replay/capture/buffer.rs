//! A window on a stream that holds one whole record at a time.

use std::io::{self, Read};

/// Octets read ahead, and how many there were before them.
pub(super) struct Buffer {
    reader: Box<dyn Read>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Octets consumed so far.
    pub(super) consumed: u64,
}

impl Buffer {
    pub(super) fn new(reader: Box<dyn Read>) -> Buffer {
        Buffer { reader, bytes: vec![0; CHUNK], start: 0, end: 0, consumed: 0 }
    }

    /// What is there, at least `wanted` octets of it unless the stream ends before. Reads no more than it has to, so that
    /// a live capture from a pipe is followed without delay.
    pub(super) fn fill(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.end - self.start < wanted {
            if self.end == self.bytes.len() {
                self.make_room();
            }
            match self.reader.read(&mut self.bytes[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A compressed stream that was cut ends here as a plain one does.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.bytes())
    }

    /// What is there now.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.consumed += count as u64;
    }

    /// Grows by what has really come, not by what a record claims to be.
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
