//! The client of the query socket.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{MapErr, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyDataStream, BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::UnixStream;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

/// A query failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens on the socket.
    #[error("no agent answers on {socket}. Is `finwait run` running? Use --socket for another path")]
    NotReachable {
        /// Path of the query socket.
        socket: String,
        /// Error of connect().
        source: io::Error,
    },
    /// This user may not open the socket.
    #[error("not permitted to query the agent on {socket}: {}", may_query(.group))]
    NotPermitted {
        /// Path of the query socket.
        socket: String,
        /// Name of the group that may, if it is known.
        group: Option<String>,
        /// Error of connect().
        source: io::Error,
    },
    /// The agent refused the query.
    #[error("the agent answers: {0}")]
    Refused(String),
    /// The path is not a valid request target.
    #[error("invalid query")]
    Request(#[from] hyper::http::Error),
    /// The exchange with the agent failed.
    #[error("querying the agent")]
    Exchange(#[from] hyper::Error),
    /// The connection ended before the answer did.
    #[error("reading the agent's answer")]
    Interrupted(#[from] io::Error),
    /// A line is not UTF-8 or too long.
    #[error("reading the agent's answer")]
    Line(#[from] LinesCodecError),
}

/// The body of an answer.
pub struct Answer {
    lines: FramedRead<StreamReader<Body, Bytes>, LinesCodec>,
}

type Body = MapErr<BodyDataStream<Incoming>, fn(hyper::Error) -> io::Error>;

/// Sends a query to the agent that listens on `socket`. `path` includes the query parameters.
pub async fn get(socket: &Path, path: &str) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| unreachable_because(source, socket))?;
    ask(stream, path).await
}

/// Why connecting to the socket failed.
fn unreachable_because(source: io::Error, path: &Path) -> ClientError {
    let socket = path.display().to_string();
    if source.kind() != io::ErrorKind::PermissionDenied {
        return ClientError::NotReachable { socket, source };
    }
    // The directory's permissions hide those of a socket inside.
    let refusing = path.ancestors().find_map(|path| path.symlink_metadata().ok());
    let group = refusing.and_then(|file| Group::from_gid(Gid::from_raw(file.gid())).ok().flatten());
    ClientError::NotPermitted { socket, group: group.map(|group| group.name), source }
}

/// Who may query, and the next step.
fn may_query(group: &Option<String>) -> String {
    match group.as_deref() {
        Some("root") => "run this command as root, or start the agent with --user".to_owned(),
        Some(group) => format!("join group {group:?}, or run this command as root"),
        None => "run this command as root".to_owned(),
    }
}

/// Sends a query over a connected stream.
pub async fn ask<S>(stream: S, path: &str) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "finwait").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if !status.is_success() {
        let text = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(text.trim_ascii_end());
        // An agent of an earlier version does not know every query.
        let text = if text.is_empty() { status.to_string() } else { text.into_owned() };
        return Err(ClientError::Refused(text));
    }
    let body = response.into_body().into_data_stream().map_err(io::Error::other as fn(_) -> _);
    Ok(Answer { lines: FramedRead::new(StreamReader::new(body), LinesCodec::new()) })
}

impl Answer {
    /// The next line without its line break; `None` at the end. No data is lost if the future is dropped.
    pub async fn line(&mut self) -> Result<Option<Bytes>, ClientError> {
        Ok(self.lines.next().await.transpose()?.map(Bytes::from))
    }

    /// The rest of the answer.
    pub async fn whole(self) -> Result<Vec<u8>, ClientError> {
        let mut parts = self.lines.into_parts();
        let mut rest = Vec::from(parts.read_buf);
        parts.io.read_to_end(&mut rest).await?;
        Ok(rest)
    }
}
