//! Executes a plan with real sockets.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use finwait::lab::{Lab, Role};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::network::Network;
use crate::plan::{Ending, Hold, Plan};
use crate::sockets::{Sockets, enable_fast_open, enable_keep_alive};

/// Shared by all plans.
pub(crate) struct Harness<'network> {
    pub(crate) network: &'network Network,
    pub(crate) sockets: Sockets,
    /// Number of comparisons so far. A connection that holds waits for the next one.
    pub(crate) comparisons: watch::Receiver<u64>,
    pub(crate) holding: std::sync::atomic::AtomicUsize,
}

/// Both ends of an open connection.
struct OpenConnection {
    streams: [Option<TcpStream>; 2],
}

impl Plan {
    /// The canonical addresses of the opener and of the other host.
    pub(crate) fn addresses(&self, lab: &Lab) -> (SocketAddr, SocketAddr) {
        let address = |side: Role, port| SocketAddr::new(lab.host(side).address(self.family), port);
        (address(self.opener, self.ports.0), address(self.opener.peer(), self.ports.1))
    }

    /// Executes the plan. An error says what deviated from the plan, which packet loss can cause.
    pub(crate) async fn perform(&self, harness: &Harness<'_>) -> Result<()> {
        let Some(mut connection) = self.open(harness).await? else { return Ok(()) };
        self.talk(&mut connection).await?;
        self.hold(Hold::Open, harness).await;
        self.close(&mut connection, harness).await
    }

    /// Opens the connection. `None` if the plan expects no connection.
    async fn open(&self, harness: &Harness<'_>) -> Result<Option<OpenConnection>> {
        let Network { world, lab, .. } = harness.network;
        let (client, server) = self.addresses(lab);
        let socket = harness.sockets.make(self.opener, self.family).await?;
        socket.bind(&world.seen_from(self.opener, client).into()).context("binding")?;
        if self.keep_alive {
            enable_keep_alive(&socket)?;
        }
        if self.fast_open && self.request > 0 && self.ending != Ending::Refused {
            enable_fast_open(&socket)?;
        }
        let arrival = harness.sockets.expect(client, server);
        let connecting =
            TcpSocket::from_std_stream(socket.into()).connect(world.seen_from(self.opener, server));
        if self.ending == Ending::OpenAbandoned {
            // Usually long enough for the SYN to be sent and too short for the answer.
            let _ = timeout(Duration::ZERO, connecting).await;
            return Ok(None);
        }
        if self.ending == Ending::Refused && !world.delivers_resets() {
            let _ = timeout(NO_RESET, connecting).await;
            return Ok(None);
        }
        let mut opened = match timeout(IO_LIMIT, connecting).await.context("opening took too long")? {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && self.ending == Ending::Refused =>
            {
                return Ok(None);
            }
            outcome => outcome.context("opening")?,
        };
        opened.write_all(&vec![b'q'; self.request]).await.context("sending the request")?;
        let accepted = timeout(IO_LIMIT, arrival).await.context("was not accepted")??;
        let mut streams = [None, None];
        streams[self.opener as usize] = Some(opened);
        streams[self.opener.peer() as usize] = Some(accepted);
        Ok(Some(OpenConnection { streams }))
    }

    /// Reads the request at the accepting host and answers it.
    async fn talk(&self, connection: &mut OpenConnection) -> Result<()> {
        let acceptor = self.opener.peer();
        connection.read(acceptor, self.request).await.context("reading the request")?;
        let mut answering = connection.streams[acceptor as usize].take().context("no stream")?;
        let answer = vec![b'a'; self.answer];
        let (sent, read) =
            tokio::join!(answering.write_all(&answer), connection.read(self.opener, self.answer));
        connection.streams[acceptor as usize] = Some(answering);
        sent.context("sending the answer")?;
        read.context("reading the answer")
    }

