//! Sockets of both hosts, and the listeners that accept connections.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result};
use finwait::lab::{Family, Host, Role};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::network::Network;
use crate::world::canonical;

/// The ports on which each host listens.
pub(crate) const LISTENING_PORTS: std::ops::Range<u16> = 7000..7016;
/// A port on which no socket listens, for refused connections.
pub(crate) const REFUSING_PORT: u16 = 6999;

/// Creates sockets of either host and hands out accepted connections.
pub(crate) struct Sockets {
    makers: [mpsc::Sender<(Family, oneshot::Sender<io::Result<Socket>>)>; 2],
    expected: Arc<Mutex<Expected>>,
}

/// The receivers of expected connections, by canonical client and server address.
type Expected = HashMap<(SocketAddr, SocketAddr), oneshot::Sender<TcpStream>>;

impl Sockets {
    /// Opens every listener. Must be called in a tokio runtime. The threads that create sockets live as long
    /// as `scope`.
    pub(crate) fn open<'scope, 'network: 'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        network: &'network Network,
    ) -> Result<Sockets> {
        let lab = &network.lab;
        let makers = [Role::Client, Role::Server].map(|side| make_sockets(scope, lab.host(side)));
        let sockets = Sockets { makers, expected: Arc::default() };
        for side in [Role::Client, Role::Server] {
            for family in network.families() {
                for port in LISTENING_PORTS {
                    let address = SocketAddr::new(lab.host(side).address(family), port);
                    let address = network.world.seen_from(side, address);
                    sockets.listen(lab.host(side), address).context("opening a listening socket")?;
                }
            }
        }
        Ok(sockets)
    }

    /// Creates a socket on this host.
    pub(crate) async fn make(&self, side: Role, family: Family) -> Result<Socket> {
        let (answer, made) = oneshot::channel();
        self.makers[side as usize]
            .send((family, answer))
            .context("the thread that creates sockets has ended")?;
        Ok(made.await.context("the thread that creates sockets has ended")??)
    }

    /// Returns the channel on which the connection from `client` to `server` arrives once it is accepted.
    pub(crate) fn expect(&self, client: SocketAddr, server: SocketAddr) -> oneshot::Receiver<TcpStream> {
        let (arrives, arrival) = oneshot::channel();
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.insert((client, server), arrives);
        arrival
    }

    fn listen(&self, host: &Host, address: SocketAddr) -> Result<()> {
        let socket = host.run(|| Socket::new(domain(address.is_ipv4()), Type::STREAM, None))??;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        accept_fast_open(&socket).context("setting TCP_FASTOPEN")?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let expected = Arc::clone(&self.expected);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, client)) => {
                        let mut expected = expected.lock().unwrap_or_else(PoisonError::into_inner);
                        // An unexpected connection comes from an old duplicate SYN. Dropping the stream
                        // closes it.
                        if let Some(arrives) = expected.remove(&(canonical(client), canonical(address))) {
                            let _ = arrives.send(stream);
                        }
                    }
                    // The connection may have ended before it was accepted.
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        Ok(())
    }
}

/// Sets the shortest keepalive interval of Linux, so that probes occur, and many retries, since the link may
/// be paused.
pub(crate) fn enable_keep_alive(socket: &Socket) -> io::Result<()> {
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(127))
}

/// Sends data with the SYN, if the server has given a cookie before.
pub(crate) fn enable_fast_open(socket: &Socket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::TcpFastOpenConnect, &true)?)
}

/// Accepts data with the SYN.
fn accept_fast_open(listener: &Socket) -> io::Result<()> {
    let length = size_of_val(&BACKLOG) as libc::socklen_t;
    // SAFETY: the option's value is one int, read during the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const BACKLOG).cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn make_sockets<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    host: &'scope Host,
) -> mpsc::Sender<(Family, oneshot::Sender<io::Result<Socket>>)> {
    let (requests, received) = mpsc::channel::<(Family, oneshot::Sender<io::Result<Socket>>)>();
    scope.spawn(move || {
        host.run(|| {
            for (family, answer) in received {
                let socket = Socket::new(domain(family == Family::Ipv4), Type::STREAM, None);
                let socket = socket.and_then(|socket| {
                    socket.set_reuse_address(true)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                });
                // The caller may have given up.
                let _ = answer.send(socket);
            }
        })
    });
    requests
}

fn domain(ipv4: bool) -> Domain {
    if ipv4 { Domain::IPV4 } else { Domain::IPV6 }
}

static BACKLOG: i32 = 4096;
