//! The settings of this network namespace that say which local ports connect() may choose.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::KernelSocket;
use super::port_set::PortSet;

/// The settings under `net.ipv4`, which hold for IPv6 too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EphemeralPorts {
    /// `ip_local_port_range`.
    pub(crate) range: RangeInclusive<u16>,
    /// `ip_local_reserved_ports`.
    pub(crate) reserved: PortSet,
    /// `tcp_tw_reuse`.
    pub(crate) reuse: TimeWaitReuse,
    /// `tcp_tw_reuse_delay`, in ms; 1000 before Linux 6.14.
    pub(crate) reuse_delay_ms: u32,
}

/// Which TIME-WAITs connect() may take, if they are older than a delay and had timestamps (kernel function
/// `tcp_twsk_unique`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeWaitReuse {
    /// None.
    Never,
    /// Those of any connection.
    Always,
    /// Those of a connection with a loopback address.
    Loopback,
}

impl EphemeralPorts {
    /// Reads the settings of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// If `/proc/sys` is not readable or a value is not understood. The error names the setting.
    pub(crate) fn read() -> io::Result<EphemeralPorts> {
        let reuse: u8 = setting("tcp_tw_reuse", |text| text.parse().ok())?;
        Ok(EphemeralPorts {
            range: setting("ip_local_port_range", parse_range)?,
            reserved: setting("ip_local_reserved_ports", parse_set)?,
            reuse: match reuse {
                0 => TimeWaitReuse::Never,
                2 => TimeWaitReuse::Loopback,
                _ => TimeWaitReuse::Always,
            },
            reuse_delay_ms: setting("tcp_tw_reuse_delay", |text| text.parse().ok()).unwrap_or(1_000),
        })
    }

    /// Number of ports in the range.
    pub(crate) fn len(&self) -> u32 {
        u32::from(*self.range.end()) + 1 - u32::from(*self.range.start())
    }

    /// Whether connect() may choose the port, if it is not in use.
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.contains(port)
    }

    /// Whether connect() may take the TIME-WAIT of this connection once it is old enough, if the connection had
    /// timestamps.
    pub(crate) fn permits_reuse(&self, socket: &KernelSocket) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        match self.reuse {
            TimeWaitReuse::Never => false,
            TimeWaitReuse::Always => true,
            TimeWaitReuse::Loopback => is_loopback(socket.local.ip()) || is_loopback(socket.remote.ip()),
        }
    }
}

fn setting<T>(name: &str, parse: impl FnOnce(&str) -> Option<T>) -> io::Result<T> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    let failed = |error: String| io::Error::other(format!("{path}: {error}"));
    let text = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    parse(text.trim()).ok_or_else(|| failed(format!("cannot understand {text:?}")))
}

/// Parses `32768\t60999`.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(char::is_whitespace)?;
    let range = first.parse().ok()?..=last.trim().parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// Parses `8080,9148-9150`.
fn parse_set(text: &str) -> Option<PortSet> {
    let mut set = PortSet::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (u16::from_str(first).ok()?, u16::from_str(last).ok()?);
        (first..=last).for_each(|port| set.insert(port));
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_written_as_the_kernel_writes_them() {
        assert_eq!(parse_range("32768\t60999"), Some(32_768..=60_999));
        assert_eq!((parse_range("32768"), parse_range("60999 32768")), (None, None));
        let set = parse_set("8080,9148-9150").expect("a list");
        let members: Vec<u16> = (0..=u16::MAX).filter(|&port| set.contains(port)).collect();
        assert_eq!(members, [8_080, 9_148, 9_149, 9_150]);
        assert_eq!((set.count_in(0..=u16::MAX), set.count_in(9_149..=u16::MAX)), (4, 2));
        assert_eq!(parse_set(""), Some(PortSet::default()));
        assert_eq!(parse_set("80,http"), None);
    }
}
