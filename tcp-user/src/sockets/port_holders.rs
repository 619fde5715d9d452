//! The sockets that hold local ports of a range, selected by the kernel.

use std::ops::RangeInclusive;

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::utsname::uname;

use super::diag::refused;
use super::{Diag, KernelSocket};
use crate::system_error::SystemError;

impl Diag {
    /// Calls `take` with each TCP socket of both families whose local port is in the range. A socket that is bound
    /// and neither connected nor listening is CLOSED here; [`shows_bound_sockets`] says whether the kernel lists
    /// them.
    pub(crate) fn on_ports(
        &mut self,
        range: &RangeInclusive<u16>,
        mut take: impl FnMut(KernelSocket),
    ) -> Result<(), SystemError> {
        self.select(on_ports_before(range, 0), &mut take)
    }

    /// Calls `take` with each of these sockets whose bind() named the port. Neither a TIME-WAIT is among them, nor a
    /// socket for which bind() chose a port.
    pub(crate) fn with_chosen_ports(
        &mut self,
        range: &RangeInclusive<u16>,
        mut take: impl FnMut(KernelSocket),
    ) -> Result<(), SystemError> {
        let program = [on_ports_before(range, NOT_AUTOBOUND.len()), NOT_AUTOBOUND.to_vec()].concat();
        self.select(program, &mut take)
    }

    fn select(&mut self, program: Vec<u8>, mut take: impl FnMut(KernelSocket)) -> Result<(), SystemError> {
        for family in [AF_INET, AF_INET6] {
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::empty(),
                states: StateFlags::from_bits_retain(StateFlags::all().bits() | BOUND_INACTIVE),
                socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
            };
            let message = DiagMessage::Request(SockDiagMessage::InetRequest(request), program.clone());
            let each = |reply, bytes: &[u8]| {
                if let DiagMessage::Reply(reply) = reply {
                    KernelSocket::from_reply(reply, bytes).into_iter().for_each(&mut take);
                }
            };
            self.channel().dump(message, each).map_err(refused)?;
        }
        Ok(())
    }
}

/// Whether the kernel lists sockets that are bound and neither connected nor listening, as Linux 6.8 and newer do.
pub(crate) fn shows_bound_sockets() -> bool {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(|number| number.parse().ok());
    let version = (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0));
    version >= (6, 8)
}

/// A request with a program that selects sockets, or a reply.
enum DiagMessage {
    Request(SockDiagMessage, Vec<u8>),
    Reply(SockDiagMessage),
}

impl NetlinkSerializable for DiagMessage {
    fn message_type(&self) -> u16 {
        let (DiagMessage::Request(message, _) | DiagMessage::Reply(message)) = self;
        message.message_type()
    }

    fn buffer_len(&self) -> usize {
        match self {
            DiagMessage::Request(message, program) => {
                NetlinkSerializable::buffer_len(message) + ATTRIBUTE_HEADER + program.len()
            }
            DiagMessage::Reply(message) => NetlinkSerializable::buffer_len(message),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (DiagMessage::Request(message, _) | DiagMessage::Reply(message)) = self;
        let (head, attribute) = buffer.split_at_mut(NetlinkSerializable::buffer_len(message));
        message.serialize(head);
        if let DiagMessage::Request(_, program) = self {
            let length = (ATTRIBUTE_HEADER + program.len()) as u16;
            attribute[..2].copy_from_slice(&length.to_ne_bytes());
            attribute[2..ATTRIBUTE_HEADER].copy_from_slice(&INET_DIAG_REQ_BYTECODE.to_ne_bytes());
            attribute[ATTRIBUTE_HEADER..].copy_from_slice(program);
        }
    }
}

impl NetlinkDeserializable for DiagMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<DiagMessage, DecodeError> {
        SockDiagMessage::deserialize(header, payload).map(DiagMessage::Reply)
    }
}

/// The program that accepts sockets whose local port is in the range, in front of `behind` more bytes of program
/// (`struct inet_diag_bc_op`).
fn on_ports_before(range: &RangeInclusive<u16>, behind: usize) -> Vec<u8> {
    let test = |code, port, rest| [operation(code, 8, 8 + rest + REJECT), operation(0, 0, port)].concat();
    let behind = behind as u16;
    [test(INET_DIAG_BC_S_GE, *range.start(), 8 + behind), test(INET_DIAG_BC_S_LE, *range.end(), behind)]
        .concat()
}

/// One operation: its code, and how many bytes to go on if its test is met, or if it is not.
const fn operation(code: u8, yes: u8, no: u16) -> [u8; 4] {
    let [first, second] = no.to_ne_bytes();
    [code, yes, first, second]
}

/// A jump so far beyond the end of the program rejects the socket.
const REJECT: u16 = 4;

/// Rejects sockets whose port no process has chosen, TIME-WAITs among them.
const NOT_AUTOBOUND: [u8; 8] = {
    let [a, b, c, d] = operation(INET_DIAG_BC_AUTO, 4, 8);
    let [e, f, g, h] = operation(INET_DIAG_BC_JMP, 4, 4 + REJECT);
    [a, b, c, d, e, f, g, h]
};

/// `TCPF_BOUND_INACTIVE`. Older kernels ignore it.
const BOUND_INACTIVE: u32 = 1 << 13;
const ATTRIBUTE_HEADER: usize = 4;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;
const INET_DIAG_BC_AUTO: u8 = 6;
