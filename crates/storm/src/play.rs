//! A plan carried out with real sockets.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use finwait::lab::{Lab, Side};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::plan::{Ending, Hold, Plan};
use crate::sockets::{Sockets, keep_alive, open_fast};

/// What the plans share.
pub(crate) struct Harness<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) sockets: Sockets,
    /// How many comparisons have been made: who holds still waits for the next one.
    pub(crate) comparisons: watch::Receiver<u64>,
    pub(crate) holding: std::sync::atomic::AtomicUsize,
}

/// Both ends of an open connection.
struct Ends {
    streams: [Option<TcpStream>; 2],
}

impl Plan {
    /// The opener's address and the other host's.
    pub(crate) fn addresses(&self, lab: &Lab) -> (SocketAddr, SocketAddr) {
        let address = |side: Side, port| SocketAddr::new(lab.host(side).address(self.family), port);
        (address(self.opener, self.ports.0), address(self.opener.peer(), self.ports.1))
    }

    /// Carries it out. An error says what did not go as planned: under loss that may be.
    pub(crate) async fn perform(&self, harness: &Harness<'_>) -> Result<()> {
        let Some(mut ends) = self.open(harness).await? else { return Ok(()) };
        self.talk(&mut ends).await?;
        self.hold(Hold::Open, harness).await;
        self.close(&mut ends, harness).await
    }

