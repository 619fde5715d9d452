//! The agent, the CLI and the exporter of finwait.

pub mod describe;
pub mod kernel;
pub mod lab;
pub mod view;
