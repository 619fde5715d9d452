//! What is unusual about a capture that can be read nevertheless.

use super::error::Offset;
use super::outbox::wall;

/// Something unusual. The text names its place in the capture and says how it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The header of another capture where a record was expected: files were concatenated.
    #[error("at {0}: a second capture begins here. It was read as the continuation of the capture before it")]
    AnotherCapture(Offset),
    /// A frame whose timestamp is not near those of the frames around it. `at_ns` is ns since the epoch.
    #[error(
        "frame {frame} is stamped {}, which the frames around it contradict. It was processed at their time",
        wall(*.at_ns)
    )]
    Outlier {
        /// Number of the frame, from 1.
        frame: u64,
        /// Its timestamp, ns since the epoch.
        at_ns: u64,
    },
    /// A frame whose timestamp has a fraction of a second or more.
    #[error(
        "frame {frame} has an impossible timestamp: its fraction is a second or more. It was processed at the \
         time of the frame before it"
    )]
    Fraction {
        /// Number of the frame, from 1.
        frame: u64,
    },
    /// A frame that is stamped before an earlier one.
    #[error(
        "frame {frame} is stamped {} before the frame before it. The clock was not moved back",
        seconds(*.by_ns)
    )]
    StepBack {
        /// Number of the frame, from 1.
        frame: u64,
        /// How far its timestamp is back, ns.
        by_ns: u64,
    },
}

/// Counts warnings by their kind.
#[derive(Default)]
pub(super) struct WarningCounts([u64; 4]);

impl WarningCounts {
    /// Counts a warning. Returns whether it is one of the first of its kind, which are reported.
    pub(super) fn admit(&mut self, warning: &Warning) -> bool {
        let kind = match warning {
            Warning::AnotherCapture(_) => 0,
            Warning::Outlier { .. } => 1,
            Warning::Fraction { .. } => 2,
            Warning::StepBack { .. } => 3,
        };
        self.0[kind] += 1;
        self.0[kind] <= MAX_WARNINGS
    }
}

/// Seconds with as many decimals as they need.
fn seconds(ns: u64) -> String {
    format!("{} s", ns as f64 / 1e9)
}

/// Maximum number of warnings of one kind that are reported.
const MAX_WARNINGS: u64 = 20;
