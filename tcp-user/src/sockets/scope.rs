//! Link-local addresses: those of a record as those of a socket, and the other way round.

use std::net::SocketAddr;

use super::diag::scoped;
use crate::view::{Connection, Role, SocketPair};

/// Addresses of an end's socket, its own first, with the scope id of link-local ones.
pub(crate) fn socket_of(connection: &Connection, side: Role) -> SocketPair {
    let (local, remote) = connection.socket_of(side);
    let index = |name: &str| nix::net::if_::if_nametoindex(name).ok();
    let interface = connection.scope.as_deref().and_then(index).unwrap_or(0);
    (scoped(local, interface), scoped(remote, interface))
}

/// Name of the interface that a link-local address of a socket belongs to.
pub(crate) fn scope_of(address: SocketAddr) -> Option<String> {
    let SocketAddr::V6(v6) = address else { return None };
    let index = Some(v6.scope_id()).filter(|&index| index != 0)?;
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}
