//! The ways in which a connection closes, each really performed between the two hosts of the lab.
//!
//! One row a scenario in [`SCENARIOS`], and in `plays` one short function that reads as the story of it. Each takes less than two
//! seconds, each has a server port of its own, and all may run at once.

mod plays;
mod table;

use std::net::SocketAddr;
use std::{panic, thread};

use socket2::Socket;
use tcp_common::State;

use super::link::NO_IPV6;
use super::stage::{Flow, Stage};
use super::{Family, Lab, LabError, Side};

pub use table::SCENARIOS;

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
                .map(|player| player.join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
                .collect()
        })
    }

    /// The server's port: the scenario's place in the table, so that a person finds it again.
    pub(crate) fn port(&self) -> u16 {
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

const FIRST_PORT: u16 = 7001;
