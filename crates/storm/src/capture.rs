//! A classic pcap file with nanosecond timestamps, headers only.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The capture at the server host's interface.
pub(crate) struct Capture(BufWriter<File>);

impl Capture {
    pub(crate) fn create(path: &Path) -> io::Result<Capture> {
        const NANOSECONDS: u32 = 0xa1b2_3c4d;
        const ETHERNET: u32 = 1;
        let mut file = BufWriter::new(File::create(path)?);
        for word in [NANOSECONDS, 2 | 4 << 16, 0, 0, SNAP_LEN as u32, ETHERNET] {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(Capture(file))
    }

    pub(crate) fn write(&mut self, frame: &[u8]) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = frame.len().min(SNAP_LEN);
        let words = [at.as_secs() as u32, at.subsec_nanos(), kept as u32, frame.len() as u32];
        let header: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        // A full disk spoils the capture, not the storm.
        let _ = self.0.write_all(&header).and_then(|()| self.0.write_all(&frame[..kept]));
    }

    /// Writes the buffer to the file.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// All headers with all options.
const SNAP_LEN: usize = 128;
