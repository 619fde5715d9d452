//! Support for the tests of several crates: two model endpoints over a bad network, the conformance
//! scenarios, and frames and captures made in memory.

pub mod captures;
pub mod frames;
pub mod golden;
pub mod model;
pub mod scenario;
