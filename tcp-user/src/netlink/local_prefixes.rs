//! The prefixes that this host's routing tables deliver locally.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::Channel;

/// A prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The first address.
    pub address: IpAddr,
    /// Length, in bits.
    pub len: u8,
}

impl Prefix {
    /// Whether it has one address.
    pub fn is_host(&self) -> bool {
        self.len == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = u32::from(32 - self.len.min(32));
                (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = u32::from(128 - self.len.min(128));
                (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Lists the prefixes of all routes of type `local`, in all tables: each address of the host, 127.0.0.0/8,
/// what `ip route add local` has added, and the addresses of VRFs.
///
/// # Errors
///
/// If the netlink socket cannot be opened, or the kernel refuses the request.
pub(crate) fn local_prefixes() -> io::Result<BTreeSet<Prefix>> {
    // The kernel then selects by the header, so that a host with many routes sends few of them.
    let mut channel = Channel::open_strict(NETLINK_ROUTE)?;
    let mut prefixes = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header =
            RouteHeader { address_family: family, kind: RouteType::Local, ..RouteHeader::default() };
        let dumped = channel.dump(RouteNetlinkMessage::GetRoute(request), |reply, _| {
            if let RouteNetlinkMessage::NewRoute(route) = reply {
                prefixes.extend(local_prefix(&route));
            }
        });
        match dumped {
            // A kernel without IPv6.
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {}
            dumped => dumped?,
        }
    }
    Ok(prefixes)
}

fn local_prefix(route: &RouteMessage) -> Option<Prefix> {
    if route.header.kind != RouteType::Local {
        return None;
    }
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    Some(Prefix { address, len: route.header.destination_prefix_length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_the_addresses_that_share_its_bits() {
        let prefix = |address: &str, len| Prefix { address: address.parse().unwrap(), len };
        for (prefix, address, is_in) in [
            (prefix("127.0.0.0", 8), "127.4.5.6", true),
            (prefix("127.0.0.0", 8), "128.0.0.1", false),
            (prefix("10.0.0.1", 32), "10.0.0.1", true),
            (prefix("10.0.0.1", 32), "10.0.0.3", false),
            (prefix("0.0.0.0", 0), "203.0.113.9", true),
            (prefix("2001:db8::", 32), "2001:db8:7::1", true),
            (prefix("2001:db8::", 32), "2001:db9::1", false),
            (prefix("::", 0), "fe80::1", true),
            (prefix("::", 0), "10.0.0.1", false),
        ] {
            assert_eq!(prefix.contains(address.parse().unwrap()), is_in, "{prefix:?} {address}");
        }
    }

    #[test]
    fn loopback_is_local() {
        let prefixes = local_prefixes().expect("reading the local routes");
        assert!(prefixes.iter().any(|prefix| prefix.contains(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))));
    }
}