    /// Opens; `None` where nothing came of it, as planned.
    async fn open(&self, harness: &Harness<'_>) -> Result<Option<Ends>> {
        let (client, server) = self.addresses(harness.lab);
        let socket = harness.sockets.make(self.opener, self.family).await?;
        socket.bind(&client.into()).context("binding")?;
        if self.keep_alive {
            keep_alive(&socket)?;
        }
        if self.fast_open && self.request > 0 && self.ending != Ending::Refused {
            open_fast(&socket)?;
        }
        let arrival = harness.sockets.expect(client, server);
        let connecting = TcpSocket::from_std_stream(socket.into()).connect(server);
        if self.ending == Ending::OpenAbandoned {
            // Long enough for the SYN to be sent, often too short for the answer.
            let _ = timeout(Duration::ZERO, connecting).await;
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
        Ok(Some(Ends { streams }))
    }

    /// The acceptor reads what the opener has sent, and answers.
    async fn talk(&self, ends: &mut Ends) -> Result<()> {
        let acceptor = self.opener.peer();
        ends.read(acceptor, self.request).await.context("reading the request")?;
        let mut answering = ends.streams[acceptor as usize].take().context("no stream")?;
        let answer = vec![b'a'; self.answer];
        let (sent, read) = tokio::join!(answering.write_all(&answer), ends.read(self.opener, self.answer));
        ends.streams[acceptor as usize] = Some(answering);
        sent.context("sending the answer")?;
        read.context("reading the answer")
    }

    async fn close(&self, ends: &mut Ends, harness: &Harness<'_>) -> Result<()> {
        let (first, second) = (self.first, self.first.peer());
        match self.ending {
            Ending::Fins => {
                ends.finish(first, self.whole)?;
                ends.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                ends.finish(second, true)?;
                ends.read_to_end(first).await
            }
            Ending::HalfClose { more } => {
                ends.finish(first, false)?;
                ends.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                let mut sending = ends.streams[second as usize].take().context("no stream")?;
                let data = vec![b'm'; more];
                let (sent, read) = tokio::join!(sending.write_all(&data), ends.read(first, more));
                sent.context("sending after the first FIN")?;
                read.context("reading after the own FIN")?;
                drop(sending);
                ends.read_to_end(first).await
            }
            Ending::Simultaneous => {
                ends.finish(first, self.whole)?;
                ends.finish(second, self.whole)?;
                ends.read_to_end(first).await?;
                ends.read_to_end(second).await
            }
            Ending::Abort => {
                ends.abort(first)?;
                ends.see_reset(second).await
            }
            Ending::AbortAfterFin => {
                ends.finish(first, self.whole)?;
                ends.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                ends.abort(second)?;
                ends.see_reset(first).await
            }
            Ending::Unread => {
                ends.leave_unread(first).await?;
                ends.finish(first, true)?;
                ends.see_reset(second).await
            }
            Ending::UnreadAfterFin => {
                ends.leave_unread(second).await?;
                ends.finish(first, false)?;
                ends.see_fin(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                ends.finish(second, true)?;
                ends.see_reset(first).await
            }
            Ending::DataAfterClose => {
                ends.finish(first, true)?;
                ends.read_to_end(second).await?;
                self.hold(Hold::HalfClosed, harness).await;
                ends.write(second, Plan::UNREAD).await?;
                ends.see_reset(second).await
            }
            Ending::Refused | Ending::OpenAbandoned => bail!("it was opened"),
        }
    }

    async fn hold(&self, place: Hold, harness: &Harness<'_>) {
        use std::sync::atomic::Ordering::Relaxed;
        if self.hold == place {
            let mut comparisons = harness.comparisons.clone();
            comparisons.mark_unchanged();
            harness.holding.fetch_add(1, Relaxed);
            // Its end is the end of the storm. Linux keeps a FIN-WAIT-2 without a process a minute only.
            let _ = timeout(HOLD_LIMIT, comparisons.changed()).await;
            harness.holding.fetch_sub(1, Relaxed);
        }
    }
}

impl Ends {
    /// Shuts down this host's half, or closes its socket.
    fn finish(&mut self, side: Side, whole: bool) -> Result<()> {
        let stream = self.streams[side as usize].take().context("no stream")?;
        if !whole {
            SockRef::from(&stream).shutdown(Shutdown::Write).context("shutting down")?;
            self.streams[side as usize] = Some(stream);
        }
        Ok(())
    }

    fn abort(&mut self, side: Side) -> Result<()> {
        let stream = self.streams[side as usize].take().context("no stream")?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("setting SO_LINGER")
    }

    async fn write(&mut self, side: Side, count: usize) -> Result<()> {
        let stream = self.streams[side as usize].as_mut().context("no stream")?;
        stream.write_all(&vec![b'x'; count]).await.context("sending")
    }

    async fn read(&mut self, side: Side, count: usize) -> Result<()> {
        let stream = self.streams[side as usize].as_mut().context("no stream")?;
        let mut data = vec![0; count];
        timeout(IO_LIMIT, stream.read_exact(&mut data)).await.context("data took too long")??;
        Ok(())
    }

    /// Reads to the peer's FIN; nothing to do where the socket is closed already.
    async fn read_to_end(&mut self, side: Side) -> Result<()> {
        let Some(stream) = self.streams[side as usize].as_mut() else { return Ok(()) };
        let read = timeout(IO_LIMIT, stream.read_to_end(&mut Vec::new())).await;
        read.context("the FIN took too long")?.context("waiting for the FIN")?;
        Ok(())
    }

    /// Waits until the peer's FIN is there, and reads nothing.
    async fn see_fin(&mut self, side: Side) -> Result<()> {
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

    /// Waits for the peer's RST; nothing to do where the socket is closed already.
    async fn see_reset(&mut self, side: Side) -> Result<()> {
        let Some(stream) = self.streams[side as usize].as_ref() else { return Ok(()) };
        // After a FIN a read would only say that there is no more.
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

    /// The other host sends; waits until it has come, and leaves it there.
    async fn leave_unread(&mut self, side: Side) -> Result<()> {
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

/// How long one holds still at most.
const HOLD_LIMIT: Duration = Duration::from_secs(40);
/// Several retransmissions.
const IO_LIMIT: Duration = Duration::from_secs(30);
/// A RST that is lost does not come again.
const RESET_LIMIT: Duration = Duration::from_secs(3);
