//! The kernel's TCP sockets, read through sock_diag.
//!
//! A socket that is not listed is CLOSED: the kernel keeps no socket in that state. Sockets in TIME-WAIT, and
//! in FIN-WAIT-2 after the process has gone, are minisockets without an inode. Sockets in SYN-RECEIVED are
//! request sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{self, ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::libc::{ENOENT, EOPNOTSUPP, EPROTONOSUPPORT};
use tcp_common::State;

use super::Listeners;
use crate::netlink::Channel;
use crate::system_error::SystemError;
use crate::view::string_enum;

/// A TCP socket of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSocket {
    /// Local address. An IPv4-mapped address of an IPv6 socket (`::ffff:a.b.c.d`) is given as IPv4. A
    /// link-local address has the index of its interface as scope id.
    pub local: SocketAddr,
    /// Remote address; unspecified with port 0 for a listener.
    pub remote: SocketAddr,
    /// State by the names of RFC 9293.
    pub state: State,
    /// Inode of the socket's file; 0 if no process holds it (minisockets, orphans, not yet accepted).
    pub inode: u32,
    /// User id of the socket's owner.
    pub uid: u32,
    /// Socket cookie, as `bpf_get_socket_cookie` returns it.
    pub cookie: u64,
    /// The running timer.
    pub timer: Option<Timer>,
    /// Time until the timer expires, in ms.
    pub expires_ms: Option<u32>,
    /// Time since the last segment in either direction, in ms, from `tcp_info`. Unknown for minisockets and
    /// for the result of [`Diag::find`]; [`Diag::inspect`] reads it.
    pub silent_ms: Option<u32>,
    /// Bytes not yet sent or acknowledged, including a FIN; for a listener the limit of its queue.
    pub send_queue: u32,
    /// Window shifts that both endpoints announced, the socket's own first. `None` if they did not, or if
    /// `silent_ms` is unknown.
    pub wscale: Option<[u8; 2]>,
    /// Segments dropped before TCP processed them: socket filter, full queues. 0 for minisockets.
    pub drops: u32,
}

/// A sock_diag socket. It lists the sockets of the namespace of the thread that opened it, from any thread.
#[derive(Debug)]
pub struct Diag {
    channel: Channel,
}

impl Diag {
    /// Opens a sock_diag socket in the calling thread's namespace, and checks that the kernel answers.
    pub fn open() -> Result<Diag, SystemError> {
        let mut diag = Diag { channel: Channel::open(NETLINK_SOCK_DIAG).map_err(refused)? };
        diag.dump(AF_INET, StateFlags::LISTEN, ExtensionFlags::empty(), |_| {}).map_err(refused)?;
        Ok(diag)
    }

    /// Lists the TCP sockets in all states, IPv4 first.
    pub fn sockets(&mut self) -> Result<Vec<KernelSocket>, SystemError> {
        let mut sockets = Vec::new();
        self.for_each(|socket| sockets.push(socket))?;
        Ok(sockets)
    }

    /// Calls `take` with each TCP socket in all states, IPv4 first. A host may have a million.
    pub fn for_each(&mut self, mut take: impl FnMut(KernelSocket)) -> Result<(), SystemError> {
        let extensions = ExtensionFlags::SKMEMINFO | ExtensionFlags::INFO;
        for family in [AF_INET, AF_INET6] {
            self.dump(family, StateFlags::all(), extensions.clone(), &mut take).map_err(refused)?;
        }
        Ok(())
    }

