//! A recording of the closes, shown where the demonstration cannot run: a capture of the lab's link, made by
//! `cargo xtask record-demo` and read by the same state machine.

use anyhow::{Context as _, Result};

use super::table::{self, Observation, Row};
use crate::lab::{Family, SCENARIOS, Scenario};
use crate::replay::{self, Input, Output};
use crate::view::Connection;

static CAPTURE: &[u8] = include_bytes!("recording.pcap.gz");

/// Prints the recorded closes.
pub(super) fn show() -> Result<()> {
    let connections = connections()?;
    for &family in Family::ALL {
        let rows: Vec<Row> = SCENARIOS.iter().map(|scenario| row(scenario, family, &connections)).collect();
        table::print(family, "RECORDING from another machine", &rows)?;
    }
    Ok(())
}

/// Every connection of the capture, in its final state.
fn connections() -> Result<Vec<Connection>> {
    let input = Input::new(CAPTURE).context("opening the recording")?;
    let mut connections = Vec::new();
    let mut keep = |output| {
        if let Output::Connection(listed) = output {
            connections.push(listed.connection);
        }
        Ok(())
    };
    replay::run_input(input, &replay::Options::default(), &mut keep).context("reading the recording")?;
    Ok(connections)
}

/// The row of one scenario. The kernels' states are those at the end of the scenario, when it was recorded.
fn row(scenario: &'static Scenario, family: Family, connections: &[Connection]) -> Row {
    let played = |one: &&Connection| one.family == family && one.server.port == scenario.port();
    let found = connections.iter().filter(played).max_by_key(|one| one.incarnation);
    Row { scenario, observed: found.map(observed), kernel: (scenario.client, scenario.server) }
}

fn observed(connection: &Connection) -> Observation {
    let closer = connection.close.as_ref().and_then(|close| close.closer);
    Observation {
        client: connection.client.state,
        server: connection.server.state,
        kind: connection.close_word(),
        closer: closer.map_or("none", |who| who.name()),
        incarnation: connection.incarnation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the recording is older than the scenarios: `cargo xtask record-demo` makes a new one.
    #[test]
    fn every_scenario_is_recorded_and_agrees() {
        let connections = connections().expect("the recording");
        for &family in Family::ALL {
            for scenario in SCENARIOS {
                let row = row(scenario, family, &connections);
                assert!(row.agrees(), "{} {}: {:?}", table::name(family), scenario.name, row.observed);
            }
        }
    }
}
