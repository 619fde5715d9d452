//! The ways in which a connection closes, each performed with real sockets between the two hosts of the lab.
//!
//! Each scenario has a row in [`SCENARIOS`] and one short function in `plays`. It takes less than two seconds
//! and has a server port of its own, so that all scenarios can run at once.

mod plays;
mod table;

use std::net::SocketAddr;
use std::{panic, thread};

use socket2::Socket;
use tcp_common::State;

use super::link::NO_IPV6;
use super::stage::{Addresses, Stage};
use super::{Family, Lab, LabError, Role};

pub use table::SCENARIOS;

/// One way in which a connection closes or stays open.
#[derive(Debug)]
pub struct Scenario {
    /// Unique short name.
    pub name: &'static str,
    /// One-line description for people.
    pub summary: &'static str,
    /// The expected close kind: `fin_4seg`, `open`, ...
    pub kind: &'static str,
    /// Which end sent the first FIN: `client`, `server`, `both` or `none`.
    pub closer: &'static str,
    /// The end whose RST ended the connection.
    pub aborter: Option<Role>,
    /// The state of the client's socket when the scenario is over.
    pub client: State,
    /// The state of the server's socket when the scenario is over.
    pub server: State,
    /// The incarnation of the 4-tuple that is checked, from 1.
    pub incarnation: u32,
    play: fn(&Stage<'_>) -> Result<Scene, LabError>,
}

/// A scenario that has been performed. Both ends keep their states while this value lives. Dropping it closes
/// the sockets that are still open.
#[derive(Debug)]
pub struct Played {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The client's address.
    pub client: SocketAddr,
    /// The server's address.
    pub server: SocketAddr,
    _kept: Vec<Socket>,
}

impl Scenario {
    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Performs the scenario and waits until both sockets are in the expected states.
    pub fn perform(&'static self, lab: &Lab, family: Family) -> Result<Played, LabError> {
        if !lab.supports(family) {
            return Err(LabError::not_supported("make IPv6 connections", NO_IPV6));
        }
        let stage = Stage { lab, family, port: self.port() };
        let Scene { addresses, kept } = (self.play)(&stage)?;
        stage.wait(addresses, Role::Client, self.client)?;
        stage.wait(addresses, Role::Server, self.server)?;
        Ok(Played { scenario: self, client: addresses.client, server: addresses.server, _kept: kept })
    }

    /// Performs all scenarios at once, one thread each. The results are in the order of [`SCENARIOS`].
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

    /// The server's port: 7001 plus the index of the scenario in [`SCENARIOS`].
    pub(crate) fn port(&self) -> u16 {
        let index = SCENARIOS.iter().position(|scenario| scenario.name == self.name).unwrap_or(0);
        FIRST_PORT + index as u16
    }
}

/// The result of a scenario: its addresses and the sockets that stay open.
struct Scene {
    addresses: Addresses,
    kept: Vec<Socket>,
}

impl Scene {
    fn over(addresses: Addresses) -> Result<Scene, LabError> {
        Ok(Scene { addresses, kept: Vec::new() })
    }

    fn keeping<const N: usize>(addresses: Addresses, kept: [Socket; N]) -> Result<Scene, LabError> {
        Ok(Scene { addresses, kept: kept.into() })
    }
}

const FIRST_PORT: u16 = 7001;
