//! Between the key of a flow and the addresses of a socket.

use std::net::{IpAddr, SocketAddr};

use tcp_common::{End, Endpoint, FlowKey};

use crate::sockets::scoped;
use crate::view::SocketPair;
use crate::view::describe::address;

/// The key of the packets that a socket with these addresses sends, and the end that the socket is.
pub(super) fn key((local, remote): SocketPair) -> (FlowKey, End) {
    let family = if local.is_ipv4() { 4 } else { 6 };
    let domain = match local {
        SocketAddr::V6(v6) => v6.scope_id() as u16,
        SocketAddr::V4(_) => 0,
    };
    FlowKey::new(endpoint(local), endpoint(remote), domain, family)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    match address.ip() {
        IpAddr::V4(ip) => Endpoint::v4(ip.octets(), address.port()),
        IpAddr::V6(ip) => Endpoint::v6(ip.octets(), address.port()),
    }
}

/// Addresses and ports of a flow, those of `first` first. The domain of link-local addresses is their scope.
pub(super) fn ends(key: &FlowKey, first: End) -> SocketPair {
    let end =
        |end: End| scoped(SocketAddr::new(address(key, end), key.endpoint(end).port), key.domain.into());
    (end(first), end(first.peer()))
}
