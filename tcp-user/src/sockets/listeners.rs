//! The listening sockets of this host.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses on which sockets of this network namespace listen.
#[derive(Debug, Default)]
pub struct Listeners {
    /// By address, whether the socket accepts nothing but IPv6 (`IPV6_V6ONLY`).
    by_address: HashMap<SocketAddr, bool>,
}

impl Listeners {
    pub(super) fn add(&mut self, address: SocketAddr, v6_only: bool) {
        *self.by_address.entry(address).or_insert(true) &= v6_only;
    }

    /// Whether a socket accepts connections to this address.
    pub fn accept(&self, address: SocketAddr) -> bool {
        let at = |ip: IpAddr| self.by_address.get(&SocketAddr::new(ip, address.port()));
        let any_v6 = at(Ipv6Addr::UNSPECIFIED.into());
        at(address.ip()).is_some()
            || match address {
                SocketAddr::V4(_) => at(Ipv4Addr::UNSPECIFIED.into()).is_some() || any_v6 == Some(&false),
                SocketAddr::V6(_) => any_v6.is_some(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_bound_to_no_address_accepts_every_address() {
        let mut listeners = Listeners::default();
        for (address, v6_only) in
            [("0.0.0.0:80", false), ("[::]:81", false), ("[::]:82", true), ("127.0.0.1:83", false)]
        {
            listeners.add(address.parse().expect("an address"), v6_only);
        }
        for (address, accepted) in [
            ("10.0.0.1:80", true),
            ("[::1]:80", false),
            ("10.0.0.1:81", true),
            ("[::1]:81", true),
            ("10.0.0.1:82", false),
            ("[::1]:82", true),
            ("127.0.0.1:83", true),
            ("10.0.0.1:83", false),
        ] {
            assert_eq!(listeners.accept(address.parse().expect("an address")), accepted, "{address}");
        }
    }
}
