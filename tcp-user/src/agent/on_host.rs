//! Addresses in other network namespaces of this host: containers and pods.
//!
//! Such an address is on the link of a veth or netkit device whose peer is in another namespace, or of a VLAN
//! device on it, or of a bridge that has such ports only. An address behind a gateway is not taken for one of
//! this host: from inside a container, the whole world is behind such a device.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::interfaces::Interface;
use crate::netlink::{Channel, route_to};

/// Decides which addresses are in other namespaces of this host.
#[derive(Default)]
pub struct NamespaceAddresses {
    /// Indices of the interfaces that lead into other namespaces.
    interfaces: HashSet<u32>,
    /// Answers of the kernel since `since`.
    known: HashMap<IpAddr, bool>,
    since: Option<Instant>,
    channel: Option<Channel>,
}

impl NamespaceAddresses {
    /// Notes the present interfaces.
    pub(super) fn set_interfaces(&mut self, interfaces: &[Interface]) {
        self.interfaces = leading_elsewhere(interfaces);
        self.since = None;
    }

    /// Whether an address is in another namespace of this host. Asks the kernel for the route once in
    /// [`MEMORY`].
    pub(super) fn contains(&mut self, address: IpAddr) -> bool {
        // The route to a link-local address depends on the link.
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if self.interfaces.is_empty() || is_link_local {
            return false;
        }
        if self.since.is_none_or(|since| since.elapsed() >= MEMORY) {
            self.known.clear();
            self.since = Some(Instant::now());
        }
        if let Some(&known) = self.known.get(&address) {
            return known;
        }
        let answer = self.ask(address);
        self.known.insert(address, answer);
        answer
    }

    fn ask(&mut self, address: IpAddr) -> bool {
        let channel = match self.channel.take().map_or_else(|| Channel::open(NETLINK_ROUTE), Ok) {
            Ok(channel) => self.channel.insert(channel),
            Err(error) => {
                tracing::debug!("opening a netlink socket: {error}");
                return false;
            }
        };
        match route_to(channel, address) {
            Ok(route) => {
                route.is_some_and(|route| route.is_on_link && self.interfaces.contains(&route.interface))
            }
            Err(error) => {
                tracing::debug!("asking for the route to {address}: {error}");
                // An answer may still be on its way.
                self.channel = None;
                false
            }
        }
    }
}

/// The interfaces behind which only other namespaces of this host are.
fn leading_elsewhere(interfaces: &[Interface]) -> HashSet<u32> {
    let mut found: HashSet<u32> =
        interfaces.iter().filter(|interface| interface.peer_elsewhere).map(|pair| pair.index).collect();
    // Devices can be stacked, and no deeper than this (`MAX_NEST_DEV`).
    for _ in 0..8 {
        let leads = |interface: &Interface| {
            let mut ports = interfaces.iter().filter(|port| port.master == Some(interface.index)).peekable();
            let is_bridge = ports.peek().is_some() && !interface.vrf;
            interface.vlan.is_some_and(|(below, _)| found.contains(&below))
                || (is_bridge && ports.all(|port| found.contains(&port.index)))
        };
        let more: Vec<_> =
            interfaces.iter().filter(|interface| leads(interface)).map(|one| one.index).collect();
        found.extend(more);
    }
    found
}

/// Time for which an answer of the kernel holds.
const MEMORY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_vlan_devices_on_them_and_bridges_of_them_lead_into_other_namespaces() {
        let plain = |index| Interface { index, ..Interface::default() };
        let pair = |index, master| Interface { peer_elsewhere: true, master, ..plain(index) };
        let interfaces = [
            plain(1),
            pair(2, None),
            Interface { vlan: Some((2, 10)), ..plain(3) },
            Interface { vlan: Some((1, 10)), ..plain(4) },
            // A bridge of containers only, one with a card too, and a VRF.
            plain(5),
            pair(6, Some(5)),
            pair(7, Some(5)),
            plain(8),
            pair(9, Some(8)),
            Interface { master: Some(8), ..plain(10) },
            Interface { vrf: true, ..plain(11) },
            pair(12, Some(11)),
            Interface { vlan: Some((5, 20)), ..plain(13) },
        ];
        let expected = [2, 3, 5, 6, 7, 9, 12, 13];
        assert_eq!(leading_elsewhere(&interfaces), HashSet::from(expected));
    }
}
