//! The steps of each scenario: what each end does, in order.

use std::io;
use std::time::{Duration, Instant};

use nix::libc::{ECONNREFUSED, MSG_MORE};
use tcp_common::State;

use super::super::stage::{Addresses, OpenConnection, Stage, drop_arrivals};
use super::super::{LabError, Role};
use super::Scene;

pub(super) fn live(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let OpenConnection { client, server, addresses } = stage.open()?;
    Scene::keeping(addresses, [client, server])
}

pub(super) fn four_segments(stage: &Stage<'_>, closer: Role) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    close_in_four(stage, &connection, closer)?;
    Scene::over(connection.addresses)
}

pub(super) fn three_segments(stage: &Stage<'_>, closer: Role) -> Result<Scene, LabError> {
    for _ in 0..ATTEMPTS {
        let connection = stage.open()?;
        let begun = Instant::now();
        connection.finish(closer)?;
        connection.read_to_end(closer.peer())?;
        connection.finish(closer.peer())?;
        // The receiver of a FIN delays its ACK, so the FIN of a close that follows soon enough carries it.
        if begun.elapsed() < SHORTEST_DELAYED_ACK / 2 {
            connection.read_to_end(closer)?;
            return Scene::over(connection.addresses);
        }
    }
    Err(LabError::Timeout {
        waited_ms: (SHORTEST_DELAYED_ACK / 2).as_millis(),
        expected: "a close sooner than the delayed ACK".to_owned(),
        found: format!("a machine too busy for it, {ATTEMPTS} times"),
    })
}

pub(super) fn data_on_fin(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    // MSG_MORE holds the data back until the FIN is sent with it.
    connection.client.send_with_flags(b"farewell", MSG_MORE).map_err(LabError::system("send"))?;
    close_in_four(stage, &connection, Role::Client)?;
    Scene::over(connection.addresses)
}

pub(super) fn half_close(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    connection.finish(Role::Client)?;
    connection.read_to_end(Role::Server)?;
    for part in [b"the rest", b"and more"] {
        connection.send(Role::Server, part)?;
        connection.receive(Role::Client, part)?;
    }
    connection.finish(Role::Server)?;
    connection.read_to_end(Role::Client)?;
    Scene::over(connection.addresses)
}

/// Both FINs are sent before either is received. The retransmissions, 200 ms later, complete the close.
pub(super) fn simultaneous(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    connection.drop_arrivals(Role::Client)?;
    connection.drop_arrivals(Role::Server)?;
    connection.finish(Role::Client)?;
    connection.finish(Role::Server)?;
    stage.wait_for_drop(connection.addresses, Role::Client)?;
    stage.wait_for_drop(connection.addresses, Role::Server)?;
    connection.keep_arrivals(Role::Client)?;
    connection.keep_arrivals(Role::Server)?;
    stage.wait(connection.addresses, Role::Client, State::TimeWait)?;
    stage.wait(connection.addresses, Role::Server, State::TimeWait)?;
    Scene::over(connection.addresses)
}

pub(super) fn lost_last_ack(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    connection.finish(Role::Client)?;
    connection.read_to_end(Role::Server)?;
    connection.acknowledge(Role::Server)?;
    stage.wait(connection.addresses, Role::Client, State::FinWait2)?;
    connection.drop_arrivals(Role::Server)?;
    connection.finish(Role::Server)?;
    stage.wait_for_drop(connection.addresses, Role::Server)?;
    connection.keep_arrivals(Role::Server)?;
    stage.wait(connection.addresses, Role::Server, State::Closed)?;
    Scene::over(connection.addresses)
}

pub(super) fn close_wait_leak(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    let addresses = connection.addresses;
    let (client, server) = connection.split(Role::Client);
    drop(client);
    Scene::keeping(addresses, [server])
}

