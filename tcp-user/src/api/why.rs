//! `/why`: the connections that a filter selects, and the explanation if it is one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::view::Connection;
use crate::why::Explanation;

/// Parameters of `/why`.
#[derive(Deserialize)]
pub struct WhyQuery {
    /// A filter expression.
    pub filter: String,
}

/// The document of `/why`. Connections that have ended are candidates if no other is.
#[derive(Serialize, Deserialize)]
pub struct WhyAnswer {
    /// Number of connections that the filter selects.
    pub count: usize,
    /// The first of them, at most [`WhyAnswer::LISTED`].
    pub candidates: Vec<Connection>,
    /// The time that the connections are as of.
    pub as_of: Timestamp,
    /// The explanation of the only one.
    pub explanation: Option<Explanation>,
}

impl WhyAnswer {
    /// Number of candidates that are listed.
    pub const LISTED: usize = 20;
}
