//! The ways in which a connection closes, each really performed between the two hosts of the lab.
//!
//! One row a scenario in [`SCENARIOS`], and one short function that reads as the story of it. Each takes less than two
//! seconds, each has a server port of its own, and all may run at once.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{ECONNREFUSED, MSG_MORE};
use socket2::Socket;
use tcp_common::State;

use super::link::NO_IPV6;
use super::stage::{Ends, Flow, Stage, lose_arrivals};
use super::{Family, Lab, LabError, Side};

/// One way in which a connection closes, or does not.
#[derive(Debug)]
pub struct Scenario {
    /// Short name, unique.
    pub name: &'static str,
    /// What happens, in one line for people.
    pub summary: &'static str,
    /// The close kind an observer should report: `fin_4seg`, `open`, ...
    pub kind: &'static str,
    /// Whose FIN came first: `client`, `server`, `both` or `none`.
    pub closer: &'static str,
    /// Whose RST ended it.
    pub aborter: Option<Side>,
    /// The kernel's state of the client's end when the scenario is over.
    pub client: State,
    /// The same for the server's end.
    pub server: State,
    /// Which life of the 4-tuple this is about, from 1.
    pub incarnation: u32,
    play: fn(&Stage<'_>) -> Result<Scene, LabError>,
}

/// A scenario that has been performed. The states of both ends last while this is kept; dropping it closes the
/// sockets that are still open, with all that follows on the wire.
#[derive(Debug)]
pub struct Played {
    /// Which one.
    pub scenario: &'static Scenario,
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
    _kept: Vec<Socket>,
}

impl Scenario {
    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Performs it and waits until the kernel has both ends in the states the scenario promises.
    pub fn perform(&'static self, lab: &Lab, family: Family) -> Result<Played, LabError> {
        if !lab.supports(family) {
            return Err(LabError::NotSupported { action: "make IPv6 connections", needs: NO_IPV6 });
        }
        let stage = Stage { lab, family, port: self.port() };
        let Scene { flow, kept } = (self.play)(&stage)?;
        stage.wait(flow, Side::Client, self.client)?;
        stage.wait(flow, Side::Server, self.server)?;
        Ok(Played { scenario: self, client: flow.client, server: flow.server, _kept: kept })
    }

    /// Performs all of them at once, a thread each; results in the order of [`SCENARIOS`].
    pub fn perform_all(lab: &Lab, family: Family) -> Vec<Result<Played, LabError>> {
        thread::scope(|scope| {
            let players: Vec<_> =
                SCENARIOS.iter().map(|scenario| scope.spawn(move || scenario.perform(lab, family))).collect();
            players
                .into_iter()
                .map(|player| player.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
                .collect()
        })
    }

    /// The server's port: the scenario's place in the table, so that a person finds it again.
    fn port(&self) -> u16 {
        let place = SCENARIOS.iter().position(|scenario| scenario.name == self.name).unwrap_or(0);
        FIRST_PORT + place as u16
    }
}

/// What a scenario leaves behind.
struct Scene {
    flow: Flow,
    kept: Vec<Socket>,
}

impl Scene {
    fn over(flow: Flow) -> Result<Scene, LabError> {
        Ok(Scene { flow, kept: Vec::new() })
    }

