//! The address of a listener as people type it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;

/// Parses `ADDRESS:PORT`, `[IPV6]:PORT`, `HOST:PORT` or `:PORT` (every address of this host).
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().map_err(|_| expected())?;
    if host.is_empty() {
        return Ok(SocketAddr::new(any_address(), port));
    }
    if host.contains([':', '[', ']', '/']) {
        return Err(expected());
    }
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot resolve host {host:?}: {error}; {}", expected()))?
        .collect();
    // IPv4 first, as Go's servers do: `localhost` is 127.0.0.1.
    let chosen = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    chosen.copied().ok_or_else(|| format!("host {host:?} has no address"))
}

/// `::` accepts IPv4 too; a kernel without IPv6 has only `0.0.0.0`.
fn any_address() -> IpAddr {
    if Path::new("/proc/net/if_inet6").exists() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

fn expected() -> String {
    "expected an address and a port, such as 127.0.0.1:9817, [::1]:9817, localhost:9817 or :9817".to_owned()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn addresses_hosts_and_bare_ports() {
        for (text, address) in
            [("127.0.0.1:1", "127.0.0.1:1"), ("[::1]:0", "[::1]:0"), ("localhost:9817", "127.0.0.1:9817")]
        {
            assert_eq!(parse(text).map(|address| address.to_string()).as_deref(), Ok(address), "{text}");
        }
        let any = parse(":9817").expect("a bare port");
        assert!(any.ip().is_unspecified() && any.port() == 9817);
        for text in
            ["", "9817", "localhost", "127.0.0.1", "::1:9817:", "[::1]", "localhost:", "localhost:65536"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
