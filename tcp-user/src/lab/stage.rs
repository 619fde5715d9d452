//! The operations of scenarios: opening, closing, dropping segments, waiting for a state.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use nix::libc::EINPROGRESS;
use socket2::{Domain, SockFilter, Socket, Type};
use tcp_common::State;

use super::deadline::{LIMIT, wait_until};
use super::{Family, Lab, LabError, Role};

/// Where one scenario runs: the lab, the family, and the scenario's server port.
pub(super) struct Stage<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) family: Family,
    pub(super) port: u16,
}

/// The two sockets of an open connection.
pub(super) struct OpenConnection {
    pub(super) client: Socket,
    pub(super) server: Socket,
    pub(super) addresses: Addresses,
}

/// The addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

impl Stage<'_> {
    /// Opens a connection and exchanges a request and a response, so that no segment of the handshake is
    /// pending.
    pub(super) fn open(&self) -> Result<OpenConnection, LabError> {
        self.open_to(&self.listener()?, self.client_socket(0)?)
    }

    /// Opens a connection from `client` to `listener`, as [`Stage::open`] does.
    pub(super) fn open_to(&self, listener: &Socket, client: Socket) -> Result<OpenConnection, LabError> {
        client.connect(&listener.local_addr().map_err(failed)?).map_err(LabError::system("connect"))?;
        let (server, _) = listener.accept().map_err(LabError::system("accept a connection"))?;
        set_limits(&server)?;
        let addresses = Addresses { client: local_addr(&client)?, server: local_addr(&server)? };
        let connection = OpenConnection { client, server, addresses };
        connection.send(Role::Client, b"question")?;
        connection.receive(Role::Server, b"question")?;
        connection.send(Role::Server, b"answer")?;
        connection.receive(Role::Client, b"answer")?;
        Ok(connection)
    }

    /// Opens a listening socket on the server.
    pub(super) fn listener(&self) -> Result<Socket, LabError> {
        let socket = self.server_socket()?;
        socket.listen(BACKLOG).map_err(LabError::system("listen"))?;
        Ok(socket)
    }

    /// Opens a socket on the server, bound to the scenario's port but not listening. If the port is in use by
    /// an earlier run whose sockets are kept, the kernel chooses another port.
    pub(super) fn server_socket(&self) -> Result<Socket, LabError> {
        let socket = self.socket(Role::Server)?;
        match self.bind(&socket, Role::Server, self.port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.bind(&socket, Role::Server, 0),
            outcome => outcome,
        }
        .map_err(LabError::system("bind the server's port"))?;
        Ok(socket)
    }

    /// Opens an unconnected socket on the client, bound to `port` (0: any).
    pub(super) fn client_socket(&self, port: u16) -> Result<Socket, LabError> {
        let socket = self.socket(Role::Client)?;
        self.bind(&socket, Role::Client, port).map_err(LabError::system("bind the client's port"))?;
        Ok(socket)
    }

    /// Sends the SYN without waiting for an answer.
    pub(super) fn begin_connect(&self, client: &Socket, server: &Socket) -> Result<Addresses, LabError> {
        client.set_nonblocking(true).map_err(failed)?;
        match client.connect(&server.local_addr().map_err(failed)?) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => {
                return Err(LabError::system("connect")(error));
            }
            _ => {}
        }
        Ok(Addresses { client: local_addr(client)?, server: local_addr(server)? })
    }

    /// Waits until the socket of this end is in this state.
    pub(super) fn wait(&self, addresses: Addresses, side: Role, wanted: State) -> Result<(), LabError> {
        wait_until(|| {
            let state = self.state(addresses, side)?;
            Ok(if state == wanted {
                Ok(())
            } else {
                Err((format!("{} in {}", side, wanted.rfc_name()), state.rfc_name().to_owned()))
            })
        })
    }

    /// Waits until this end's filter has dropped a segment.
    pub(super) fn wait_for_drop(&self, addresses: Addresses, side: Role) -> Result<(), LabError> {
        let (local, remote) = addresses.seen_from(side);
        wait_until(|| {
            let drops = self.lab.host(side).socket(local, remote)?.map_or(0, |socket| socket.drops);
            Ok(if drops > 0 {
                Ok(())
            } else {
                Err((format!("a segment dropped at the {side}"), "none".to_owned()))
            })
        })
    }

    fn state(&self, addresses: Addresses, side: Role) -> Result<State, LabError> {
        let (local, remote) = addresses.seen_from(side);
        self.lab.host(side).state(local, remote)
    }

    fn socket(&self, side: Role) -> Result<Socket, LabError> {
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

    fn bind(&self, socket: &Socket, side: Role, port: u16) -> io::Result<()> {
        socket.bind(&SocketAddr::new(self.lab.host(side).address(self.family), port).into())
    }
}

