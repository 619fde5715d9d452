//! Sockets of both hosts, and the doors at which connections arrive.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result};
use finwait::lab::{Family, Host, Lab, Side};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The ports on which each host listens.
pub(crate) const LISTENING_PORTS: std::ops::Range<u16> = 7000..7016;
/// A port on which nobody does.
pub(crate) const REFUSING_PORT: u16 = 6999;
/// Another one, which no plan has.
pub(crate) const UNUSED_PORT: u16 = 6998;

/// Makes sockets of either host, and hands out the connections that arrive.
pub(crate) struct Sockets {
    makers: [mpsc::Sender<(Family, oneshot::Sender<io::Result<Socket>>)>; 2],
    expected: Arc<Mutex<Expected>>,
}

/// Who waits for a connection from this address at this one.
type Expected = HashMap<(SocketAddr, SocketAddr), oneshot::Sender<TcpStream>>;

impl Sockets {
    /// Opens every port. Must be called in a tokio runtime; the threads that make sockets live as long as `scope`.
    pub(crate) fn open<'scope, 'lab: 'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        lab: &'lab Lab,
    ) -> Result<Sockets> {
        let makers = [Side::Client, Side::Server].map(|side| make_sockets(scope, lab.host(side)));
        let sockets = Sockets { makers, expected: Arc::default() };
        for side in [Side::Client, Side::Server] {
            for family in lab.families() {
                for port in LISTENING_PORTS {
                    let address = SocketAddr::new(lab.host(side).address(family), port);
                    sockets.listen(lab.host(side), address).context("opening a listening socket")?;
                }
            }
        }
        Ok(sockets)
    }

    /// A socket of this host.
    pub(crate) async fn make(&self, side: Side, family: Family) -> Result<Socket> {
        let (answer, made) = oneshot::channel();
        self.makers[side as usize].send((family, answer)).context("the socket maker is gone")?;
        Ok(made.await.context("the socket maker is gone")??)
    }

    /// Where the connection from `client` to `server` will arrive once it is accepted.
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
        take_fast_opens(&socket).context("setting TCP_FASTOPEN")?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let expected = Arc::clone(&self.expected);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, client)) => {
                        let mut expected = expected.lock().unwrap_or_else(PoisonError::into_inner);
                        // Nobody waits for the ghost of an old duplicate: it is closed at once.
                        if let Some(arrives) = expected.remove(&(client, address)) {
                            let _ = arrives.send(stream);
                        }
                    }
                    // The connection may have gone before it was accepted.
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        Ok(())
    }
}

/// Keepalive as fast as Linux has it, so that probes are seen, and as patient: the cable may stand still.
pub(crate) fn keep_alive(socket: &Socket) -> io::Result<()> {
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(127))
}

/// Data go with the SYN where the peer has given a cookie before.
pub(crate) fn open_fast(socket: &Socket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::TcpFastOpenConnect, &true)?)
}

/// Lets data come with the SYN.
fn take_fast_opens(listener: &Socket) -> io::Result<()> {
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
    let (wanted, orders) = mpsc::channel::<(Family, oneshot::Sender<io::Result<Socket>>)>();
    scope.spawn(move || {
        host.run(|| {
            for (family, answer) in orders {
                let socket = Socket::new(domain(family == Family::Ipv4), Type::STREAM, None);
                let socket = socket.and_then(|socket| {
                    socket.set_reuse_address(true)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                });
                // Who asked may have gone.
                let _ = answer.send(socket);
            }
        })
    });
    wanted
}

fn domain(ipv4: bool) -> Domain {
    if ipv4 { Domain::IPV4 } else { Domain::IPV6 }
}

static BACKLOG: i32 = 4096;
