//! Questions to ctnetlink about single connections.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::ENOENT;

use super::conntrack::{Tracked, read};
use crate::netlink::Channel;

/// Looks up connections that nf_conntrack tracks in the namespace of the process. Never loads a kernel
/// module.
#[derive(Default)]
pub(crate) struct ConntrackLookup {
    channel: Option<Channel>,
}

impl ConntrackLookup {
    /// The connection that has this tuple, in either direction. `None` if conntrack tracks none, or none at
    /// all in this namespace. Takes one hash lookup in the kernel. Needs CAP_NET_ADMIN.
    pub(crate) fn find(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> io::Result<Option<Tracked>> {
        let channel = match &mut self.channel {
            Some(channel) => channel,
            // Opening the socket or asking could load a module.
            None if !is_ctnetlink_loaded() => return Ok(None),
            empty => empty.insert(Channel::open(NETLINK_NETFILTER)?),
        };
        let family = if source.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
        let tuple = ConntrackAttribute::CtaTupleOrig(vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(source.ip()),
                IPTuple::DestinationAddress(destination.ip()),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(Protocol::Tcp),
                ProtoTuple::SourcePort(source.port()),
                ProtoTuple::DestinationPort(destination.port()),
            ]),
        ]);
        let header = NetfilterHeader::new(family, 0, 0);
        let mut found = None;
        let request = NetfilterMessage::new(header, ConntrackMessage::Get(vec![tuple]));
        match channel.request(request, 0, |reply, _| found = read(&reply)) {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(ENOENT) => Ok(None),
            Err(error) => {
                // A reply may still be on its way.
                self.channel = None;
                Err(error)
            }
        }
    }
}

/// Whether conntrack tracks any connection in the namespace of the process.
pub(crate) fn is_conntrack_in_use() -> bool {
    let mut digits = [0; 16];
    // Without nf_conntrack there is no such file.
    let read = File::open("/proc/sys/net/netfilter/nf_conntrack_count")
        .and_then(|file| file.read_at(&mut digits, 0));
    read.is_ok_and(|len| digits[..len].iter().any(|digit| (b'1'..=b'9').contains(digit)))
}

/// Whether ctnetlink is part of the kernel or loaded. A kernel that has nf_conntrack built in is taken to have
/// ctnetlink built in.
fn is_ctnetlink_loaded() -> bool {
    let Ok(modules) = std::fs::read_to_string("/proc/modules") else { return true };
    let is_loaded = |name: &str| modules.lines().any(|line| line.split(' ').next() == Some(name));
    is_loaded("nf_conntrack_netlink") || !is_loaded("nf_conntrack")
}
