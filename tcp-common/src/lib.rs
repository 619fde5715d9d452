//! What is right about TCP, in one place: the wire format, and the pure state machine that follows both ends of a
//! connection as an observer of its segments.
//!
//! This crate has no clock, no I/O, no allocation, no map and no log: time and direction are arguments. It has three
//! homes, the kernel programs, the capture replay and the tests, and whatever is proved of it in one holds in all.
//!
//! Modules in the order a packet meets them: [`wire`] makes bytes a [`FlowKey`] and a [`Segment`] or names the reason
//! why it is [`Ignored`]; [`flow`] applies the segment to the two ends; [`table`] is where flows are kept, [`record`] what else crosses
//! the kernel boundary.

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
pub use key::{Address, Endpoint, FlowKey, FlowKey4, Secret, TableKey};
pub use segment::{Flags, Kind, Segment};
pub use state::{End, State};
