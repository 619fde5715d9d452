//! The query protocol from both sides: requests as the agent reads them, and answers as the CLI reads them.

use std::cell::LazyCell;
use std::fmt::Debug;
use std::io;

use axum::extract::Query;
use axum::http::Uri;
use finwait::api::{ConnectionsQuery, EventsQuery, Observed, Stats, Status, client};
use finwait::filter::Filter;
use finwait::output::{EventWriter, Format, ListWriter, Palette};
use finwait::view::{Connection, EventRecord};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Builder, Runtime};

/// Fuzzes a request's path (after `Q`), everything that comes over the socket (after `H`), or one line
/// of an answer.
pub(crate) fn query(bytes: &[u8]) {
    match bytes.split_first() {
        Some((b'Q', path)) => request(path),
        Some((b'H', answer)) => RUNTIME.with(|runtime| runtime.block_on(read_answer(answer.to_vec()))),
        _ => line(bytes),
    }
}

thread_local! {
    static RUNTIME: LazyCell<Runtime> =
        const { LazyCell::new(|| Builder::new_current_thread().build().expect("a runtime")) };
}

/// The agent's side: the query parameters of a path.
fn request(path: &[u8]) {
    let Ok(uri) = Uri::try_from(path) else { return };
    let _ = Query::<ConnectionsQuery>::try_from_uri(&uri);
    if let Ok(Query(wanted)) = Query::<EventsQuery>::try_from_uri(&uri)
        && let Err(error) = Filter::parse(&wanted.filter)
    {
        assert!(!error.to_string().is_empty());
    }
}

/// The CLI's side: a whole HTTP answer.
async fn read_answer(answer: Vec<u8>) {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let agent = tokio::spawn(async move {
        let _ = far.write_all(&answer).await;
    });
    if let Ok(mut answer) = client::ask(near, "/connections").await {
        while let Ok(Some(read)) = answer.line().await {
            line(&read);
        }
    }
    let _ = agent.await;
}

/// Reads a line of an answer as every type of record; a record survives writing and reading, and every
/// format can print it.
fn line(bytes: &[u8]) {
    if let Some(connection) = round_trip::<Connection>(bytes) {
        for format in Format::ALL {
            let mut list = ListWriter::new(io::sink(), format, Palette::COLOURED, Timestamp::UNIX_EPOCH)
                .expect("a sink accepts everything");
            list.push(&connection).expect("a sink accepts everything");
            assert_eq!(list.finish().expect("a sink accepts everything"), 1);
        }
    }
    let observed = round_trip::<Observed<Connection, EventRecord>>(bytes).map(|observed| observed.event);
    if let Some(event) = observed.or_else(|| round_trip::<EventRecord>(bytes)) {
        for format in Format::ALL {
            let mut events = EventWriter::new(io::sink(), format, Palette::COLOURED).expect("a sink");
            events.push(&event).expect("a sink accepts everything");
            assert_eq!(events.finish().expect("a sink accepts everything"), 1);
        }
    }
    round_trip::<Stats>(bytes);
    round_trip::<Status>(bytes);
}

/// Reads a record, writes it, and reads it again. Timestamps may lose digits the first time, not
/// afterwards.
fn round_trip<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<T> {
    let first: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_string(&first).expect("a record can be written");
    let second: T = serde_json::from_str(&written).expect("a written record can be read");
    assert_eq!(serde_json::to_string(&second).expect("a record can be written"), written);
    Some(first)
}
