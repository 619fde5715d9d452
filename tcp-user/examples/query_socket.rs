//! Reads the connections in TIME-WAIT from a running agent, over its query socket.
//!
//! `cargo run --example query_socket [-- SOCKET]`. The default is the default socket of `finwait run`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use finwait::api::{DEFAULT_SOCKET, client};
use finwait::view::Connection;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let socket = std::env::args_os().nth(1).map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from);
    // Parameters are URL-encoded: the filter is `state time-wait`.
    let mut answer = client::get(&socket, "/connections?filter=state+time-wait").await?;
    // One JSON document a line.
    while let Some(line) = answer.line().await? {
        let connection: Connection = serde_json::from_slice(&line).context("reading the agent's answer")?;
        let remaining = connection.time_wait.map_or(0, |time_wait| time_wait.expires_in_ms);
        println!(
            "{} -> {}: {remaining} ms of TIME-WAIT left",
            connection.client.socket_address(),
            connection.server.socket_address()
        );
    }
    Ok(())
}
