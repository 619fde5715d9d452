//! What Prometheus scrapes: one table of families, two forms of text.
//!
//! A label value is a `&'static str`, so it can only be a name out of this program's own tables: no address, no port, no
//! word of a peer's ever becomes a series. The number of series is therefore bounded whatever happens on the wire, and
//! every series but those of transitions that the RFC does not know is there from the first scrape, at 0.

mod families;
mod format;

pub use format::Format;

use std::fmt;

use super::totals::{Snapshot, seconds};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The whole answer to a scrape.
pub fn encode(snapshot: &Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("finwait");
    for family in families::TABLE {
        family.register(snapshot, format, &mut registry);
    }
    let mut page = String::new();
    match format {
        Format::Text => text::encode_registry(&mut page, &registry)?,
        Format::OpenMetrics => text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

/// One row of the table.
struct Family {
    /// Without `finwait_`, unit and suffix.
    name: &'static str,
    /// Without the full stop.
    help: &'static str,
    labels: &'static [&'static str],
    data: Data,
}

/// The type of a family and where its numbers come from.
enum Data {
    Counter(fn(&Snapshot) -> Samples),
    Gauge(fn(&Snapshot) -> Samples),
    /// A counter of seconds, given in ns.
    Elapsed(fn(&Snapshot) -> Samples),
    /// Histograms of seconds.
    Seconds(fn(&Snapshot) -> Histograms<'_>),
    /// A constant, all of it in the labels.
    Info(&'static [&'static str]),
}

/// Label values and the histogram.
type Histograms<'a> = Vec<(Vec<&'static str>, &'a Histogram)>;

/// Label values and the number.
type Samples = Vec<(Vec<&'static str>, u64)>;

impl Family {
    /// OpenMetrics names a family without its suffix, plain text with it; units and infos only OpenMetrics knows.
    fn register(&self, snapshot: &Snapshot, format: Format, registry: &mut Registry) {
        let (plain, counter) = (format == Format::Text, if format == Format::Text { "_total" } else { "" });
        let count = if plain { Value::Number } else { Value::Total };
        let (suffix, unit, kind, samples) = match self.data {
            Data::Counter(of) => (counter, None, MetricType::Counter, values(of(snapshot), count)),
            Data::Elapsed(of) => {
                let ns = if plain { Value::Elapsed } else { Value::ElapsedTotal };
                (counter, Some(Unit::Seconds), MetricType::Counter, values(of(snapshot), ns))
            }
            Data::Gauge(of) => ("", None, MetricType::Gauge, values(of(snapshot), Value::Number)),
            Data::Seconds(of) => {
                let value = |histogram: &Histogram| Value::Histogram(histogram.clone());
                let samples = of(snapshot).into_iter().map(|(labels, of)| (labels, value(of))).collect();
                ("", Some(Unit::Seconds), MetricType::Histogram, samples)
            }
            Data::Info(labels) if plain => {
                ("_info", None, MetricType::Gauge, vec![(labels.to_vec(), Value::Number(1))])
            }
            Data::Info(labels) => ("", None, MetricType::Info, vec![(labels.to_vec(), Value::Info)]),
        };
        let series = Series { labels: self.labels, kind, samples };
        match unit {
            None => registry.register(format!("{}{suffix}", self.name), self.help, series),
            Some(unit) if plain => {
                registry.register(format!("{}_{}{suffix}", self.name, unit.as_str()), self.help, series);
            }
            Some(unit) => registry.register_with_unit(self.name, self.help, unit, series),
        }
    }
}

fn values(samples: Samples, value: fn(u64) -> Value) -> Vec<(Vec<&'static str>, Value)> {
    samples.into_iter().map(|(labels, number)| (labels, value(number))).collect()
}

/// A sample's value, and what is written after the family's name.
#[derive(Clone, Debug)]
enum Value {
    /// Nothing.
    Number(u64),
    /// `_total`.
    Total(u64),
    /// Nothing; ns, written in seconds.
    Elapsed(u64),
    /// `_total`; ns, written in seconds.
    ElapsedTotal(u64),
    Histogram(Histogram),
    /// `_info`: the labels are all there is.
    Info,
}

/// A family's samples in the order of the table (the library's own `Family` has the order of a hash map).
#[derive(Debug)]
struct Series {
    labels: &'static [&'static str],
    kind: MetricType,
    samples: Vec<(Vec<&'static str>, Value)>,
}

impl EncodeMetric for Series {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        if let ([], [(_, value)]) = (self.labels, self.samples.as_slice()) {
            return value.encode(encoder);
        }
        for (values, value) in &self.samples {
            debug_assert_eq!(values.len(), self.labels.len());
            let labels: Vec<(&str, &str)> = self.labels.iter().copied().zip(values.iter().copied()).collect();
            match value {
                Value::Info => encoder.encode_info(&labels)?,
                value => value.encode(encoder.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

impl Value {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        match self {
            // The library's word for "no suffix".
            Value::Number(number) => encoder.encode_gauge(number),
            Value::Elapsed(ns) => encoder.encode_gauge(&seconds(*ns)),
            Value::Total(number) => encoder.encode_counter::<NoLabelSet, _, u64>(number, None),
            Value::ElapsedTotal(ns) => encoder.encode_counter::<NoLabelSet, _, u64>(&seconds(*ns), None),
            Value::Histogram(histogram) => histogram.encode(encoder),
            Value::Info => Ok(()),
        }
    }
}
