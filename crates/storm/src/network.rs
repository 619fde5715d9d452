//! Builds the network of a world: both hosts, what lies between them, and the interfaces that agents watch.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use finwait::lab::{Family, Host, Lab, LabError, Namespace, Role, Tap};
use nix::net::if_::if_nametoindex;

use crate::port::Port;
use crate::router::{self, Router};
use crate::tap::{self, NetworkTap};
use crate::vlan::TaggedPort;
use crate::world::World;

/// The hosts of a storm.
pub(crate) struct Network {
    pub(crate) world: World,
    pub(crate) lab: Lab,
    /// The host with the third agent: the router, or the one behind the network tap.
    pub(crate) third: Option<ThirdHost>,
}

/// A host that sees every segment and has no end of a connection.
pub(crate) struct ThirdHost {
    pub(crate) namespace: Namespace,
    pub(crate) interfaces: &'static [&'static str],
}

/// What lies between the hosts.
pub(crate) enum Middle {
    Nothing,
    Router(Router),
    Tap(NetworkTap),
}

impl Network {
    /// Builds the network. The link connects the ports: of the client host, of the server host.
    pub(crate) fn build(world: World, seed: u64) -> Result<(Network, [Port; 2], Middle)> {
        let (lab, [client, server]) = Lab::with_taps().context("creating two hosts")?;
        for side in [Role::Client, Role::Server] {
            set_mac(lab.host(side), side, 0)?;
        }
        let port = |side: Role, tap: Tap| match world {
            World::TwoCables | World::MovingRoute => second_cable(&lab, side, tap, world),
            World::Vlan => vlan_device(lab.host(side), tap, world.vlan_ids(side)),
            _ => Ok(Port::cables(vec![tap])),
        };
        let ports = [port(Role::Client, client)?, port(Role::Server, server)?];
        let (third, middle) = match world {
            World::Nat | World::DropsResets | World::Fragments => {
                let (namespace, router) = Router::between(&lab, world).context("making the router")?;
                (Some(ThirdHost { namespace, interfaces: &router::INTERFACES }), Middle::Router(router))
            }
            World::LossyTap => {
                let (namespace, tap) = NetworkTap::new(seed).context("making the network tap")?;
                (Some(ThirdHost { namespace, interfaces: &[tap::INTERFACE] }), Middle::Tap(tap))
            }
            World::Cable | World::TwoCables | World::MovingRoute | World::Vlan => (None, Middle::Nothing),
        };
        Ok((Network { world, lab, third }, ports, middle))
    }

    /// The interfaces of each host that carry the storm.
    pub(crate) fn interfaces(&self) -> &'static [&'static str] {
        match self.world {
            World::TwoCables | World::MovingRoute => &CABLES,
            World::Vlan => &[FIRST_INTERFACE, CARD],
            _ => &[FIRST_INTERFACE],
        }
    }

    /// The families of which connections are made.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        self.lab.families().filter(|&family| self.world.supports(family))
    }

    /// Lets conntrack of a translating router have a connection before the storm. An agent that has just found
    /// that conntrack is unused does not ask it for a while.
    pub(crate) fn warm_up(&self) -> Result<()> {
        if self.world == World::Nat {
            let unused = SocketAddr::new(self.lab.server.address(Family::Ipv4), UNUSED_PORT);
            // Refused, as expected.
            let _ = self.lab.client.run(|| TcpStream::connect_timeout(&unused, WARM_UP))?;
            std::thread::sleep(WARM_UP);
        }
        Ok(())
    }

    /// Moves the route of one host, in both families, to one of the cables.
    pub(crate) fn move_route(&self, side: Role, cable: usize) -> Result<(), LabError> {
        let host = self.lab.host(side);
        for family in self.lab.families() {
            let (own, peer) = (host.address(family), self.lab.host(side.peer()).address(family));
            host.namespace().ip(&format!("route replace {peer} dev {} src {own}", CABLES[cable]))?;
        }
        Ok(())
    }
}

/// The Ethernet address of a host's interface on this cable.
pub(crate) fn mac(side: Role, cable: usize) -> String {
    format!("02:00:00:00:0{cable}:1{}", side as u8 + 1)
}

fn set_mac(host: &Host, side: Role, cable: usize) -> Result<(), LabError> {
    host.namespace().ip(&format!("link set {} address {}", CABLES[cable], mac(side, cable)))
}

/// Adds a second cable. Packets leave over either, and are accepted over either.
fn second_cable(lab: &Lab, side: Role, first: Tap, world: World) -> Result<Port> {
    let host = lab.host(side);
    let namespace = host.namespace();
    let second = host.run(|| Tap::create(CABLES[1]))??;
    set_mac(host, side, 1)?;
    namespace.ip(&format!("link set {} txqueuelen {QUEUE} up", CABLES[1]))?;
    namespace.sysctl("ipv4/conf/all/rp_filter", "0")?;
    for (cable, interface) in CABLES.into_iter().enumerate() {
        namespace.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0")?;
        for family in lab.families() {
            let peer = lab.host(side.peer()).address(family);
            let mac = mac(side.peer(), cable);
            namespace.ip(&format!("neighbour replace {peer} lladdr {mac} dev {interface} nud permanent"))?;
        }
    }
    if world == World::TwoCables {
        for family in lab.families() {
            let (own, peer) = (host.address(family), lab.host(side.peer()).address(family));
            let flag = if family == Family::Ipv4 { "-4" } else { "-6" };
            namespace.ip(&format!("{flag} rule add fwmark 1 lookup {SECOND_TABLE}"))?;
            namespace
                .ip(&format!("{flag} route add {peer} dev {} src {own} table {SECOND_TABLE}", CABLES[1]))?;
        }
        namespace.nft(IN_TURN)?;
    }
    Ok(Port::cables(vec![first, second]))
}

/// Puts a card below the host's interface, which becomes a VLAN device.
fn vlan_device(host: &Host, device: Tap, ids: &'static [u16]) -> Result<Port> {
    let card = host.run(|| Tap::create(CARD))??;
    // Room for the tags.
    host.namespace().ip(&format!("link set {CARD} mtu 1600 txqueuelen {QUEUE} up"))?;
    let port = host.run(|| TaggedPort::new(device, card, if_nametoindex(CARD)?, ids))??;
    Ok(Port::Tagged(port))
}

/// A port on which no socket listens and that no plan uses.
const UNUSED_PORT: u16 = 6998;
const WARM_UP: Duration = Duration::from_millis(500);
const FIRST_INTERFACE: &str = "tap0";
const CABLES: [&str; 2] = [FIRST_INTERFACE, "tap1"];
const CARD: &str = "card0";
/// Frames.
const QUEUE: u32 = 20_000;
const SECOND_TABLE: u32 = 101;
const IN_TURN: &str = "table inet turns {
    chain output { type route hook output priority mangle; meta l4proto tcp meta mark set numgen inc mod 2; };
}";
