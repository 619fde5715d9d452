//! Indices of the programs in the program arrays, by which programs reach the next one of their chain by tail calls.
//! XDP and TC have an array each.
//!
//! Entry program, then [`READ`], [`APPLY`] and [`FINISH`] for nearly every packet. What is rare goes from [`READ`] to
//! programs of its own:
//!
//! - TC: headers that are not in the packet's linear part, to [`COPY`];
//! - a fragment, to [`FRAGMENT`]; a segment behind options of IPv4, to [`OPTIONS`]; from these three, once the segment
//!   is whole, to [`LOCK`], and on to [`APPLY`];
//! - an ICMP message, to [`ICMP`].

/// Reads a packet and locks its flow.
pub const READ: u32 = 0;
/// TC only: copies and reads headers that are not in the packet's linear part.
pub const COPY: u32 = 1;
/// Keeps a fragment until its datagram is whole.
pub const FRAGMENT: u32 = 2;
/// Checks the options of IPv4.
pub const OPTIONS: u32 = 3;
/// Locks the flow of a packet that another program has read.
pub const LOCK: u32 = 4;
/// Applies the segment to the locked flow.
pub const APPLY: u32 = 5;
/// Publishes what the segment did, and unlocks the flow.
pub const FINISH: u32 = 6;
/// Reads an ICMP message and applies it.
pub const ICMP: u32 = 7;
/// Length of each program array.
pub const LEN: u32 = 8;
