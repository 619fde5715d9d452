//! Kernel settings of both hosts, phase by phase.

use anyhow::{Context as _, Result};
use finwait::lab::Host;

/// Settings during one phase: `net.ipv4` sysctls that differ from [`DEFAULTS`].
pub(crate) struct Settings(&'static [(&'static str, &'static str)]);

impl Settings {
    /// Applies the settings to a host.
    pub(crate) fn apply(&self, host: &Host) -> Result<()> {
        host.run(|| {
            for (name, value) in DEFAULTS.iter().chain(self.0) {
                std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
                    .with_context(|| format!("setting net.ipv4.{name} to {value}"))?;
            }
            Ok(())
        })?
    }

    /// Whether every SYN is answered with a cookie.
    pub(crate) fn cookies(&self) -> bool {
        self.0.contains(&("tcp_syncookies", "2"))
    }
}

const DEFAULTS: [(&str, &str); 6] = [
    ("tcp_timestamps", "1"),
    ("tcp_window_scaling", "1"),
    ("tcp_sack", "1"),
    ("tcp_syncookies", "1"),
    ("tcp_tw_reuse", "2"),
    ("tcp_fastopen", "3"),
];
/// The phases, repeated in this order.
pub(crate) const PHASES: [Settings; 6] = [
    Settings(&[]),
    Settings(&[("tcp_timestamps", "0")]),
    Settings(&[("tcp_tw_reuse", "1")]),
    Settings(&[("tcp_window_scaling", "0")]),
    Settings(&[("tcp_syncookies", "2")]),
    Settings(&[("tcp_timestamps", "0"), ("tcp_window_scaling", "0"), ("tcp_sack", "0")]),
];
