//! Requests and replies over a netlink socket, without an async runtime.

mod local_prefixes;
mod route;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

pub use local_prefixes::Prefix;
pub(crate) use local_prefixes::local_prefixes;
pub(crate) use route::route_to;

/// A netlink socket of the namespace in which it was opened. May be used from any thread.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    /// Opens a socket. `protocol` is one of [`netlink_sys::protocols`].
    pub(crate) fn open(protocol: isize) -> io::Result<Channel> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Channel { socket, sequence: 0 })
    }

    /// Opens a socket on which the kernel checks the header of a dump request, and selects by it.
    pub(crate) fn open_strict(protocol: isize) -> io::Result<Channel> {
        let channel = Channel::open(protocol)?;
        channel.socket.set_netlink_get_strict_chk(true)?;
        Ok(channel)
    }

    /// Sends a request that the kernel acknowledges. `on_reply` gets each reply and its bytes, from the
    /// netlink header on.
    pub(crate) fn request<M>(
        &mut self,
        message: M,
        flags: u16,
        on_reply: impl FnMut(M, &[u8]),
    ) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(message, NLM_F_ACK | flags, on_reply)
    }

    /// Requests a whole table. `on_reply` gets each entry and its bytes, from the netlink header on.
    pub(crate) fn dump<M>(&mut self, message: M, on_reply: impl FnMut(M, &[u8])) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(message, NLM_F_DUMP, on_reply)
    }

    fn exchange<M>(&mut self, message: M, flags: u16, mut on_reply: impl FnMut(M, &[u8])) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(message, NLM_F_REQUEST | flags)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let reply = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                let (bytes, next) = split_message(rest, reply.header.length);
                rest = next;
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                match reply.payload {
                    NetlinkPayload::InnerMessage(inner) => on_reply(inner, bytes),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    fn send<M: NetlinkSerializable>(&self, message: M, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }
}

/// Messages in a datagram start at multiples of four bytes (`NLMSG_ALIGN`).
fn split_message(bytes: &[u8], length: u32) -> (&[u8], &[u8]) {
    let length = (length as usize).min(bytes.len());
    let next = length.next_multiple_of(4).clamp(1, bytes.len());
    (&bytes[..length], &bytes[next..])
}
