//! Connections that nf_conntrack tracks, read through ctnetlink, and the endpoint states that its states
//! allow.
//!
//! ```text
//! nf_conntrack   it saw                      so the endpoints are in
//! SYN_SENT       SYN                         SYN-SENT                   none
//! SYN_SENT2      SYN of both                 SYN-SENT or SYN-RECEIVED   the same
//! SYN_RECV       SYN-ACK                     SYN-SENT or ESTABLISHED    SYN-RECEIVED
//! ESTABLISHED    the ACK of it               ESTABLISHED                ESTABLISHED
//! FIN_WAIT       a FIN                       FIN-WAIT-1                 ESTABLISHED or CLOSE-WAIT
//! CLOSE_WAIT     an ACK after it             FIN-WAIT-2                 CLOSE-WAIT
//! LAST_ACK       both FINs                   LAST-ACK or CLOSING        FIN-WAIT-2, CLOSING or TIME-WAIT
//! TIME_WAIT      an ACK after both           TIME-WAIT or none          TIME-WAIT or none
//! CLOSE          a RST                       none                       none
//! ```
//!
//! The table restates the comment at the head of `nf_conntrack_proto_tcp.c` for each endpoint. TIME_WAIT
//! allows none and none, because an entry lives for 120 s and the state of an endpoint for 60 s.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT};
use tcp_common::State;

use crate::netlink::Channel;
use crate::system_error::SystemError;
use crate::view::string_enum;

string_enum! {
    /// The states of nf_conntrack, by its own names.
    pub enum TrackedState ("conntrack state") {
        /// SYN seen.
        SynSent = "SYN_SENT",
        /// SYN-ACK seen.
        SynRecv = "SYN_RECV",
        /// The ACK of the SYN-ACK seen.
        Established = "ESTABLISHED",
        /// A FIN seen.
        FinWait = "FIN_WAIT",
        /// An ACK after the FIN seen.
        CloseWait = "CLOSE_WAIT",
        /// The other FIN seen.
        LastAck = "LAST_ACK",
        /// An ACK after both FINs seen.
        TimeWait = "TIME_WAIT",
        /// A RST seen.
        Close = "CLOSE",
        /// SYNs of both endpoints seen.
        SynSent2 = "SYN_SENT2",
    }
}

impl TrackedState {
    /// The state of a number of `enum tcp_conntrack`; `None` if there is none.
    fn from_linux(number: u8) -> Option<TrackedState> {
        TrackedState::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }

    /// Whether the state is compatible with two endpoint states, in either order.
    pub fn allows(self, one: State, other: State) -> bool {
        self.allows_in_order(one, other) || self.allows_in_order(other, one)
    }

    /// Whether the state is compatible with an endpoint state, whatever the other one.
    pub fn allows_end(self, end: State) -> bool {
        State::ALL.into_iter().any(|other| self.allows(end, other))
    }

    fn allows_in_order(self, one: State, other: State) -> bool {
        use State::*;
        match self {
            TrackedState::SynSent => one == SynSent && is_none(other),
            TrackedState::SynSent2 => [one, other].iter().all(|end| [SynSent, SynReceived].contains(end)),
            TrackedState::SynRecv => [SynSent, Established].contains(&one) && other == SynReceived,
            TrackedState::Established => one == Established && other == Established,
            TrackedState::FinWait => one == FinWait1 && [Established, CloseWait].contains(&other),
            TrackedState::CloseWait => one == FinWait2 && other == CloseWait,
            TrackedState::LastAck => {
                [LastAck, Closing].contains(&one) && [FinWait2, Closing, TimeWait].contains(&other)
            }
            TrackedState::TimeWait => [one, other].iter().all(|&end| end == TimeWait || is_none(end)),
            TrackedState::Close => is_none(one) && is_none(other),
        }
    }
}

/// Whether an endpoint in this state has no socket of the connection.
fn is_none(state: State) -> bool {
    matches!(state, State::Closed | State::Listen | State::Unknown)
}

/// A TCP connection that conntrack tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Source and destination of the first packet, before NAT.
    pub original: (SocketAddr, SocketAddr),
    /// Source and destination of the expected replies. With NAT it is not the reverse of `original`.
    pub reply: (SocketAddr, SocketAddr),
    /// State of the connection.
    pub state: TrackedState,
}

