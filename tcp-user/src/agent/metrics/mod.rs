//! The page that Prometheus scrapes, in two text formats.
//!
//! One table declares every family. `finwait stats` and `finwait status` show the same table. A label value is a
//! `&'static str`, so it can only be a name from this program's own tables: no address, port or other text from a
//! packet can become a series. The exception are gauges of the destinations that are shortest of ports, of which
//! there are a few at a time, and one for all others. The number of series is therefore bounded. Every other series is exported from the first scrape, at 0, except state
//! transitions that RFC 9293 does not have.

mod families;
mod format;

pub use format::Exposition;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::exemplar::ConnectionHistogram;
use super::ports::DestinationSample;
use super::totals::{Snapshot, seconds};
use crate::api::MetricSample;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde_json::Number;

/// The counters and gauges of the page, by the names of Prometheus text 0.0.4.
pub(super) fn counts(snapshot: &Snapshot) -> BTreeMap<String, Vec<MetricSample>> {
    let families = families::TABLE.iter();
    families.filter_map(|family| Some((family.plain_name(), family.counts(snapshot)?))).collect()
}

/// The samples of a family of counters or gauges: label values in the order of the page, and a number.
///
/// # Panics
///
/// If the table has no such family.
pub(super) fn samples(snapshot: &Snapshot, name: &str) -> Samples {
    let family = families::TABLE.iter().find(|family| family.name == name);
    family.and_then(|family| family.samples(snapshot)).unwrap_or_else(|| panic!("no counts in {name}"))
}

/// The sum of the samples of a family of counters or gauges.
pub(super) fn total(snapshot: &Snapshot, name: &str) -> u64 {
    samples(snapshot, name).iter().map(|(_, count)| count).sum()
}

/// Writes the whole page.
///
/// # Errors
///
/// Fails only if formatting into a string fails, which it never does.
pub fn encode(snapshot: &Snapshot, format: Exposition) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(snapshot.clone()));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    match format {
        Exposition::OpenMetrics => Ok(page),
        Exposition::Text => plain_text(&page),
    }
}

/// Turns an OpenMetrics page into Prometheus text 0.0.4. The samples are the same, without exemplars. The lines
/// before them differ: plain text knows neither units nor infos, and names a family with its suffix.
fn plain_text(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut page = String::with_capacity(open_metrics.len());
    let mut families = families::TABLE.iter();
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            let family = families.next().ok_or(fmt::Error)?;
            let name = family.plain_name();
            writeln!(page, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.plain_type())?;
        } else if !line.starts_with('#') {
            let sample = line.split_once(EXEMPLAR).map_or(line, |(sample, _)| sample);
            writeln!(page, "{sample}")?;
        }
    }
    Ok(page)
}

/// Begins the exemplar of a sample. No label value has it.
const EXEMPLAR: &str = " # {";

/// Begins the name of every family.
const PREFIX: &str = "finwait";

/// One row of the table.
struct Family {
    /// The name without prefix, unit and suffix.
    name: &'static str,
    /// Whole sentences.
    help: &'static str,
    /// Names of the labels, in the order of the samples' label values.
    labels: &'static [&'static str],
    data: Data,
}

/// The type of a family and the function that takes its samples from a snapshot.
enum Data {
    Counter(fn(&Snapshot) -> Samples),
    Gauge(fn(&Snapshot) -> Samples),
    /// A counter of seconds; the samples are in nanoseconds.
    Elapsed(fn(&Snapshot) -> Samples),
    /// A gauge with some destinations of connections as labels.
    Destinations(fn(&Snapshot) -> &[DestinationSample]),
    /// A gauge of seconds with some destinations of connections as labels.
    DestinationSeconds(fn(&Snapshot) -> &[DestinationSample]),
    /// Histograms of seconds.
    Seconds(fn(&Snapshot) -> Histograms<'_>),
    /// A histogram of seconds, with connections as exemplars.
    ConnectionSeconds(fn(&Snapshot) -> &ConnectionHistogram),
    /// The constant 1 with these label values.
    Info(&'static [&'static str]),
}

/// Label values and a number.
pub(super) type Samples = Vec<(Vec<&'static str>, u64)>;

/// Label values and a histogram.
type Histograms<'a> = Vec<(Vec<&'static str>, &'a Histogram)>;

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::TABLE.iter().try_for_each(|family| family.encode(self, &mut encoder))
    }
}

impl Family {
    /// The samples of counters and gauges, durations in nanoseconds.
    fn samples(&self, snapshot: &Snapshot) -> Option<Samples> {
        match self.data {
            Data::Counter(samples) | Data::Gauge(samples) | Data::Elapsed(samples) => Some(samples(snapshot)),
            Data::Destinations(_)
            | Data::DestinationSeconds(_)
            | Data::Seconds(_)
            | Data::ConnectionSeconds(_)
            | Data::Info(_) => None,
        }
    }

    /// Label values and numbers of gauges with destinations.
    fn destinations<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a [DestinationSample]> {
        match self.data {
            Data::Destinations(samples) | Data::DestinationSeconds(samples) => Some(samples(snapshot)),
            _ => None,
        }
    }

