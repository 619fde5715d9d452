//! A router between the link and the server host: a third namespace, through which every frame passes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use finwait::lab::{Family, Lab, LabError, Namespace, Role, Tap};
use tcp_common::Ignored;
use tcp_common::wire::{FirstHeader, parse};

use crate::network::mac;
use crate::wire::MAX_FRAME;
use crate::world::World;

/// A router's interfaces: towards the client host, towards the server host.
pub(crate) const INTERFACES: [&str; 2] = ["left", "right"];

/// The network side of a router's interfaces.
pub(crate) struct Router([Tap; 2]);

impl Router {
    /// Makes the router of this world and connects the hosts to it.
    pub(crate) fn between(lab: &Lab, world: World) -> Result<(Namespace, Router), LabError> {
        let namespace = Namespace::new()?;
        let taps =
            [namespace.run(|| Tap::create(INTERFACES[0]))??, namespace.run(|| Tap::create(INTERFACES[1]))??];
        for (name, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ] {
            namespace.sysctl(name, value)?;
        }
        namespace.ip("link set lo up")?;
        for (side, name) in [Role::Client, Role::Server].into_iter().zip(INTERFACES) {
            namespace.ip(&format!("link set {name} address {} up", mac_of(side)))?;
        }
        if lab.supports(Family::Ipv6) {
            namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        match world {
            World::Nat => translate(lab, &namespace)?,
            _ => forward(lab, &namespace)?,
        }
        match world {
            World::DropsResets => namespace.nft(DROP_RESETS)?,
            World::Fragments => allow_fragments(lab, &namespace)?,
            _ => {}
        }
        Ok((namespace, Router(taps)))
    }

    /// Delivers a frame from the host on `from` to the router. Returns the frames that the router sends on to
    /// the other host: none if it drops the frame, several if it divides it. The kernel forwards before the
    /// delivery returns. What the router sends itself, such as neighbour discovery, is dropped.
    pub(crate) fn pass(&self, from: Role, frame: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.0[from as usize].send(frame)?;
        let mut buffer = [0; MAX_FRAME];
        while self.0[from as usize].receive(&mut buffer)?.is_some() {}
        let mut frames = Vec::new();
        while let Some(length) = self.0[from.peer() as usize].receive(&mut buffer)? {
            let frame = &buffer[..length];
            if matches!(parse(frame, FirstHeader::Ethernet, None), Ok(_) | Err(Ignored::Fragment)) {
                frames.push(frame.to_vec());
            }
        }
        Ok(frames)
    }
}

/// Both hosts have the addresses of one network, and the router is the neighbour that both know by the other's
/// address.
fn forward(lab: &Lab, router: &Namespace) -> Result<(), LabError> {
    for (side, interface) in [Role::Client, Role::Server].into_iter().zip(INTERFACES) {
        let host = lab.host(side);
        for family in lab.families() {
            let (own, peer) = (host.address(family), lab.host(side.peer()).address(family));
            router.ip(&format!("route add {own} dev {interface}"))?;
            router.ip(&neighbour(own, &mac(side, 0), interface))?;
            host.namespace().ip(&neighbour(peer, &mac_of(side), host.interface))?;
        }
    }
    Ok(())
}

/// The server host is in a network of its own. The router has the server host's address in the client host's
/// network, and the client host's in the server host's network.
fn translate(lab: &Lab, router: &Namespace) -> Result<(), LabError> {
    lab.server.namespace().ip(&format!("address flush dev {}", lab.server.interface))?;
    for family in lab.families() {
        let length = if family == Family::Ipv4 { 24 } else { 64 };
        for (side, interface) in [Role::Client, Role::Server].into_iter().zip(INTERFACES) {
            let host = lab.host(side);
            let seen = |role: Role| {
                World::Nat.seen_from(side, SocketAddr::new(lab.host(role).address(family), 0)).ip()
            };
            let (own, peer) = (seen(side), seen(side.peer()));
            if side == Role::Server {
                host.namespace().ip(&format!("address add {own}/{length} dev {} nodad", host.interface))?;
            }
            router.ip(&format!("address add {peer}/{length} dev {interface} nodad"))?;
            router.ip(&neighbour(own, &mac(side, 0), interface))?;
            host.namespace().ip(&neighbour(peer, &mac_of(side), host.interface))?;
        }
        let [table, client, server] = match family {
            Family::Ipv4 => ["ip", "10.9.0.1", "10.9.1.2"],
            Family::Ipv6 => ["ip6", "fd00:9::1", "fd00:9:1::2"],
        };
        router.nft(&format!(
            "table {table} translation {{
                chain destination {{
                    type nat hook prerouting priority dstnat;
                    meta l4proto tcp iifname left dnat to {server};
                    meta l4proto tcp iifname right dnat to {client};
                }};
                chain source {{
                    type nat hook postrouting priority srcnat;
                    meta l4proto tcp masquerade;
                }};
            }}"
        ))?;
    }
    router.nft(NO_OWN_SOCKETS)?;
    // Out-of-window segments and late RSTs are translated too.
    router.sysctl("netfilter/nf_conntrack_tcp_be_liberal", "1")?;
    router.sysctl("netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1")
}

/// Makes the router divide full segments of hosts that set no DF.
fn allow_fragments(lab: &Lab, router: &Namespace) -> Result<(), LabError> {
    for name in INTERFACES {
        router.ip(&format!("link set {name} mtu 600"))?;
    }
    for host in [&lab.client, &lab.server] {
        host.namespace().sysctl("ipv4/ip_no_pmtu_disc", "1")?;
    }
    Ok(())
}

fn neighbour(address: IpAddr, mac: &str, interface: &str) -> String {
    format!("neighbour replace {address} lladdr {mac} dev {interface} nud permanent")
}

/// The address of the router's interface towards this host.
fn mac_of(side: Role) -> String {
    format!("02:00:00:00:01:0{}", side as u8 + 1)
}

const DROP_RESETS: &str = "table inet firewall {
    chain forward { type filter hook forward priority 0; tcp flags & rst == rst drop; };
}";
/// A segment that is not translated would reach the router's own TCP, which would answer with a RST.
const NO_OWN_SOCKETS: &str = "table inet firewall {
    chain input { type filter hook input priority 0; meta l4proto tcp iifname != lo drop; };
}";
