//! The finwait library: the agent, the command-line tool, and what they consist of.
//!
//! # For other programs
//!
//! Three modules are meant for other programs:
//!
//! - [`replay`] follows the connections of a capture. The example `follow_capture` uses it.
//! - [`api`] is the query socket of a running agent: its parameters, its documents and a client. The example
//!   `query_socket` uses it.
//! - [`view`] has the records of both: connections, transitions, closes and what follows them.
//!
//! ```no_run
//! use finwait::replay::{self, Options, Output};
//!
//! let mut print = |output| {
//!     if let Output::Connection(listed) = output {
//!         println!("{:?}, {:?}", listed.connection.client.state, listed.connection.server.state);
//!     }
//!     Ok(())
//! };
//! replay::run("capture.pcap".as_ref(), &Options::default(), &mut print)?;
//! # Ok::<(), finwait::replay::ReplayError>(())
//! ```
//!
//! The state machine itself is the crate `tcp-common`, which needs neither an allocator nor an operating
//! system.
//!
//! # Internal modules
//!
//! All other modules are public only for the binary, the tests and the tools of the repository. They change
//! without notice. From the kernel to the user: `kernel` loads and attaches the programs and is the only
//! module that names aya. `agent` mirrors the flow table and serves the query socket and the metrics.
//! `sockets` reads the kernel's own sockets, and `audit` compares with them. `filter` selects records and
//! `output` prints them. `store` keeps closed connections
//! in files. `cli` defines the command line and `commands` executes it. `clock` reads the clock
//! of the kernel programs.
//!
//! The feature `lab`, on by default, adds `lab`, a test network of two hosts, and `demo`, which shows it.

pub mod agent;
pub mod api;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod commands;
#[cfg(feature = "lab")]
pub mod demo;
pub mod doctor;
pub mod filter;
pub mod kernel;
#[cfg(feature = "lab")]
pub mod lab;
mod netlink;
pub mod options;
pub mod output;
pub mod replay;
pub mod sockets;
pub mod store;
pub mod system_error;
pub mod view;
pub mod why;
