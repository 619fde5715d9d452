//! The ports as gauges of the metrics page.

use std::cmp::Reverse;

use crate::view::{PortBudget, Ports};

/// Gauges of the local ports. The number of destinations in them is bounded.
#[derive(Clone, Debug, Default)]
pub struct PortGauges {
    /// Number of ports for a destination that holds none; `None` if the ports could not be counted.
    pub(in crate::agent) available: Option<u64>,
    /// Number of ports that bind() has taken; `None` as before.
    pub(in crate::agent) bound: Option<u64>,
    /// Part of the ports that is held, the largest first.
    pub(in crate::agent) used: Vec<DestinationSample>,
    /// Time until the ports run out, in s, the shortest first.
    pub(in crate::agent) exhaustion: Vec<DestinationSample>,
}

/// The value of a gauge for one destination, or for all others.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) struct DestinationSample {
    /// Local address, and remote address with port.
    pub(in crate::agent) labels: [String; 2],
    /// The number.
    pub(in crate::agent) value: f64,
}

impl From<&Ports> for PortGauges {
    fn from(ports: &Ports) -> PortGauges {
        let mut by_use: Vec<_> = ports.destinations.iter().collect();
        by_use.sort_by(|a, b| used(b).total_cmp(&used(a)).then_with(|| a.remote().cmp(&b.remote())));
        let mut by_time: Vec<_> =
            ports.destinations.iter().filter_map(|b| Some((b.exhausted_in_ms?, b))).collect();
        by_time.sort_by_key(|(ms, budget)| (*ms, Reverse(budget.live), budget.remote()));
        PortGauges {
            available: Some(ports.available.into()),
            bound: Some(ports.bound.into()),
            used: samples(by_use.into_iter().map(|budget| (budget, used(budget)))),
            exhaustion: samples(by_time.into_iter().map(|(ms, budget)| (budget, ms as f64 / 1e3))),
        }
    }
}

/// The first destinations, and the next one as that of all others.
fn samples<'a>(ordered: impl Iterator<Item = (&'a PortBudget, f64)>) -> Vec<DestinationSample> {
    let sample = |(index, (budget, value)): (usize, (&PortBudget, f64))| {
        let labels = if index < DESTINATIONS {
            [budget.local_address.to_string(), budget.remote().to_string()]
        } else {
            [OTHER.to_owned(), OTHER.to_owned()]
        };
        DestinationSample { labels, value }
    };
    ordered.take(DESTINATIONS + 1).enumerate().map(sample).collect()
}

/// Part of the ports that connect() cannot choose, because connections hold them.
fn used(budget: &PortBudget) -> f64 {
    let capacity = budget.capacity().max(1);
    f64::from(capacity.saturating_sub(budget.free)) / f64::from(capacity)
}

/// Number of destinations with a series of their own.
const DESTINATIONS: usize = 10;
const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn the_number_of_series_is_bounded_and_the_rest_is_one() {
        let sample = samples::ports();
        let destinations = (0..30).map(|index| PortBudget {
            remote_port: 1_000 + index,
            live: u32::from(index),
            time_wait: 0,
            reusable: 0,
            free: 98 - u32::from(index),
            exhausted_in_ms: (index < 11).then_some(u64::from(index) * 1_000),
            ..sample.destinations[0].clone()
        });
        let gauges = PortGauges::from(&Ports { destinations: destinations.collect(), ..sample });
        let last =
            |samples: &[DestinationSample]| samples.last().map(|last| (last.labels.clone(), last.value));
        let other = [OTHER.to_owned(), OTHER.to_owned()];
        assert_eq!((gauges.used.len(), gauges.exhaustion.len()), (11, 11));
        assert_eq!(gauges.used[0].labels, ["10.9.0.1", "10.9.0.2:1029"]);
        assert_eq!(last(&gauges.used), Some((other.clone(), 19.0 / 98.0)));
        assert_eq!(last(&gauges.exhaustion), Some((other, 10.0)));
    }

    #[test]
    fn without_connections_no_destination_has_a_series() {
        let gauges = PortGauges::from(&Ports { destinations: Vec::new(), ..samples::ports() });
        assert_eq!((gauges.available, gauges.bound), (Some(98), Some(2)));
        assert!(gauges.used.is_empty() && gauges.exhaustion.is_empty());
    }
}