    fn counts(&self, snapshot: &Snapshot) -> Option<Vec<MetricSample>> {
        if let Some(samples) = self.destinations(snapshot) {
            let sample = |sample: &DestinationSample| {
                let labels = self.labels.iter().map(|label| (*label).to_owned()).zip(sample.labels.clone());
                Some(MetricSample { labels: labels.collect(), value: Number::from_f64(sample.value)? })
            };
            return Some(samples.iter().filter_map(sample).collect());
        }
        let number = |count: u64| match self.data {
            Data::Elapsed(_) => Number::from_f64(seconds(count)).unwrap_or_else(|| count.into()),
            _ => count.into(),
        };
        let sample = |(values, count): (Vec<&'static str>, u64)| {
            let labels = self.label_set(&values).into_iter();
            MetricSample {
                labels: labels.map(|(label, value)| (label.to_owned(), value.to_owned())).collect(),
                value: number(count),
            }
        };
        Some(self.samples(snapshot)?.into_iter().map(sample).collect())
    }

    fn encode(&self, snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = self.unit();
        let encoder =
            encoder.encode_descriptor(self.name, self.help, unit.as_ref(), self.data.metric_type())?;
        match self.data {
            Data::Counter(samples) => self.encode_all(encoder, samples(snapshot), ConstCounter::new),
            Data::Gauge(samples) => self.encode_all(encoder, samples(snapshot), ConstGauge::new),
            Data::Elapsed(samples) => {
                self.encode_all(encoder, samples(snapshot), |ns| ConstCounter::new(seconds(ns)))
            }
            Data::Destinations(samples) | Data::DestinationSeconds(samples) => {
                self.encode_destinations(encoder, samples(snapshot))
            }
            Data::Seconds(samples) => self.encode_all(encoder, samples(snapshot), Histogram::clone),
            Data::ConnectionSeconds(histogram) => histogram(snapshot).encode(encoder),
            Data::Info(values) => Info::new(self.label_set(values)).encode(encoder),
        }
    }

    /// Encodes the samples in their order. (The library's own `Family` has the order of a hash map.)
    fn encode_all<T, M: EncodeMetric>(
        &self,
        mut encoder: MetricEncoder<'_>,
        samples: Vec<(Vec<&'static str>, T)>,
        metric: impl Fn(T) -> M,
    ) -> fmt::Result {
        for (values, value) in samples {
            if values.is_empty() {
                return metric(value).encode(encoder);
            }
            metric(value).encode(encoder.encode_family(&self.label_set(&values))?)?;
        }
        Ok(())
    }

    fn encode_destinations(
        &self,
        mut encoder: MetricEncoder<'_>,
        samples: &[DestinationSample],
    ) -> fmt::Result {
        samples.iter().try_for_each(|sample| {
            let labels = sample.labels.iter().map(String::as_str);
            let labels: Vec<_> = self.labels.iter().copied().zip(labels).collect();
            ConstGauge::new(sample.value).encode(encoder.encode_family(&labels)?)
        })
    }

    fn label_set(&self, values: &[&'static str]) -> Vec<(&'static str, &'static str)> {
        debug_assert_eq!(values.len(), self.labels.len());
        self.labels.iter().copied().zip(values.iter().copied()).collect()
    }

    fn unit(&self) -> Option<Unit> {
        matches!(
            self.data,
            Data::Elapsed(_) | Data::DestinationSeconds(_) | Data::Seconds(_) | Data::ConnectionSeconds(_)
        )
        .then_some(Unit::Seconds)
    }

    /// The name in Prometheus text 0.0.4.
    fn plain_name(&self) -> String {
        let unit = self.unit().map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let suffix = match self.data {
            Data::Counter(_) | Data::Elapsed(_) => "_total",
            Data::Info(_) => "_info",
            Data::Gauge(_)
            | Data::Destinations(_)
            | Data::DestinationSeconds(_)
            | Data::Seconds(_)
            | Data::ConnectionSeconds(_) => "",
        };
        format!("{PREFIX}_{}{unit}{suffix}", self.name)
    }

    /// The type in Prometheus text 0.0.4, where an info is a gauge.
    fn plain_type(&self) -> &'static str {
        match self.data {
            Data::Counter(_) | Data::Elapsed(_) => "counter",
            Data::Gauge(_) | Data::Destinations(_) | Data::DestinationSeconds(_) | Data::Info(_) => "gauge",
            Data::Seconds(_) | Data::ConnectionSeconds(_) => "histogram",
        }
    }
}

impl Data {
    fn metric_type(&self) -> MetricType {
        match self {
            Data::Counter(_) | Data::Elapsed(_) => MetricType::Counter,
            Data::Gauge(_) | Data::Destinations(_) | Data::DestinationSeconds(_) => MetricType::Gauge,
            Data::Seconds(_) | Data::ConnectionSeconds(_) => MetricType::Histogram,
            Data::Info(_) => MetricType::Info,
        }
    }
}
