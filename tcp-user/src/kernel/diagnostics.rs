//! What the kernel programs say, brought to the agent's log.

use aya_log::EbpfLogger;
use log::Log;

/// The other end of the programs' debug messages (`tcp-ebpf/src/diagnostics.rs`).
pub struct Diagnostics {
    logger: EbpfLogger<&'static dyn Log>,
}

impl Diagnostics {
    pub(super) fn new(logger: EbpfLogger<&'static dyn Log>) -> Diagnostics {
        Diagnostics { logger }
    }

    /// Hands what has come since the last call to the log. When more comes than its ring of 128 KiB holds, the rest is
    /// lost; the counters have it all.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}
