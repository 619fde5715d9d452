//! The same closes from a recording, for who may not load programs here: a capture of the cable of `finwait demo`, made by
//! `cargo xtask record-demo`, read by the same machine.

use anyhow::{Context as _, Result};

use super::table::{self, Row, Seen};
use crate::lab::{Family, SCENARIOS, Scenario};
use crate::replay::{self, Input, Output};
use crate::view::{self, Connection};

static CAPTURE: &[u8] = include_bytes!("recording.pcap.gz");

/// Prints the recorded closes. Returns whether everything agreed.
pub(super) fn show() -> Result<bool> {
    let connections = connections()?;
    let mut agreed = true;
    for family in Family::ALL {
        let rows: Vec<Row> = SCENARIOS.iter().map(|scenario| row(scenario, family, &connections)).collect();
        agreed &= rows.iter().all(Row::agrees);
        table::print(family, "from a RECORDING: nothing of this happened on this machine", &rows)?;
    }
    Ok(agreed)
}

/// Every connection of the capture as it stands at its end.
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

/// The kernels' states are those that ended the scenario when it was recorded.
fn row(scenario: &'static Scenario, family: Family, connections: &[Connection]) -> Row {
    let family = match family {
        Family::Ipv4 => view::Family::Ipv4,
        Family::Ipv6 => view::Family::Ipv6,
    };
    let played = |one: &&Connection| one.family == family && one.server.port == scenario.port();
    let found = connections.iter().filter(played).max_by_key(|one| one.incarnation);
    Row { scenario, ours: found.map(seen), kernel: (scenario.client, scenario.server) }
}

fn seen(connection: &Connection) -> Seen {
    let closer = connection.close.as_ref().and_then(|close| close.closer);
    Seen {
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

    /// A recording that is older than the scenarios fails here: `cargo xtask record-demo` makes a new one.
    #[test]
    fn every_scenario_is_recorded_and_right() {
        let connections = connections().expect("the recording");
        for family in Family::ALL {
            for scenario in SCENARIOS {
                let row = row(scenario, family, &connections);
                assert!(row.agrees(), "{} {}: {:?}", table::name(family), scenario.name, row.ours);
            }
        }
    }
}