    async fn close(&self, connection: &mut OpenConnection, harness: &Harness<'_>) -> Result<()> {
        let (first, second) = (self.first, self.first.peer());
        match self.ending {
            Ending::Fins => {
                connection.finish(first, self.closes_socket)?;
                connection.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                connection.finish(second, true)?;
                connection.read_to_end(first).await
            }
            Ending::HalfClose { more } => {
                connection.finish(first, false)?;
                connection.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                let mut sending = connection.streams[second as usize].take().context("no stream")?;
                let data = vec![b'm'; more];
                let (sent, read) = tokio::join!(sending.write_all(&data), connection.read(first, more));
                sent.context("sending after the first FIN")?;
                read.context("reading after the first FIN")?;
                drop(sending);
                connection.read_to_end(first).await
            }
            Ending::Simultaneous => {
                connection.finish(first, self.closes_socket)?;
                connection.finish(second, self.closes_socket)?;
                connection.read_to_end(first).await?;
                connection.read_to_end(second).await
            }
            Ending::Abort => {
                connection.abort(first)?;
                connection.wait_for_reset(second, harness).await
            }
            Ending::AbortAfterFin => {
                connection.finish(first, self.closes_socket)?;
                connection.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                connection.abort(second)?;
                connection.wait_for_reset(first, harness).await
            }
            Ending::Unread => {
                connection.leave_unread(first).await?;
                connection.finish(first, true)?;
                connection.wait_for_reset(second, harness).await
            }
            Ending::UnreadAfterFin => {
                connection.leave_unread(second).await?;
                connection.finish(first, false)?;
                connection.wait_for_fin(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                connection.finish(second, true)?;
                connection.wait_for_reset(first, harness).await
            }
            Ending::DataAfterClose => {
                connection.finish(first, true)?;
                connection.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                connection.write(second, Plan::UNREAD).await?;
                connection.wait_for_reset(second, harness).await
            }
            Ending::Refused | Ending::OpenAbandoned => bail!("the connection was opened, against the plan"),
        }
    }

    async fn hold(&self, moment: Hold, harness: &Harness<'_>) {
        use std::sync::atomic::Ordering::Relaxed;
        if self.hold == moment {
            let mut comparisons = harness.comparisons.clone();
            comparisons.mark_unchanged();
            harness.holding.fetch_add(1, Relaxed);
            // The sender disappears at the end of the storm. Linux keeps a FIN-WAIT-2 without a process for a
            // minute only.
            let _ = timeout(HOLD_LIMIT, comparisons.changed()).await;
            harness.holding.fetch_sub(1, Relaxed);
        }
    }
}

impl OpenConnection {
    /// Shuts down this host's direction, or closes its socket.
    fn finish(&mut self, side: Role, closes_socket: bool) -> Result<()> {
        let stream = self.streams[side as usize].take().context("no stream")?;
        if !closes_socket {
            SockRef::from(&stream).shutdown(Shutdown::Write).context("shutting down")?;
            self.streams[side as usize] = Some(stream);
        }
        Ok(())
    }

    fn abort(&mut self, side: Role) -> Result<()> {
        let stream = self.streams[side as usize].take().context("no stream")?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("setting SO_LINGER")
    }

    async fn write(&mut self, side: Role, count: usize) -> Result<()> {
        let stream = self.streams[side as usize].as_mut().context("no stream")?;
        stream.write_all(&vec![b'x'; count]).await.context("sending")
    }

    async fn read(&mut self, side: Role, count: usize) -> Result<()> {
        let stream = self.streams[side as usize].as_mut().context("no stream")?;
        let mut data = vec![0; count];
        timeout(IO_LIMIT, stream.read_exact(&mut data)).await.context("data took too long")??;
        Ok(())
    }

    /// Reads up to the peer's FIN. Does nothing if the socket is closed already.
    async fn read_to_end(&mut self, side: Role) -> Result<()> {
        let Some(stream) = self.streams[side as usize].as_mut() else { return Ok(()) };
        let read = timeout(IO_LIMIT, stream.read_to_end(&mut Vec::new())).await;
        read.context("the FIN took too long")?.context("waiting for the FIN")?;
        Ok(())
    }

    /// Waits for the peer's FIN without reading.
    async fn wait_for_fin(&mut self, side: Role) -> Result<()> {
        let stream = self.streams[side as usize].as_ref().context("no stream")?;
        timeout(IO_LIMIT, async {
            while !stream.ready(Interest::READABLE).await?.is_read_closed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            io::Result::Ok(())
        })
        .await
        .context("the FIN took too long")??;
        Ok(())
    }

    /// Waits for the peer's RST, or for a while if none can arrive. Does nothing if the socket is closed
    /// already.
    async fn wait_for_reset(&mut self, side: Role, harness: &Harness<'_>) -> Result<()> {
        if !harness.network.world.delivers_resets() {
            tokio::time::sleep(NO_RESET).await;
            return Ok(());
        }
        let Some(stream) = self.streams[side as usize].as_ref() else { return Ok(()) };
        // After a FIN a read would return the end of the stream only.
        timeout(RESET_LIMIT, async {
            while stream.take_error()?.is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            io::Result::Ok(())
        })
        .await
        .context("no RST")??;
        Ok(())
    }

    /// Sends data from the other host and waits until it has arrived, without reading it.
    async fn leave_unread(&mut self, side: Role) -> Result<()> {
        self.write(side.peer(), Plan::UNREAD).await?;
        let stream = self.streams[side as usize].as_mut().context("no stream")?;
        let mut data = [0; Plan::UNREAD];
        timeout(IO_LIMIT, async {
            while stream.peek(&mut data).await? < data.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            io::Result::Ok(())
        })
        .await
        .context("data took too long")??;
        Ok(())
    }
}

/// The longest time that a connection holds.
const HOLD_LIMIT: Duration = Duration::from_secs(40);
/// Long enough for several retransmissions.
const IO_LIMIT: Duration = Duration::from_secs(30);
/// Long enough for a RST and for what the hosts send after it.
const NO_RESET: Duration = Duration::from_millis(500);
/// A lost RST is not retransmitted.
const RESET_LIMIT: Duration = Duration::from_secs(3);