    /// The socket with exactly these addresses. Takes one hash lookup in the kernel.
    pub fn find(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<KernelSocket>, SystemError> {
        self.ask(local, remote, ExtensionFlags::SKMEMINFO)
    }

    /// Like [`Diag::find`], with `tcp_info`, which takes the kernel longer.
    pub fn inspect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<KernelSocket>, SystemError> {
        self.ask(local, remote, ExtensionFlags::SKMEMINFO | ExtensionFlags::INFO)
    }

    fn ask(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        extensions: ExtensionFlags,
    ) -> Result<Option<KernelSocket>, SystemError> {
        let request = InetRequest {
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions,
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: local.port(),
                destination_port: remote.port(),
                source_address: local.ip(),
                destination_address: remote.ip(),
                interface_id: scope_id(local),
                cookie: ANY_COOKIE,
            },
        };
        let mut found = None;
        let answer = self.channel.request(SockDiagMessage::InetRequest(request), 0, |reply, bytes| {
            found = KernelSocket::from_reply(reply, bytes);
        });
        match answer {
            // Without a connection the kernel answers with the listener of the port.
            Ok(()) => Ok(found.filter(|socket| socket.remote.port() == remote.port())),
            Err(error) if error.raw_os_error() == Some(ENOENT) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    /// State of the socket with these addresses; CLOSED if there is none.
    pub fn state(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<State, SystemError> {
        Ok(self.find(local, remote)?.map_or(State::Closed, |socket| socket.state))
    }

    /// The sockets that listen.
    pub fn listeners(&mut self) -> Result<Listeners, SystemError> {
        let mut listeners = Listeners::default();
        for family in [AF_INET, AF_INET6] {
            self.dump_replies(family, StateFlags::LISTEN, ExtensionFlags::empty(), |reply, _| {
                let SockDiagMessage::InetResponse(response) = reply else { return };
                let id = &response.header.socket_id;
                let v6_only = response.nlas.contains(&Nla::SkV6Only(true));
                listeners.add(SocketAddr::new(id.source_address, id.source_port), v6_only);
            })
            .map_err(refused)?;
        }
        Ok(listeners)
    }

    pub(super) fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    fn dump(
        &mut self,
        family: u8,
        states: StateFlags,
        extensions: ExtensionFlags,
        mut each: impl FnMut(KernelSocket),
    ) -> io::Result<()> {
        self.dump_replies(family, states, extensions, |reply, bytes| {
            KernelSocket::from_reply(reply, bytes).into_iter().for_each(&mut each);
        })
    }

    fn dump_replies(
        &mut self,
        family: u8,
        states: StateFlags,
        extensions: ExtensionFlags,
        each: impl FnMut(SockDiagMessage, &[u8]),
    ) -> io::Result<()> {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions,
            states,
            socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
        };
        self.channel.dump(SockDiagMessage::InetRequest(request), each)
    }
}

impl KernelSocket {
    pub(super) fn from_reply(reply: SockDiagMessage, bytes: &[u8]) -> Option<KernelSocket> {
        let SockDiagMessage::InetResponse(response) = reply else { return None };
        let InetResponse { header, nlas } = *response;
        let id = header.socket_id;
        let (local, remote) = unmapped(id.source_address, id.destination_address);
        let tcp_info =
            nlas.iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None });
        Some(KernelSocket {
            local: scoped(SocketAddr::new(local, id.source_port), id.interface_id),
            remote: scoped(SocketAddr::new(remote, id.destination_port), id.interface_id),
            state: state_from_linux(header.state)?,
            inode: header.inode,
            uid: header.uid,
            cookie: u64::from_ne_bytes(id.cookie),
            timer: header.timer.as_ref().map(Timer::from),
            expires_ms: header.timer.and(expires_ms(bytes)),
            silent_ms: tcp_info.and_then(|info| silent_ms(info)),
            send_queue: header.send_queue,
            wscale: tcp_info.and_then(|info| wscale(info)),
            drops: nlas.iter().map(|nla| if let Nla::MemInfo(memory) = nla { memory.drops } else { 0 }).sum(),
        })
    }
}

string_enum! {
    /// Timers of a TCP socket, by the names of `ss`.
    pub enum Timer ("timer") {
        /// A segment is to be retransmitted.
        Retransmit = "retransmit",
        /// A keepalive probe is to be sent.
        Keepalive = "keepalive",
        /// TIME-WAIT or FIN-WAIT-2 of a minisocket ends.
        TimeWait = "time_wait",
        /// A closed window is to be probed.
        Probe = "probe",
    }
}

impl From<&inet::Timer> for Timer {
    fn from(timer: &inet::Timer) -> Timer {
        match timer {
            inet::Timer::Retransmit(..) => Timer::Retransmit,
            inet::Timer::KeepAlive(_) => Timer::Keepalive,
            inet::Timer::TimeWait => Timer::TimeWait,
            inet::Timer::Probe(_) => Timer::Probe,
        }
    }
}