    fn keeping<const N: usize>(flow: Flow, kept: [Socket; N]) -> Result<Scene, LabError> {
        Ok(Scene { flow, kept: kept.into() })
    }
}

/// Every scenario, the ordinary ones first.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "live",
        summary: "an open connection, nobody closes",
        kind: "open",
        closer: "none",
        aborter: None,
        client: State::Established,
        server: State::Established,
        incarnation: 1,
        play: live,
    },
    Scenario {
        name: "fin_4seg_client",
        summary: "the client closes; the server acknowledges, then closes: 4 segments",
        kind: "fin_4seg",
        closer: "client",
        aborter: None,
        client: State::TimeWait,
        server: State::Closed,
        incarnation: 1,
        play: |stage| four_segments(stage, Side::Client),
    },
    Scenario {
        name: "fin_4seg_server",
        summary: "the server closes; the client acknowledges, then closes: 4 segments",
        kind: "fin_4seg",
        closer: "server",
        aborter: None,
        client: State::Closed,
        server: State::TimeWait,
        incarnation: 1,
        play: |stage| four_segments(stage, Side::Server),
    },
    Scenario {
        name: "fin_3seg_client",
        summary: "the client closes; the server's FIN carries the ACK: 3 segments",
        kind: "fin_3seg",
        closer: "client",
        aborter: None,
        client: State::TimeWait,
        server: State::Closed,
        incarnation: 1,
        play: |stage| three_segments(stage, Side::Client),
    },
    Scenario {
        name: "fin_3seg_server",
        summary: "the server closes; the client's FIN carries the ACK: 3 segments",
        kind: "fin_3seg",
        closer: "server",
        aborter: None,
        client: State::Closed,
        server: State::TimeWait,
        incarnation: 1,
        play: |stage| three_segments(stage, Side::Server),
    },
    Scenario {
        name: "data_on_fin",
        summary: "the client's last data and its FIN are one segment",
        kind: "fin_4seg",
        closer: "client",
        aborter: None,
        client: State::TimeWait,
        server: State::Closed,
        incarnation: 1,
        play: data_on_fin,
    },
    Scenario {
        name: "half_close",
        summary: "the client closes its half; the server goes on sending, then closes",
        kind: "half_close",
        closer: "client",
        aborter: None,
        client: State::TimeWait,
        server: State::Closed,
        incarnation: 1,
        play: half_close,
    },
    Scenario {
        name: "simultaneous",
        summary: "both close at once, neither having seen the other's FIN",
        kind: "simultaneous",
        closer: "both",
        aborter: None,
        client: State::TimeWait,
        server: State::TimeWait,
        incarnation: 1,
        play: simultaneous,
    },
    Scenario {
        name: "lost_last_ack",
        summary: "the last ACK is lost; the server's FIN comes again and 2MSL starts anew",
        kind: "fin_4seg",
        closer: "client",
        aborter: None,
        client: State::TimeWait,
        server: State::Closed,
        incarnation: 1,
        play: lost_last_ack,
    },
    Scenario {
        name: "close_wait_leak",
        summary: "the client closes; the server forgets to",
        kind: "open",
        closer: "client",
        aborter: None,
        client: State::FinWait2,
        server: State::CloseWait,
        incarnation: 1,
        play: close_wait_leak,
    },
    Scenario {
        name: "rst_abort",
        summary: "the client aborts an open connection",
        kind: "rst_abort",
        closer: "none",
        aborter: Some(Side::Client),
        client: State::Closed,
        server: State::Closed,
        incarnation: 1,
        play: rst_abort,
    },
    Scenario {
        name: "rst_unread_data",
        summary: "the client closes; the server closes without having read everything: RST",
        kind: "rst_after_fin",
        closer: "client",
        aborter: Some(Side::Server),
        client: State::Closed,
        server: State::Closed,
        incarnation: 1,
        play: rst_unread_data,
    },
    Scenario {
        name: "rst_nobody_reads",
        summary: "the client closes and goes; the server goes on sending: RST",
        kind: "rst_after_fin",
        closer: "client",
        aborter: Some(Side::Client),
        client: State::Closed,
        server: State::Closed,
        incarnation: 1,
        play: rst_nobody_reads,
    },
    Scenario {
        name: "refused",
        summary: "nobody listens on the port",
        kind: "refused",
        closer: "none",
        aborter: Some(Side::Server),
        client: State::Closed,
        server: State::Closed,
        incarnation: 1,
        play: refused,
    },
    Scenario {
        name: "syn_unanswered",
        summary: "the SYN gets no answer",
        kind: "open",
        closer: "none",
        aborter: None,
        client: State::SynSent,
        server: State::Closed,
        incarnation: 1,
        play: syn_unanswered,
    },
    Scenario {
        name: "syn_abort",
        summary: "the client gives up before the handshake is complete and resets the late answer",
        kind: "syn_abort",
        closer: "none",
        aborter: Some(Side::Client),
        client: State::Closed,
        server: State::Closed,
        incarnation: 1,
        play: syn_abort,
    },
    Scenario {
        name: "time_wait_reuse",
        summary: "the client opens the same 4-tuple again while the server holds it in TIME-WAIT",
        kind: "open",
        closer: "none",
        aborter: None,
        client: State::Established,
        server: State::Established,
        incarnation: 2,
        play: time_wait_reuse,
    },
];

fn live(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let Ends { client, server, flow } = stage.open()?;
    Scene::keeping(flow, [client, server])
}

fn four_segments(stage: &Stage<'_>, closer: Side) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    close_in_four(stage, &ends, closer)?;
    Scene::over(ends.flow)
}

fn three_segments(stage: &Stage<'_>, closer: Side) -> Result<Scene, LabError> {
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

fn data_on_fin(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    // MSG_MORE holds the data back until the FIN joins them.
    ends.client.send_with_flags(b"farewell", MSG_MORE).map_err(LabError::system("send"))?;
    close_in_four(stage, &ends, Side::Client)?;
    Scene::over(ends.flow)
}

fn half_close(stage: &Stage<'_>) -> Result<Scene, LabError> {
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
fn simultaneous(stage: &Stage<'_>) -> Result<Scene, LabError> {
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

fn lost_last_ack(stage: &Stage<'_>) -> Result<Scene, LabError> {
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

fn close_wait_leak(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    let flow = ends.flow;
    let (client, server) = ends.split(Side::Client);
    drop(client);
    Scene::keeping(flow, [server])
}

fn rst_abort(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let ends = stage.open()?;
    let flow = ends.flow;
    ends.client.set_linger(Some(Duration::ZERO)).map_err(LabError::system("set SO_LINGER"))?;
    let (client, server) = ends.split(Side::Client);
    drop(client);
    stage.wait(flow, Side::Server, State::Closed)?;
    drop(server);
    Scene::over(flow)
}

fn rst_unread_data(stage: &Stage<'_>) -> Result<Scene, LabError> {
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

fn rst_nobody_reads(stage: &Stage<'_>) -> Result<Scene, LabError> {
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

fn refused(stage: &Stage<'_>) -> Result<Scene, LabError> {
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

fn syn_unanswered(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let server = stage.listener()?;
    lose_arrivals(&server)?;
    let client = stage.client_socket(0)?;
    let flow = stage.begin_connect(&client, &server)?;
    Scene::keeping(flow, [client, server])
}

/// The SYN-ACK is lost and comes again after a second, when the client's socket has gone.
fn syn_abort(stage: &Stage<'_>) -> Result<Scene, LabError> {
    let server = stage.listener()?;
    let client = stage.client_socket(0)?;
    lose_arrivals(&client)?;
    let flow = stage.begin_connect(&client, &server)?;
    stage.wait(flow, Side::Server, State::SynReceived)?;
    drop(client);
    stage.wait(flow, Side::Server, State::Closed)?;
    Scene::over(flow)
}

fn time_wait_reuse(stage: &Stage<'_>) -> Result<Scene, LabError> {
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

const FIRST_PORT: u16 = 7001;
const ATTEMPTS: usize = 10;
/// `TCP_DELACK_MIN`, `include/net/tcp.h`.
const SHORTEST_DELAYED_ACK: Duration = Duration::from_millis(40);
