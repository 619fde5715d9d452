//! The wire format of TCP, and a state machine that follows both ends of a connection from the segments
//! that an observer sees between them.
//!
//! The crate has no clock, no I/O, no allocation, no map and no log: time and direction are arguments. So
//! the same code runs in the kernel programs, in the agent, in the replay of captures and in the tests.
//!
//! Modules in the order in which a packet meets them: [`wire`] parses bytes to a [`FlowKey`] and a
//! [`Segment`], or returns the reason why the packet is [`Ignored`]. [`flow`] applies the segment to both
//! ends. [`table`] is the protocol of the table that keeps the flows. [`record`] has the other types that
//! cross the kernel boundary.
//!
//! ```
//! use tcp_common::wire::{self, FirstHeader};
//! use tcp_common::{Flow, Rules, State};
//!
//! // A SYN from 192.0.2.1:40000 to 198.51.100.7:443.
//! let ipv4 = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
//! let tcp = [0x9c, 0x40, 1, 0xbb, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
//! let packet = wire::parse(&[ipv4, tcp].concat()[..], FirstHeader::Ip, None)?;
//!
//! let (client, server) = (packet.sender, packet.sender.peer());
//! let mut flow = Flow::EMPTY;
//! flow.on_segment(1_000, client, &packet.segment, &Rules::RFC);
//! assert_eq!((flow.state(client), flow.state(server)), (State::SynSent, State::Listen));
//! # Ok::<(), tcp_common::Ignored>(())
//! ```

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod flow;
mod ignored;
mod key;
pub mod record;
mod segment;
pub mod seq;
mod state;
pub mod table;
pub mod wire;

pub use flow::{Cause, CloseKind, Flow, Outcome, Previous, Rules};
pub use ignored::Ignored;
pub use key::{AddressNumber, Endpoint, FlowKey, FlowKey4, Secret, TableKey};
pub use segment::{Flags, Segment, SegmentKind};
pub use state::{End, State};
