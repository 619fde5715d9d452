//! The CLI's side of the query socket.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
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
    buffer: Vec<u8>,
}

/// Asks the agent.
pub async fn get(socket: &Path, path: &str) -> Result<Answer> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|reason| NotReachable { socket: socket.display().to_string(), reason })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "finwait").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("asking the agent")?;
    if !response.status().is_success() {
        let text = response.into_body().collect().await?.to_bytes();
        bail!("the agent answers: {}", String::from_utf8_lossy(&text));
    }
    Ok(Answer { body: response.into_body(), buffer: Vec::new() })
}

impl Answer {
    /// The next line, or `None` at the end.
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.context("the agent went away")?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }

    /// All of it.
    pub async fn whole(mut self) -> Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.buffer);
        all.extend(self.body.collect().await.context("the agent went away")?.to_bytes());
        Ok(all)
    }
}
