//! The worlds of the storm: what lies between the two hosts, and which agents observe them.

use std::net::{IpAddr, SocketAddr};

use finwait::lab::{Family, Role};
use tcp_common::FlowKey;

/// What lies between the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum World {
    /// One cable.
    Cable,
    /// Two cables, which each host uses in turn.
    TwoCables,
    /// Two cables. The hosts move their routes from one to the other all the time.
    MovingRoute,
    /// One cable with VLAN tags: one in frames of the client host, two in those of the server host. Each host
    /// has a card and a VLAN device, and its agent watches both.
    Vlan,
    /// A router that translates the addresses of both hosts (DNAT and masquerade), with an agent.
    Nat,
    /// A router that drops every RST, with an agent.
    DropsResets,
    /// A router with a small MTU, with an agent. The hosts permit fragments. IPv4 only.
    Fragments,
    /// One cable with a network tap. It does not show the agent behind it one segment in 100.
    LossyTap,
}

impl World {
    /// The world's name on the command line.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether hosts of this world make connections of the family.
    pub(crate) fn supports(self, family: Family) -> bool {
        // A router divides no IPv6 datagram.
        family == Family::Ipv4 || self != World::Fragments
    }

    /// Whether RSTs reach the other host.
    pub(crate) fn delivers_resets(self) -> bool {
        self != World::DropsResets
    }

    /// VLAN ids of the frames that the host on `side` sends, outermost first.
    pub(crate) fn vlan_ids(self, side: Role) -> &'static [u16] {
        match (self, side) {
            (World::Vlan, Role::Client) => &[100],
            (World::Vlan, Role::Server) => &[20, 200],
            _ => &[],
        }
    }

    /// An address as the host on `side` knows it. Behind a translating router, the server host has an address
    /// of another network, and knows the client host by the router's address there.
    pub(crate) fn seen_from(self, side: Role, address: SocketAddr) -> SocketAddr {
        if self != World::Nat || side == Role::Client {
            return address;
        }
        SocketAddr::new(with_network(address.ip(), BEHIND_ROUTER), address.port())
    }
}

/// The address that identifies the end in the storm: the client host is 10.9.0.1 and fd00:9::1, the server host
/// 10.9.0.2 and fd00:9::2, wherever they are seen.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(with_network(address.ip(), 0), address.port())
}

/// The key of the flow between the canonical addresses.
pub(crate) fn canonical_key(key: FlowKey) -> FlowKey {
    let canonical = |[high, low]: [u64; 2]| {
        if key.family == 4 { [high, low & !0xff00] } else { [high & !0xffff_0000, low] }
    };
    FlowKey { address_a: canonical(key.address_a), address_b: canonical(key.address_b), ..key }
}

/// The address of the same host in this network: 10.9.`network`.0/24, fd00:9:`network`::/64.
fn with_network(address: IpAddr, network: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [first, second, _, host] = address.octets();
            [first, second, network, host].into()
        }
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[2] = network.into();
            segments.into()
        }
    }
}

/// The number of the network between a translating router and the server host.
const BEHIND_ROUTER: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet_log::key;

    #[test]
    fn the_addresses_behind_a_translating_router_name_the_same_ends() {
        for (address, behind) in [("10.9.0.2:80", "10.9.1.2:80"), ("[fd00:9::1]:7", "[fd00:9:1::1]:7")] {
            let address: SocketAddr = address.parse().expect("an address");
            let seen = World::Nat.seen_from(Role::Server, address);
            assert_eq!(seen, behind.parse().expect("an address"));
            assert_eq!(canonical(seen), address);
            assert_eq!(World::Nat.seen_from(Role::Client, address), address);
            assert_eq!(World::Cable.seen_from(Role::Server, address), address);
        }
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(
            key(parse("10.9.1.1:1"), parse("10.9.1.2:2")),
            key(parse("10.9.0.1:1"), parse("10.9.0.2:2"))
        );
        assert_eq!(
            key(parse("[fd00:9:1::1]:1"), parse("[fd00:9:1::2]:2")),
            key(parse("[fd00:9::1]:1"), parse("[fd00:9::2]:2"))
        );
    }
}
