//! Histograms whose buckets name a connection, which OpenMetrics calls an exemplar.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;

use crate::view::ConnectionId;

/// A histogram of seconds. Each bucket names the connection that was counted in it last.
pub type ConnectionHistogram = HistogramWithExemplars<ConnectionId>;

/// The connection that a measurement is of.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar {
    /// Id of the connection, as in its records.
    pub id: ConnectionId,
    /// Time of the measurement.
    pub at: Timestamp,
}

impl Exemplar {
    /// Counts a duration of the connection, in seconds.
    pub fn observe(self, histogram: &ConnectionHistogram, seconds: f64) {
        histogram.observe(seconds, Some(self.id), Some(self.at.into()));
    }
}

impl EncodeLabelSet for ConnectionId {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("id", self.to_string()).encode(encoder.encode_label())
    }
}