/// The RFC 9293 state of a number of Linux's `include/net/tcp_states.h`; `None` if there is none.
pub const fn state_from_linux(number: u8) -> Option<State> {
    Some(match number {
        1 => State::Established,
        2 => State::SynSent,
        // TCP_SYN_RECV, and TCP_NEW_SYN_RECV for request sockets.
        3 | 12 => State::SynReceived,
        4 => State::FinWait1,
        5 => State::FinWait2,
        6 => State::TimeWait,
        // TCP_CLOSE, and TCP_BOUND_INACTIVE for a socket that is only bound to a port.
        7 | 13 => State::Closed,
        8 => State::CloseWait,
        9 => State::LastAck,
        10 => State::Listen,
        11 => State::Closing,
        _ => return None,
    })
}

/// The address on this interface: a link-local address has its index as scope id, all others have none.
pub(crate) fn scoped(address: SocketAddr, interface: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, interface).into()
        }
        other => other,
    }
}

fn scope_id(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        _ => 0,
    }
}

/// Converts the addresses of an IPv6 socket that carries IPv4, which are both mapped (`::ffff:0:0/96`).
fn unmapped(local: IpAddr, remote: IpAddr) -> (IpAddr, IpAddr) {
    match (local.to_canonical(), remote.to_canonical()) {
        (local @ IpAddr::V4(_), remote @ IpAddr::V4(_)) => (local, remote),
        _ => (local, remote),
    }
}

/// Value of `inet_diag_msg.idiag_expires`, which the netlink crate drops for TIME-WAIT, in ms.
fn expires_ms(message: &[u8]) -> Option<u32> {
    const NLMSGHDR: usize = 16;
    const IDIAG_EXPIRES: usize = 4 + 48;
    let field = message.get(NLMSGHDR + IDIAG_EXPIRES..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

/// Minimum of `tcpi_last_data_sent`, `tcpi_last_data_recv` and `tcpi_last_ack_recv`, in ms.
fn silent_ms(tcp_info: &[u8]) -> Option<u32> {
    const AGES: [usize; 3] = [44, 52, 56];
    let age = |offset: usize| tcp_info.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    AGES.into_iter().filter_map(age).min()
}

/// Values of `tcpi_rcv_wscale`, which is the socket's own, and `tcpi_snd_wscale`, if `tcpi_options` has them.
fn wscale(tcp_info: &[u8]) -> Option<[u8; 2]> {
    const TCPI_OPT_WSCALE: u8 = 4;
    let (options, shifts) = (*tcp_info.get(5)?, *tcp_info.get(6)?);
    (options & TCPI_OPT_WSCALE != 0).then_some([shifts >> 4, shifts & 15])
}

pub(super) fn refused(error: io::Error) -> SystemError {
    let missing = [ENOENT, EOPNOTSUPP, EPROTONOSUPPORT];
    SystemError::of(ACTION, "the right to open a netlink socket", "it has no inet_diag, tcp_diag", &missing)(
        error,
    )
}

const ACTION: &str = "ask the kernel for its sockets (sock_diag)";
/// `INET_DIAG_NOCOOKIE`: a socket with any cookie.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linux_state_has_an_rfc_name() {
        let named: Vec<_> = (0..=255).filter(|number| state_from_linux(*number).is_some()).collect();
        assert_eq!(named, (1..=13).collect::<Vec<u8>>());
        assert!((1..=13).all(|number| state_from_linux(number) != Some(State::Unknown)));
    }

    #[test]
    fn only_link_local_addresses_have_a_scope() {
        let on = |address: &str, interface| scoped(address.parse().unwrap(), interface);
        assert_ne!(on("[fe80::1]:80", 3), on("[fe80::1]:80", 4));
        assert_eq!(scope_id(on("[fe80::1]:80", 3)), 3);
        for address in ["[2001:db8::1]:80", "10.9.0.1:80"] {
            assert_eq!((on(address, 3), scope_id(on(address, 3))), (address.parse().unwrap(), 0));
        }
    }

    #[test]
    fn ipv4_on_an_ipv6_socket_is_ipv4() {
        let mapped = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            unmapped(mapped("::ffff:10.9.0.1"), mapped("::ffff:10.9.0.2")),
            (mapped("10.9.0.1"), mapped("10.9.0.2"))
        );
        assert_eq!(unmapped(mapped("::"), mapped("::")), (mapped("::"), mapped("::")));
    }

    #[test]
    fn the_expiry_of_a_reply_too_short_to_have_one_is_unknown() {
        assert_eq!(expires_ms(&[0; 71]), None);
        let mut message = [0; 88];
        message[68..72].copy_from_slice(&59_210u32.to_ne_bytes());
        assert_eq!(expires_ms(&message), Some(59_210));
    }
}
