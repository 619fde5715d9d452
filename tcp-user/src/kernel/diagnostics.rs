//! The kernel programs' log, forwarded to the agent's log.

use aya_log::EbpfLogger;
use log::Log;

/// Receives the programs' debug messages (`tcp-ebpf/src/diagnostics.rs`).
pub struct Diagnostics {
    logger: EbpfLogger<&'static dyn Log>,
}

impl Diagnostics {
    pub(super) fn new(logger: EbpfLogger<&'static dyn Log>) -> Diagnostics {
        Diagnostics { logger }
    }

    /// Logs the messages since the last call. Messages that did not fit into the ring of 128 KiB are lost;
    /// the counters include their packets.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}