impl Tracked {
    /// Whether the kernel translates an address or a port.
    pub fn is_translated(&self) -> bool {
        let (source, destination) = self.original;
        self.reply != (destination, source)
    }
}

/// Lists the TCP connections that nf_conntrack tracks in the calling thread's namespace. Needs CAP_NET_ADMIN.
pub fn tracked() -> Result<Vec<Tracked>, SystemError> {
    let missing = [EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT];
    let refused = SystemError::of(
        "list the connections of conntrack",
        "CAP_NET_ADMIN",
        "conntrack is not loaded (`modprobe nf_conntrack_netlink`)",
        &missing,
    );
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let request = NetfilterMessage::new(header, ConntrackMessage::Get(Vec::new()));
    let mut all = Vec::new();
    Channel::open(NETLINK_NETFILTER)
        .and_then(|mut channel| channel.dump(request, |reply, _| all.extend(read(&reply))))
        .map_err(refused)?;
    Ok(all)
}

/// The connection of a reply; `None` if it is not of TCP.
pub(super) fn read(message: &NetfilterMessage) -> Option<Tracked> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner else {
        return None;
    };
    let (mut original, mut reply, mut state) = (None, None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = read_tuple(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = read_tuple(tuple),
            ConntrackAttribute::CtaProtoInfo(infos) => state = infos.iter().find_map(read_state),
            _ => {}
        }
    }
    Some(Tracked { original: original?, reply: reply?, state: state? })
}

fn read_state(info: &ProtoInfo) -> Option<TrackedState> {
    let ProtoInfo::TCP(attributes) = info else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        ProtoInfoTCP::State(number) => TrackedState::from_linux(*number),
        _ => None,
    })
}

/// Source and destination of a tuple; `None` if the protocol is not TCP.
fn read_tuple(tuple: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut addresses, mut ports, mut is_tcp) = ([None::<IpAddr>; 2], [None::<u16>; 2], false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => addresses[0] = Some(*address),
                        IPTuple::DestinationAddress(address) => addresses[1] = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => is_tcp = *protocol == Protocol::Tcp,
                        ProtoTuple::SourcePort(port) => ports[0] = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports[1] = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let end = |index: usize| Some(SocketAddr::new(addresses[index]?, ports[index]?));
    is_tcp.then_some((end(0)?, end(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    #[test]
    fn states_have_the_kernels_numbers() {
        assert_eq!(TrackedState::from_linux(0), None);
        assert_eq!(TrackedState::from_linux(3), Some(TrackedState::Established));
        assert_eq!(TrackedState::from_linux(8), Some(TrackedState::Close));
        assert_eq!(TrackedState::from_linux(9), Some(TrackedState::SynSent2));
        assert_eq!(TrackedState::from_linux(10), None);
    }

    #[test]
    fn one_state_stands_for_two_ends() {
        let cases = [
            (TrackedState::SynSent, SynSent, Listen, true),
            (TrackedState::SynRecv, Established, SynReceived, true),
            (TrackedState::Established, Established, CloseWait, false),
            (TrackedState::FinWait, CloseWait, FinWait1, true),
            (TrackedState::FinWait, FinWait2, CloseWait, false),
            (TrackedState::CloseWait, FinWait2, CloseWait, true),
            (TrackedState::CloseWait, FinWait1, CloseWait, false),
            (TrackedState::LastAck, TimeWait, LastAck, true),
            (TrackedState::LastAck, Closing, Closing, true),
            (TrackedState::LastAck, TimeWait, Closed, false),
            (TrackedState::TimeWait, TimeWait, Closed, true),
            (TrackedState::TimeWait, TimeWait, LastAck, false),
            (TrackedState::Close, Closed, Closed, true),
            (TrackedState::Close, Established, Closed, false),
        ];
        for (state, one, other, allowed) in cases {
            assert_eq!(state.allows(one, other), allowed, "{state} {one:?} {other:?}");
            assert_eq!(state.allows(other, one), allowed, "{state} {other:?} {one:?}");
        }
    }

    #[test]
    fn every_state_stands_for_some_ends() {
        for state in TrackedState::ALL {
            assert!(State::ALL.into_iter().any(|end| state.allows_end(end)), "{state}");
        }
        assert!(!TrackedState::Established.allows_end(TimeWait));
    }
}
