//! The agent, the CLI and the exporter of finwait.
//!
//! Modules from the kernel to the person: `kernel` is the one that names aya, `agent` mirrors and serves, `describe` and
//! `view` put flow records into the users' words, `filter` chooses among them and `output` writes them, `cli` is what can be
//! typed and `commands` what it does. `replay` needs no kernel. `sockets` is the kernel's own view, `audit` compares with it.
//! `lab` makes real connections for `demo` and the tests.

pub mod agent;
pub mod api;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod commands;
#[cfg(feature = "lab")]
pub mod demo;
pub mod filter;
pub mod kernel;
#[cfg(feature = "lab")]
pub mod lab;
mod netlink;
pub mod options;
pub mod output;
pub mod replay;
pub mod sockets;
pub mod view;
