//! The stories: what each end does, in order.

use std::io;
use std::time::{Duration, Instant};

use nix::libc::{ECONNREFUSED, MSG_MORE};
use tcp_common::State;

use super::super::stage::{Ends, Flow, Stage, lose_arrivals};
use super::super::{LabError, Side};
use super::Scene;

pub(super) fn live(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let Ends { client, server, flow } = stage.open()?;
    Scene::keeping(flow, [client, server])
}

pub(super) fn four_segments(stage: &Stage<'_>, closer: Side) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    close_in_four(stage, &ends, closer)?;
    Scene::over(ends.flow)
}

pub(super) fn three_segments(stage: &Stage<'_>, closer: Side) -> Result<Scene, LabError> {
    for _ in 0..ATTEMPTS {
        let ends = stage.open()?;
        let begun = Instant::now();
        ends.finish(closer)?;
        ends.read_to_end(closer.peer())?;
        ends.finish(closer.peer())?;
        // After the FIN the receiver puts its ACK off, so a close that came soon enough carried it.
        if begun.elapsed() < SHORTEST_DELAYED_ACK / 2 {
            ends.read_to_end(closer)?;
            return Scene::over(ends.flow);
        }
    }
    Err(LabError::Timeout {
        waited_ms: (SHORTEST_DELAYED_ACK / 2).as_millis(),
        expected: "a close sooner than the delayed ACK".to_owned(),
        found: format!("a machine too busy for it, {ATTEMPTS} times"),
    })
}

pub(super) fn data_on_fin(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    // MSG_MORE holds the data back until the FIN joins them.
    ends.client.send_with_flags(b"farewell", MSG_MORE).map_err(LabError::system("send"))?;
    close_in_four(stage, &ends, Side::Client)?;
    Scene::over(ends.flow)
}

pub(super) fn half_close(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    ends.finish(Side::Client)?;
    ends.read_to_end(Side::Server)?;
    for part in [b"the rest", b"and more"] {
        ends.send(Side::Server, part)?;
        ends.receive(Side::Client, part)?;
    }
    ends.finish(Side::Server)?;
    ends.read_to_end(Side::Client)?;
    Scene::over(ends.flow)
}

/// Both FINs are on the wire before either is received; the retransmissions, 200 ms later, complete the close.
pub(super) fn simultaneous(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    ends.lose_arrivals(Side::Client)?;
    ends.lose_arrivals(Side::Server)?;
    ends.finish(Side::Client)?;
    ends.finish(Side::Server)?;
    stage.wait_for_loss(ends.flow, Side::Client)?;
    stage.wait_for_loss(ends.flow, Side::Server)?;
    ends.heal(Side::Client)?;
    ends.heal(Side::Server)?;
    stage.wait(ends.flow, Side::Client, State::TimeWait)?;
    stage.wait(ends.flow, Side::Server, State::TimeWait)?;
    Scene::over(ends.flow)
}

pub(super) fn lost_last_ack(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    ends.finish(Side::Client)?;
    ends.read_to_end(Side::Server)?;
    ends.acknowledge(Side::Server)?;
    stage.wait(ends.flow, Side::Client, State::FinWait2)?;
    ends.lose_arrivals(Side::Server)?;
    ends.finish(Side::Server)?;
    stage.wait_for_loss(ends.flow, Side::Server)?;
    ends.heal(Side::Server)?;
    stage.wait(ends.flow, Side::Server, State::Closed)?;
    Scene::over(ends.flow)
}

pub(super) fn close_wait_leak(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    let flow = ends.flow;
    let (client, server) = ends.split(Side::Client);
    drop(client);
    Scene::keeping(flow, [server])
}

pub(super) fn rst_abort(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    let flow = ends.flow;
    ends.client.set_linger(Some(Duration::ZERO)).map_err(LabError::system("set SO_LINGER"))?;
    let (client, server) = ends.split(Side::Client);
    drop(client);
    stage.wait(flow, Side::Server, State::Closed)?;
    drop(server);
    Scene::over(flow)
}

pub(super) fn rst_unread_data(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    let flow = ends.flow;
    ends.send(Side::Client, b"nobody will read this")?;
    ends.finish(Side::Client)?;
    stage.wait(flow, Side::Server, State::CloseWait)?;
    let (server, client) = ends.split(Side::Server);
    drop(server);
    stage.wait(flow, Side::Client, State::Closed)?;
    drop(client);
    Scene::over(flow)
}

pub(super) fn rst_nobody_reads(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    let flow = ends.flow;
    let (client, server) = ends.split(Side::Client);
    drop(client);
    stage.wait(flow, Side::Client, State::FinWait2)?;
    server.send(b"are you there?").map_err(LabError::system("send"))?;
    stage.wait(flow, Side::Server, State::Closed)?;
    drop(server);
    Scene::over(flow)
}

pub(super) fn refused(stage: &Stage<'_>) -> Result<Scene, LabError> {
    // Bound, so that nobody else listens there, but not listening.
    let server = stage.server_socket()?;
    let client = stage.client_socket(0)?;
    let flow = stage.begin_connect(&client, &server)?;
    stage.wait(flow, Side::Client, State::Closed)?;
    match client.take_error() {
        Ok(Some(error)) if error.raw_os_error() == Some(ECONNREFUSED) => Scene::over(flow),
        Ok(other) => Err(LabError::System {
            action: "be refused",
            source: other.unwrap_or_else(|| io::ErrorKind::InvalidData.into()),
        }),
        Err(error) => Err(LabError::system("be refused")(error)),
    }
}

pub(super) fn syn_unanswered(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let server = stage.listener()?;
    lose_arrivals(&server)?;
    let client = stage.client_socket(0)?;
    let flow = stage.begin_connect(&client, &server)?;
    Scene::keeping(flow, [client, server])
}

/// The SYN-ACK is lost and comes again after a second, when the client's socket has gone.
pub(super) fn syn_abort(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let server = stage.listener()?;
    let client = stage.client_socket(0)?;
    lose_arrivals(&client)?;
    let flow = stage.begin_connect(&client, &server)?;
    stage.wait(flow, Side::Server, State::SynReceived)?;
    drop(client);
    stage.wait(flow, Side::Server, State::Closed)?;
    Scene::over(flow)
}

pub(super) fn time_wait_reuse(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let listener = stage.listener()?;
    let first = stage.open_to(&listener, stage.client_socket(0)?)?;
    let Flow { client, .. } = first.flow;
    close_in_four(stage, &first, Side::Server)?;
    stage.wait(first.flow, Side::Server, State::TimeWait)?;
    stage.wait(first.flow, Side::Client, State::Closed)?;
    drop(first);
    let Ends { client, server, flow } = stage.open_to(&listener, stage.client_socket(client.port())?)?;
    Scene::keeping(flow, [client, server])
}

/// FIN, ACK, FIN, ACK: the second FIN is sent only when the first closer has the ACK of its own.
fn close_in_four(stage: &Stage<'_>, ends: &Ends, closer: Side) -> Result<(), LabError> {
    ends.finish(closer)?;
    ends.read_to_end(closer.peer())?;
    ends.acknowledge(closer.peer())?;
    stage.wait(ends.flow, closer, State::FinWait2)?;
    ends.finish(closer.peer())?;
    ends.read_to_end(closer)
}

const ATTEMPTS: usize = 10;
/// `TCP_DELACK_MIN`, `include/net/tcp.h`.
const SHORTEST_DELAYED_ACK: Duration = Duration::from_millis(40);
