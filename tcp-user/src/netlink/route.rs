//! The kernel's choice of a route.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Channel;

/// A route to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Index of the interface that packets leave by.
    pub(crate) interface: u32,
    /// Whether the address is on the link of the interface: packets are sent to it without a gateway.
    pub(crate) is_on_link: bool,
}

/// Asks for the route to an address over a channel of NETLINK_ROUTE. `None` if there is none, or the route
/// goes to no interface.
pub(crate) fn route_to(channel: &mut Channel, address: IpAddr) -> io::Result<Option<Route>> {
    let mut request = RouteMessage::default();
    let (family, length, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    request.header =
        RouteHeader { address_family: family, destination_prefix_length: length, ..RouteHeader::default() };
    request.attributes.push(RouteAttribute::Destination(destination));
    let mut route = None;
    let answer = channel.request(RouteNetlinkMessage::GetRoute(request), 0, |reply, _| {
        if let RouteNetlinkMessage::NewRoute(reply) = reply {
            route = read(&reply);
        }
    });
    match answer {
        Ok(()) => Ok(route),
        // No route, or one that refuses packets (`unreachable`, `prohibit`, `blackhole`).
        Err(error) if UNROUTED.contains(&error.raw_os_error().unwrap_or(0)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(route: &RouteMessage) -> Option<Route> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let interface = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let has_gateway = route
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)));
    Some(Route { interface, is_on_link: !has_gateway })
}

const UNROUTED: [i32; 5] = [
    nix::libc::ENETUNREACH,
    nix::libc::EHOSTUNREACH,
    nix::libc::EACCES,
    nix::libc::EINVAL,
    nix::libc::EAFNOSUPPORT,
];
