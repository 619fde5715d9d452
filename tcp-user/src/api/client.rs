//! The CLI's side of the query socket.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// The agent cannot be reached: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("no agent answers on {socket}: {reason}. Is `finwait run` running? --socket names another place")]
pub struct NotReachable {
    socket: String,
    reason: std::io::Error,
}

/// An answer, read line by line.
pub struct Answer {
    body: Incoming,
    /// What has come and was not read yet.
    buffer: BytesMut,
    /// So much of it has no end of a line.
    searched: usize,
}

/// Asks the agent.
pub async fn get(socket: &Path, path: &str) -> Result<Answer> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|reason| NotReachable { socket: socket.display().to_string(), reason })?;
    ask(stream, path).await
}

/// Asks who is at the other end of a stream.
pub async fn ask<S>(stream: S, path: &str) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "finwait").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("asking the agent")?;
    if !response.status().is_success() {
        let text = response.into_body().collect().await?.to_bytes();
        bail!("the agent answers: {}", String::from_utf8_lossy(&text));
    }
    Ok(Answer { body: response.into_body(), buffer: BytesMut::new(), searched: 0 })
}

impl Answer {
    /// The next line without its end, or `None` at the end.
    pub async fn line(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.context("the agent went away")?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }

    /// All of it.
    pub async fn whole(self) -> Result<Vec<u8>> {
        let mut all = Vec::from(self.buffer);
        all.extend(self.body.collect().await.context("the agent went away")?.to_bytes());
        Ok(all)
    }
}