pub(super) fn rst_abort(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    let addresses = connection.addresses;
    connection.client.set_linger(Some(Duration::ZERO)).map_err(LabError::system("set SO_LINGER"))?;
    let (client, server) = connection.split(Role::Client);
    drop(client);
    stage.wait(addresses, Role::Server, State::Closed)?;
    drop(server);
    Scene::over(addresses)
}

pub(super) fn rst_unread_data(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    let addresses = connection.addresses;
    connection.send(Role::Client, b"never read")?;
    connection.finish(Role::Client)?;
    stage.wait(addresses, Role::Server, State::CloseWait)?;
    let (server, client) = connection.split(Role::Server);
    drop(server);
    stage.wait(addresses, Role::Client, State::Closed)?;
    drop(client);
    Scene::over(addresses)
}

pub(super) fn rst_data_after_close(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let connection = stage.open()?;
    let addresses = connection.addresses;
    let (client, server) = connection.split(Role::Client);
    drop(client);
    stage.wait(addresses, Role::Client, State::FinWait2)?;
    server.send(b"data to closed").map_err(LabError::system("send"))?;
    stage.wait(addresses, Role::Server, State::Closed)?;
    drop(server);
    Scene::over(addresses)
}

pub(super) fn refused(stage: &Stage<'_>) -> Result<Scene, LabError> {
    // Bound, so that no other socket listens on the port, but not listening.
    let server = stage.server_socket()?;
    let client = stage.client_socket(0)?;
    let addresses = stage.begin_connect(&client, &server)?;
    stage.wait(addresses, Role::Client, State::Closed)?;
    match client.take_error() {
        Ok(Some(error)) if error.raw_os_error() == Some(ECONNREFUSED) => Scene::over(addresses),
        Ok(Some(error)) | Err(error) => Err(LabError::system("be refused")(error)),
        Ok(None) => Err(LabError::system("be refused")(io::ErrorKind::InvalidData.into())),
    }
}

pub(super) fn syn_unanswered(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let server = stage.listener()?;
    drop_arrivals(&server)?;
    let client = stage.client_socket(0)?;
    let addresses = stage.begin_connect(&client, &server)?;
    Scene::keeping(addresses, [client, server])
}

/// The SYN-ACK is dropped. Its retransmission, a second later, finds no client socket.
pub(super) fn syn_abort(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let server = stage.listener()?;
    let client = stage.client_socket(0)?;
    drop_arrivals(&client)?;
    let addresses = stage.begin_connect(&client, &server)?;
    stage.wait(addresses, Role::Server, State::SynReceived)?;
    drop(client);
    stage.wait(addresses, Role::Server, State::Closed)?;
    Scene::over(addresses)
}

pub(super) fn time_wait_reuse(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let listener = stage.listener()?;
    let first = stage.open_to(&listener, stage.client_socket(0)?)?;
    let Addresses { client, .. } = first.addresses;
    close_in_four(stage, &first, Role::Server)?;
    stage.wait(first.addresses, Role::Server, State::TimeWait)?;
    stage.wait(first.addresses, Role::Client, State::Closed)?;
    drop(first);
    let OpenConnection { client, server, addresses } =
        stage.open_to(&listener, stage.client_socket(client.port())?)?;
    Scene::keeping(addresses, [client, server])
}

/// Closes by FIN, ACK, FIN, ACK: the second FIN is sent only when the first one has been acknowledged.
fn close_in_four(stage: &Stage<'_>, connection: &OpenConnection, closer: Role) -> Result<(), LabError> {
    connection.finish(closer)?;
    connection.read_to_end(closer.peer())?;
    connection.acknowledge(closer.peer())?;
    stage.wait(connection.addresses, closer, State::FinWait2)?;
    connection.finish(closer.peer())?;
    connection.read_to_end(closer)
}

const ATTEMPTS: usize = 10;
/// `TCP_DELACK_MIN`, `include/net/tcp.h`.
const SHORTEST_DELAYED_ACK: Duration = Duration::from_millis(40);
