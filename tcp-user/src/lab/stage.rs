//! What the scenarios are made of: opening, closing, losing segments, waiting for a state.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use nix::libc::EINPROGRESS;
use socket2::{Domain, SockFilter, Socket, Type};
use tcp_common::State;

use super::deadline::{LIMIT, wait_until};
use super::{Family, Lab, LabError, Side};

/// Where one scenario is performed: the lab, the family, and the server's port that is this scenario's own.
pub(super) struct Stage<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) family: Family,
    pub(super) port: u16,
}

/// Both ends of an open connection.
pub(super) struct Ends {
    pub(super) client: Socket,
    pub(super) server: Socket,
    pub(super) flow: Flow,
}

/// The addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

impl Stage<'_> {
    /// A connection on which a question and an answer have passed, so that nothing of the handshake is pending.
    pub(super) fn open(&self) -> Result<Ends, LabError> {
        self.open_to(&self.listener()?, self.client_socket(0)?)
    }

    /// The same with a listener and a client socket at hand.
    pub(super) fn open_to(&self, listener: &Socket, client: Socket) -> Result<Ends, LabError> {
        client.connect(&listener.local_addr().map_err(failed)?).map_err(LabError::system("connect"))?;
        let (server, _) = listener.accept().map_err(LabError::system("accept a connection"))?;
        set_limits(&server)?;
        let flow = Flow { client: local_addr(&client)?, server: local_addr(&server)? };
        let ends = Ends { client, server, flow };
        ends.send(Side::Client, b"question")?;
        ends.receive(Side::Server, b"question")?;
        ends.send(Side::Server, b"answer")?;
        ends.receive(Side::Client, b"answer")?;
        Ok(ends)
    }

    /// A listening socket of the server.
    pub(super) fn listener(&self) -> Result<Socket, LabError> {
        let socket = self.server_socket()?;
        socket.listen(BACKLOG).map_err(LabError::system("listen"))?;
        Ok(socket)
    }

    /// A socket of the server that has the scenario's port but does not listen. If a predecessor still has the port
    /// (the same scenario again, its sockets kept), any other one does.
    pub(super) fn server_socket(&self) -> Result<Socket, LabError> {
        let socket = self.socket(Side::Server)?;
        match self.bind(&socket, Side::Server, self.port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.bind(&socket, Side::Server, 0),
            outcome => outcome,
        }
        .map_err(LabError::system("bind the server's port"))?;
        Ok(socket)
    }

    /// A socket of the client, bound to `port` (0: any), not yet connected.
    pub(super) fn client_socket(&self, port: u16) -> Result<Socket, LabError> {
        let socket = self.socket(Side::Client)?;
        self.bind(&socket, Side::Client, port).map_err(LabError::system("bind the client's port"))?;
        Ok(socket)
    }

    /// Sends the SYN and does not wait for what comes of it.
    pub(super) fn begin_connect(&self, client: &Socket, server: &Socket) -> Result<Flow, LabError> {
        client.set_nonblocking(true).map_err(failed)?;
        match client.connect(&server.local_addr().map_err(failed)?) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => {
                return Err(LabError::system("connect")(error));
            }
            _ => {}
        }
        Ok(Flow { client: local_addr(client)?, server: local_addr(server)? })
    }

    /// Waits until the kernel has this end in this state.
    pub(super) fn wait(&self, flow: Flow, side: Side, wanted: State) -> Result<(), LabError> {
        wait_until(|| {
            let state = self.state(flow, side)?;
            Ok(if state == wanted {
                Ok(())
            } else {
                Err((format!("{} in {}", side, wanted.rfc_name()), state.rfc_name().to_owned()))
            })
        })
    }

    /// Waits until this end's filter has swallowed a segment.
    pub(super) fn wait_for_loss(&self, flow: Flow, side: Side) -> Result<(), LabError> {
        let (local, remote) = flow.seen_from(side);
        wait_until(|| {
            let drops = self.lab.host(side).socket(local, remote)?.map_or(0, |socket| socket.drops);
            Ok(if drops > 0 {
                Ok(())
            } else {
                Err((format!("a segment lost before {side}"), "none was".to_owned()))
            })
        })
    }

    fn state(&self, flow: Flow, side: Side) -> Result<State, LabError> {
        let (local, remote) = flow.seen_from(side);
        self.lab.host(side).state(local, remote)
    }

    fn socket(&self, side: Side) -> Result<Socket, LabError> {
        let domain = match self.family {
            Family::Ipv4 => Domain::IPV4,
            Family::Ipv6 => Domain::IPV6,
        };
        let socket = self
            .lab
            .host(side)
            .run(|| Socket::new(domain, Type::STREAM, None))?
            .map_err(LabError::system("open a socket"))?;
        socket.set_reuse_address(true).map_err(failed)?;
        set_limits(&socket)?;
        Ok(socket)
    }

    fn bind(&self, socket: &Socket, side: Side, port: u16) -> io::Result<()> {
        socket.bind(&SocketAddr::new(self.lab.host(side).address(self.family), port).into())
    }
}