impl OpenConnection {
    /// Sends `data` from this end.
    pub(super) fn send(&self, side: Role, data: &[u8]) -> Result<(), LabError> {
        self.socket(side).write_all(data).map_err(LabError::system("send"))
    }

    /// Waits until this end has received exactly `expected`.
    pub(super) fn receive(&self, side: Role, expected: &[u8]) -> Result<(), LabError> {
        let mut data = vec![0; expected.len()];
        self.socket(side).read_exact(&mut data).map_err(LabError::system("receive"))?;
        if data == expected {
            return Ok(());
        }
        Err(LabError::system("receive what was sent")(io::ErrorKind::InvalidData.into()))
    }

    /// Sends a FIN from this end. The socket stays open for reading.
    pub(super) fn finish(&self, side: Role) -> Result<(), LabError> {
        self.socket(side).shutdown(Shutdown::Write).map_err(LabError::system("shut down a connection"))
    }

    /// Reads at this end up to the peer's FIN.
    pub(super) fn read_to_end(&self, side: Role) -> Result<(), LabError> {
        self.socket(side).read_to_end(&mut Vec::new()).map(drop).map_err(LabError::system("receive"))
    }

    /// Sends an ACK that the kernel has delayed at this end.
    pub(super) fn acknowledge(&self, side: Role) -> Result<(), LabError> {
        self.socket(side).set_tcp_quickack(true).map_err(failed)
    }

    /// Drops every segment that arrives at this end, after it was seen on the wire and before TCP receives
    /// it.
    pub(super) fn drop_arrivals(&self, side: Role) -> Result<(), LabError> {
        drop_arrivals(self.socket(side))
    }

    /// Stops dropping segments at this end.
    pub(super) fn keep_arrivals(&self, side: Role) -> Result<(), LabError> {
        self.socket(side).detach_filter().map_err(LabError::system("detach a socket filter"))
    }

    /// The socket of this end.
    pub(super) fn socket(&self, side: Role) -> &Socket {
        match side {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    /// Both sockets, the one of this end first.
    pub(super) fn split(self, side: Role) -> (Socket, Socket) {
        match side {
            Role::Client => (self.client, self.server),
            Role::Server => (self.server, self.client),
        }
    }
}

impl Addresses {
    fn seen_from(self, side: Role) -> (SocketAddr, SocketAddr) {
        match side {
            Role::Client => (self.client, self.server),
            Role::Server => (self.server, self.client),
        }
    }
}

/// Attaches a classic BPF filter that drops every segment. It runs in `tcp_v4_rcv` and `tcp_v6_rcv`, after
/// XDP, TC and netfilter and before TCP. On a listener it also covers connections that are not yet
/// established.
pub(super) fn drop_arrivals(socket: &Socket) -> Result<(), LabError> {
    const BPF_RET_K: u16 = 0x06;
    let accept_no_byte = SockFilter::new(BPF_RET_K, 0, 0, 0);
    socket.attach_filter(&[accept_no_byte]).map_err(LabError::system("attach a socket filter"))
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
    LabError::system("set up a socket")(source)
}

const BACKLOG: i32 = 8;
