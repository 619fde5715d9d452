//! The link between the two hosts: a veth pair, its addresses, and the wait until it carries packets.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::deadline::wait_until;
use super::{LabError, Namespace};
use crate::netlink::Channel;

/// Access to the interfaces and addresses of one namespace.
pub(super) struct Links(Channel);

impl Links {
    /// Opens the calling thread's namespace.
    pub(super) fn open() -> Result<Links, LabError> {
        Channel::open(NETLINK_ROUTE).map(Links).map_err(LabError::system("open a netlink socket"))
    }

    /// Creates a veth pair: one end here, the other in `peer_namespace`. The end of either namespace removes
    /// both.
    pub(super) fn create_veth(
        &mut self,
        name: &str,
        peer_name: &str,
        peer_namespace: &Namespace,
    ) -> Result<(), LabError> {
        let mut peer = named(peer_name);
        peer.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_fd().as_raw_fd()));
        let mut link = named(name);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL).map_err(LabError::of(
            "create a veth pair",
            "CAP_NET_ADMIN",
            "it has no veth driver (CONFIG_VETH)",
        ))
    }

    /// Adds an address to the interface, usable at once (no duplicate address detection).
    pub(super) fn add_address(
        &mut self,
        name: &str,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), LabError> {
        let mut message = AddressMessage::default();
        message.header.index = self.find(name)?.index;
        message.header.prefix_len = prefix_len;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        let refused = match address {
            IpAddr::V4(_) => "it has no IPv4",
            IpAddr::V6(_) => NO_IPV6,
        };
        match self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL) {
            // The kernel reports "IPv6 is disabled on this device" as EACCES, which is not a missing
            // permission here.
            Err(error) if address.is_ipv6() && error.raw_os_error() == Some(nix::libc::EACCES) => {
                Err(LabError::not_supported(ADD_ADDRESS, NO_IPV6))
            }
            outcome => outcome.map_err(LabError::of(ADD_ADDRESS, "CAP_NET_ADMIN", refused)),
        }
    }

    /// Brings the interface up.
    pub(super) fn set_up(&mut self, name: &str) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.index = self.find(name)?.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0).map_err(LabError::of(
            "bring an interface up",
            "CAP_NET_ADMIN",
            "the interface cannot be used",
        ))
    }

    /// Sets the length of the interface's transmit queue, in frames.
    pub(super) fn set_queue_length(&mut self, name: &str, frames: u32) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.index = self.find(name)?.index;
        message.attributes.push(LinkAttribute::TxQueueLen(frames));
        self.change(RouteNetlinkMessage::SetLink(message), 0).map_err(LabError::of(
            "set a queue's length",
            "CAP_NET_ADMIN",
            "the interface has no queue",
        ))
    }

    /// Waits until both ends are up. Until then the kernel drops packets.
    pub(super) fn wait_for_carrier(&mut self, name: &str) -> Result<(), LabError> {
        wait_until(|| {
            let link = self.find(name)?;
            Ok(match link.state {
                State::Up => Ok(()),
                other => Err((format!("{name} to carry packets"), format!("it is {other:?}"))),
            })
        })
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.0.request(message, flags, |_, _| {})
    }

    fn find(&mut self, name: &str) -> Result<Link, LabError> {
        let mut found = None;
        self.0
            .request(RouteNetlinkMessage::GetLink(named(name)), 0, |reply, _| {
                if let RouteNetlinkMessage::NewLink(link) = reply {
                    let state = link.attributes.iter().find_map(|attribute| match attribute {
                        LinkAttribute::OperState(state) => Some(*state),
                        _ => None,
                    });
                    found = Some(Link { index: link.header.index, state: state.unwrap_or(State::Unknown) });
                }
            })
            .map_err(LabError::system("look an interface up"))?;
        found
            .ok_or_else(|| LabError::system("look an interface up")(io::Error::from(io::ErrorKind::NotFound)))
    }
}

struct Link {
    index: u32,
    state: State,
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

const ADD_ADDRESS: &str = "add an address";
pub(super) const NO_IPV6: &str = "IPv6 is off (ipv6.disable, disable_ipv6)";