impl Ends {
    /// Sends data.
    pub(super) fn send(&self, side: Side, data: &[u8]) -> Result<(), LabError> {
        self.socket(side).write_all(data).map_err(LabError::system("send"))
    }

    /// Waits for exactly these data.
    pub(super) fn receive(&self, side: Side, expected: &[u8]) -> Result<(), LabError> {
        let mut data = vec![0; expected.len()];
        self.socket(side).read_exact(&mut data).map_err(LabError::system("receive"))?;
        if data == expected {
            return Ok(());
        }
        Err(LabError::system("receive what was sent")(io::ErrorKind::InvalidData.into()))
    }

    /// Sends the FIN; the socket stays open for reading.
    pub(super) fn finish(&self, side: Side) -> Result<(), LabError> {
        self.socket(side).shutdown(Shutdown::Write).map_err(LabError::system("shut a connection down"))
    }

    /// Reads up to the peer's FIN.
    pub(super) fn read_to_end(&self, side: Side) -> Result<(), LabError> {
        self.socket(side).read_to_end(&mut Vec::new()).map(drop).map_err(LabError::system("receive"))
    }

    /// Sends an ACK that the kernel has put off.
    pub(super) fn acknowledge(&self, side: Side) -> Result<(), LabError> {
        self.socket(side).set_tcp_quickack(true).map_err(failed)
    }

    /// From now on, what arrives at this end is seen on the wire but lost before TCP gets it.
    pub(super) fn lose_arrivals(&self, side: Side) -> Result<(), LabError> {
        lose_arrivals(self.socket(side))
    }

    /// Ends the loss.
    pub(super) fn heal(&self, side: Side) -> Result<(), LabError> {
        self.socket(side).detach_filter().map_err(LabError::system("detach a socket filter"))
    }

    /// The socket on this side.
    pub(super) fn socket(&self, side: Side) -> &Socket {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// The two sockets, the one on `side` first.
    pub(super) fn split(self, side: Side) -> (Socket, Socket) {
        match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        }
    }
}

impl Flow {
    fn seen_from(self, side: Side) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        }
    }
}

/// Attaches a classic BPF filter that accepts nothing. It runs in `tcp_v4_rcv` and `tcp_v6_rcv`, after every hook of
/// the network layer (XDP, TC, netfilter) and before TCP: the segment was on the wire, the end never got it. On a
/// listener it also covers the connections that are not yet established.
pub(super) fn lose_arrivals(socket: &Socket) -> Result<(), LabError> {
    const BPF_RET_K: u16 = 0x06;
    let accept_no_octet = SockFilter::new(BPF_RET_K, 0, 0, 0);
    socket.attach_filter(&[accept_no_octet]).map_err(LabError::system("attach a socket filter"))
}

fn set_limits(socket: &Socket) -> Result<(), LabError> {
    socket.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    socket.set_write_timeout(Some(LIMIT)).map_err(failed)
}

fn local_addr(socket: &Socket) -> Result<SocketAddr, LabError> {
    socket
        .local_addr()
        .and_then(|address| address.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .map_err(failed)
}

fn failed(source: io::Error) -> LabError {
    LabError::System { action: "set up a socket", source }
}

const BACKLOG: i32 = 8;
